//! Octets of a DNS message -> a reply.

use hickory_proto::op::Message;
use tidegate::{
    base::{HostPattern, Hostname},
    dns::{SiteId, Transport, Zones, answer},
    ir::{RecordSet, Zone},
};

fn zones() -> Zones {
    let host = |name: &str| Hostname::parse(name).expect("a name");
    let mut zones = Zones::default();
    zones.set_zone(Zone {
        apex: host("example.com"),
        ttl: 60,
        negative_ttl: 10,
        name_servers: vec![host("ns1.example.com"), host("ns.example.net")],
        contact: host("hostmaster.example.com"),
        refresh: 3_600,
        retry: 600,
        expire: 604_800,
        glue: vec![(host("ns1.example.com"), [192, 0, 2, 53].into())],
    });
    let many: Vec<std::net::IpAddr> = (0..100).map(|n| [10, 0, 0, n].into()).collect();
    for (pattern, addresses) in [
        (HostPattern::Exact(host("v4.example.com")), many[..1].to_vec()),
        (HostPattern::Exact(host("big.example.com")), many),
        (HostPattern::OneLabel(host("one.example.com")), vec![[10, 0, 1, 1].into()]),
        (HostPattern::AnyLabels(host("any.example.com")), vec!["2001:db8::1".parse().expect("one")]),
    ] {
        zones.set_records(RecordSet { name: pattern, addresses, ttl: None });
    }
    zones
}

/// No panic, nothing larger than the client may get, and a reply that another
/// reader can read and that belongs to the query.
pub fn dns(query: &[u8]) {
    let zones = zones();
    let site = SiteId::new("site").expect("short");
    for (transport, max) in [(Transport::Udp, 1_232), (Transport::Tcp, 65_535)] {
        let Some(mut reply) = answer(&zones, query, transport, &site) else {
            assert!(query.len() < 12 || query[2] & 0x80 != 0, "a query without a reply");
            continue;
        };
        assert!(reply.bytes.len() <= max, "{} bytes", reply.bytes.len());
        assert_eq!(&reply.bytes[..2], &query[..2]);
        assert!(reply.bytes[2] & 0x80 != 0);
        let message = Message::from_vec(&reply.bytes).expect("readable");
        assert!(message.edns.is_some() || transport == Transport::Tcp || reply.bytes.len() <= 512);
        reply.truncate();
        assert!(reply.bytes.len() <= query.len() + 68, "a slip is hardly larger than its query");
        Message::from_vec(&reply.bytes).expect("readable");
    }
}
