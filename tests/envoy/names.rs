//! The embedded DNS answers what the VIPs serve.

use crate::support::live::{DEADLINE, Tenant, manifest::dns_zone, tenant};
use hickory_proto::{op::ResponseCode, rr::RecordType};

#[test]
fn published_hosts() {
    let tenant = Tenant::new("names");
    let _service = tenant.service("any");
    tenant.apply("zone", &[dns_zone("names", "names.test")]);
    let ingress = tenant
        .ingress("hosts")
        .prefix("www.names.test", "/", "any")
        .prefix("*.apps.names.test", "/", "any")
        .prefix("elsewhere.example", "/", "any");
    let vip = tenant.serve("hosts", ingress);
    let published = |name: &str| {
        tenant.live.eventually(&format!("{name} is published (within {DEADLINE:?})"), || {
            let reply = tenant.live.dns(name, RecordType::A);
            if reply.addresses == [vip] { Ok(()) } else { Err(format!("{reply:?}, not {vip}")) }
        });
    };
    published("www.names.test.");
    published("WWW.Names.TEST.");
    published("x.apps.names.test.");
    let rows = [
        ("missing.names.test.", RecordType::A, ResponseCode::NXDomain),
        // There is such a name, with no such record.
        ("www.names.test.", RecordType::AAAA, ResponseCode::NoError),
        ("apps.names.test.", RecordType::A, ResponseCode::NoError),
        ("elsewhere.example.", RecordType::A, ResponseCode::Refused),
    ];
    for (name, kind, code) in rows {
        let reply = tenant.live.dns(name, kind);
        assert_eq!((reply.code, reply.addresses.len()), (code, 0), "{name} {kind}");
    }
    tenant.live.finding(&tenant.key("hosts"), "NoZone");
    // What the name says is what the VIP serves.
    tenant::get(vip, "www.names.test", "/").served_by("any");
    tenant.delete("hosts");
    tenant.live.eventually("the names are gone", || {
        let reply = tenant.live.dns("www.names.test.", RecordType::A);
        if reply.code == ResponseCode::NXDomain { Ok(()) } else { Err(format!("{reply:?}")) }
    });
}

/// Queries are counted, and the numbers are text that Prometheus reads.
#[test]
fn numbers_can_be_scraped() {
    let live = crate::support::live::Live::shared();
    let _ = live.dns("nobody.example.org", hickory_proto::rr::RecordType::A);
    let answer = live.admin_get("/metrics");
    let text = String::from_utf8(answer.body.clone()).expect("text");
    assert_eq!(answer.status, 200);
    for part in ["# TYPE tidegate_vips_held gauge\n", "tidegate_engines_synced 1\n", "# EOF\n"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    let asked =
        text.lines().find_map(|line| line.strip_prefix("tidegate_dns_queries_total{transport=\"udp\"} "));
    assert!(asked.is_some_and(|n| n != "0"), "{text}");
}
