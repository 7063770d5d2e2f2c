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
