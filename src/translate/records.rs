//! Published hosts -> DNS records; `DnsZone` -> [`Zone`].

use super::World;
use crate::{
    base::{HostPattern, Hostname, ObjectKey},
    ir::{HostKey, RecordSet, Zone},
    report::{Reason, Report},
};
use std::{net::IpAddr, sync::Arc};

/// The addresses of a host: those of every gateway that serves it, once the
/// ledger says they are held.
pub fn translate_records(
    world: &mut dyn World,
    host: &HostPattern,
    report: &mut Report,
) -> Option<RecordSet> {
    let name = host.hostname()?;
    let gateways = world.published(host);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for gateway in &gateways {
        addresses.extend(world.allocation(gateway).iter());
    }
    addresses.sort_unstable();
    addresses.dedup();
    if !in_a_zone(world, name) {
        let key = HostKey { gateway: gateways.first()?.clone(), host: host.clone() };
        if let Some(at) = world.host(&key).and_then(|outcome| outcome.host.origins.first().cloned()) {
            let message =
                format!("host {host} lies in no DnsZone; it is served, but nobody is told its address");
            report.info(&at, "spec.rules", Reason::NoZone, message);
        }
    }
    (!addresses.is_empty()).then(|| RecordSet { name: host.clone(), addresses, ttl: None })
}

fn in_a_zone(world: &mut dyn World, name: &Hostname) -> bool {
    world.zones().iter().any(|(apex, _)| {
        let rest = name.as_str().strip_suffix(apex.as_ref());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// A zone that can be served; of two objects with one apex the first by name counts.
pub fn translate_zone(world: &mut dyn World, at: &ObjectKey, report: &mut Report) -> Option<Zone> {
    let spec = world.dns_zone(&at.name)?;
    let mut name = |text: &str, field: &str| match Hostname::parse(text) {
        Ok(name) => Some(name),
        Err(why) => {
            report.error(at, field, Reason::Invalid, format!("'{}' {why}", text.escape_debug()));
            None
        }
    };
    let apex = name(&spec.zone, "spec.zone")?;
    let mut servers: Vec<_> =
        spec.name_servers.iter().filter_map(|text| name(text, "spec.nameServers")).collect();
    if servers.is_empty() {
        servers.extend(name(&format!("ns1.{apex}"), "spec.zone"));
    }
    let contact = spec.contact.clone().unwrap_or_else(|| format!("hostmaster.{apex}"));
    let contact = name(&contact, "spec.contact")?;
    let mut glue = Vec::new();
    for (server, addresses) in &spec.glue {
        let Some(server) = name(server, "spec.glue") else { continue };
        glue.extend(addresses.iter().map(|address| (server.clone(), *address)));
    }
    if servers.is_empty() {
        return None;
    }
    let apex_text = apex.to_string();
    let first = world.zones().into_iter().find(|(known, _)| known.as_ref() == apex_text);
    if let Some((_, first)) = first.filter(|(_, first)| first != at) {
        report.error(
            at,
            "spec.zone",
            Reason::Duplicate,
            format!("{first} is this zone already; this one is not used"),
        );
        return None;
    }
    Some(Zone {
        apex,
        name_servers: servers,
        glue,
        contact,
        ttl: spec.ttl.max(1),
        negative_ttl: spec.negative_ttl,
        refresh: spec.refresh,
        retry: spec.retry,
        expire: spec.expire,
    })
}

/// The apex of a zone as indexes compare it.
#[must_use]
pub fn apex_text(zone: &str) -> Arc<str> {
    zone.trim_end_matches('.').to_ascii_lowercase().into()
}
