//! The zones and names we answer for, changed one at a time.

use super::{
    name::{self, QueryName},
    tree::{Found, Node, Records, Tree},
};
use crate::{
    base::{HostPattern, Hostname, Version},
    ir::{RecordSet, Zone},
};
use std::{collections::BTreeMap, net::IpAddr};

/// Zones taken away whose serials are remembered, so that they do not run
/// backwards when a zone comes back in the life of the process.
const RETIRED_ZONES_MAX: usize = 1_024;

/// A serial is written behind the answers that bear it: what a process that was
/// killed had answered with last is not known, and less than this many later.
const UNWRITTEN_SERIALS_MAX: u32 = 1_000;

/// A zone's serial and the content it stands for: what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSerial {
    pub apex: Hostname,
    /// The zone's settings and all records in it. A sum, so that a change costs
    /// what changed; it tells equal from different, it proves nothing.
    pub content: Version,
    /// RFC 1982; never 0.
    pub serial: u32,
}

/// All zones and all names. Names in no zone are kept, unserved, since their zone
/// may come later; a name belongs to the deepest zone above it.
#[derive(Default)]
pub struct Zones {
    tree: Tree,
    zones: BTreeMap<Hostname, ZoneState>,
    retired: BTreeMap<Hostname, u32>,
}

/// A zone with what answers need, in the form they need it.
pub(super) struct ZoneState {
    pub(super) zone: Zone,
    pub(super) apex: Box<[u8]>,
    pub(super) name_servers: Vec<Box<[u8]>>,
    pub(super) contact: Box<[u8]>,
    /// Addresses of name servers in the zone, by wire name.
    pub(super) glue: Vec<(Box<[u8]>, Vec<IpAddr>)>,
    content: u128,
    pub(super) serial: u32,
}

impl ZoneState {
    fn new(zone: Zone, content: u128, serial: u32) -> Self {
        let mut glue: Vec<(Box<[u8]>, Vec<IpAddr>)> = Vec::new();
        for (server, address) in glue_in(&zone) {
            let server = name::wire(server);
            match glue.iter_mut().find(|(known, _)| *known == server) {
                Some((_, addresses)) => addresses.push(address),
                None => glue.push((server, vec![address])),
            }
        }
        Self {
            apex: name::wire(&zone.apex),
            name_servers: zone.name_servers.iter().map(name::wire).collect(),
            contact: name::wire(&zone.contact),
            glue,
            content,
            serial,
            zone,
        }
    }

    /// The addresses of a name server of this zone, where it says them itself.
    pub(super) fn glue_of(&self, server: &[u8]) -> Option<&[IpAddr]> {
        self.glue.iter().find(|(known, _)| **known == *server).map(|(_, addresses)| &addresses[..])
    }

    fn change(&mut self, minus: u128, plus: u128) {
        let content = self.content.wrapping_sub(minus).wrapping_add(plus);
        if content != self.content {
            self.content = content;
            self.serial = next_serial(self.serial);
        }
    }
}

/// The glue that lies in the zone: the rest is not ours to say.
fn glue_in(zone: &Zone) -> impl Iterator<Item = (&Hostname, IpAddr)> {
    let inside = HostPattern::AnyLabels(zone.apex.clone());
    let apex = &zone.apex;
    zone.glue
        .iter()
        .filter(move |(server, _)| server == apex || inside.covers(server))
        .map(|(server, address)| (server, *address))
}

/// RFC 1982 addition; 0 is left out, since some secondaries take it for "none".
fn next_serial(serial: u32) -> u32 {
    serial.wrapping_add(1).max(1)
}

impl Zones {
    /// Starts to serve a zone, or changes its settings. Names already there move
    /// to it from the zone above.
    pub fn set_zone(&mut self, zone: Zone) {
        let version = Version::of(&zone).0;
        if let Some(state) = self.zones.get(&zone.apex) {
            if state.zone == zone {
                return;
            }
            let old = state.zone.clone();
            self.pin(&old, -1);
            self.pin(&zone, 1);
            let state = self.zones.get_mut(&old.apex).expect("found above");
            state.change(Version::of(&old).0, version);
            *state = ZoneState::new(zone, state.content, state.serial);
            return;
        }
        let path = name::path(&zone.apex);
        let inside = self.tree.content(&path);
        self.change_zone_above(&path, inside, 0);
        self.tree.edit(&path, |node| node.apex = Some(zone.apex.clone()));
        self.pin(&zone, 1);
        let serial = self.retired.remove(&zone.apex).map_or(1, next_serial);
        let content = inside.wrapping_add(version);
        self.zones.insert(zone.apex.clone(), ZoneState::new(zone, content, serial));
    }

    /// Stops to serve a zone. Its names fall to the zone above, if there is one.
    pub fn remove_zone(&mut self, apex: &Hostname) {
        let Some(state) = self.zones.remove(apex) else { return };
        self.pin(&state.zone, -1);
        let path = name::path(apex);
        self.tree.edit(&path, |node| node.apex = None);
        self.change_zone_above(&path, 0, self.tree.content(&path));
        self.retire(apex, state.serial);
    }

    /// Publishes the addresses of a name, in place of any before. The default
    /// host has no name, so nothing is published for it; a set without addresses
    /// is no set.
    pub fn set_records(&mut self, set: RecordSet) {
        if set.addresses.is_empty() {
            return self.remove_records(&set.name);
        }
        let version = Version::of(&set);
        let RecordSet { name, addresses, ttl } = set;
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
        self.put_records(&name, Some(Records { v4: v4.into(), v6: v6.into(), ttl, version }));
    }

    /// Withdraws a name.
    pub fn remove_records(&mut self, name: &HostPattern) {
        self.put_records(name, None);
    }

    fn put_records(&mut self, pattern: &HostPattern, records: Option<Records>) {
        let Some(path) = name::owner(pattern) else { return };
        let version = |records: &Option<Box<Records>>| records.as_ref().map_or(0, |r| r.version.0);
        let records = records.map(Box::new);
        let plus = version(&records);
        let minus = self.tree.edit(&path, |node| {
            let slot = match pattern {
                HostPattern::AnyLabels(_) => &mut node.deep_records,
                HostPattern::Default | HostPattern::Exact(_) | HostPattern::OneLabel(_) => &mut node.records,
            };
            version(&std::mem::replace(slot, records))
        });
        self.change_zone_above(&path, minus, plus);
    }

    fn change_zone_above(&mut self, path: &[&[u8]], minus: u128, plus: u128) {
        if let Some(apex) = self.tree.zone_of(path) {
            let state = self.zones.get_mut(apex).expect("each apex in the tree has its zone");
            state.change(minus, plus);
        }
    }

    /// Name servers of a zone exist as names, whatever else is there.
    fn pin(&mut self, zone: &Zone, by: i32) {
        for (server, _) in glue_in(zone) {
            self.tree.edit(&name::path(server), |node: &mut Node| {
                node.pins = node.pins.checked_add_signed(by).expect("unpinned as often as pinned");
            });
        }
    }

    /// What the store keeps, by apex.
    #[must_use]
    pub fn serials(&self) -> Vec<ZoneSerial> {
        let serial = |(apex, state): (&Hostname, &ZoneState)| ZoneSerial {
            apex: apex.clone(),
            content: Version(state.content),
            serial: state.serial,
        };
        self.zones.iter().map(serial).collect()
    }

    /// Takes up a serial that was stored: as it is where the content is the same;
    /// where it changed meanwhile, one that was not answered with before. To be
    /// called when everything is loaded and before anything is answered, because
    /// it may set a serial back. A zone that is not there has it when it comes.
    pub fn restore_serial(&mut self, stored: &ZoneSerial) {
        let ZoneSerial { apex, content, serial } = stored;
        let later = serial.wrapping_add(UNWRITTEN_SERIALS_MAX);
        match self.zones.get_mut(apex) {
            Some(state) if state.content == content.0 => state.serial = (*serial).max(1),
            Some(state) => state.serial = next_serial(later),
            None => self.retire(apex, later),
        }
    }

    fn retire(&mut self, apex: &Hostname, serial: u32) {
        if self.retired.len() < RETIRED_ZONES_MAX {
            self.retired.insert(apex.clone(), serial);
        }
    }

    pub(super) fn find(&self, name: &QueryName, above: bool) -> Option<(&ZoneState, Found<'_>)> {
        let found = self.tree.find(name, above)?;
        let state = self.zones.get(found.zone).expect("each apex in the tree has its zone");
        Some((state, found))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::dns) fn host(text: &str) -> Hostname {
        Hostname::parse(text).expect("a name")
    }

    pub(in crate::dns) fn zone(apex: &str) -> Zone {
        Zone {
            apex: host(apex),
            name_servers: vec![host(&format!("ns1.{apex}"))],
            glue: vec![(host(&format!("ns1.{apex}")), IpAddr::from([192, 0, 2, 53]))],
            contact: host(&format!("hostmaster.{apex}")),
            ttl: 30,
            negative_ttl: 10,
            refresh: 3_600,
            retry: 600,
            expire: 604_800,
        }
    }

    pub(in crate::dns) fn set(name: &str, addresses: &[&str]) -> RecordSet {
        let name = match name.strip_prefix("**.") {
            Some(rest) => HostPattern::AnyLabels(host(rest)),
            None => HostPattern::parse_ingress(name).expect("a host"),
        };
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        RecordSet { name, addresses, ttl: None }
    }

    #[track_caller]
    fn serial(zones: &Zones, apex: &str) -> u32 {
        let all = zones.serials();
        all.iter().find(|zone| zone.apex == host(apex)).expect("the zone").serial
    }

    #[test]
    fn serial_moves_with_content_alone() {
        let mut zones = Zones::default();
        zones.set_zone(zone("example.com"));
        assert_eq!(serial(&zones, "example.com"), 1);
        zones.set_records(set("a.example.com", &["10.0.0.1"]));
        assert_eq!(serial(&zones, "example.com"), 2);
        zones.set_records(set("a.example.com", &["10.0.0.1"]));
        zones.set_zone(zone("example.com"));
        zones.set_records(set("a.example.org", &["10.0.0.1"]));
        zones.remove_records(&set("b.example.com", &[]).name);
        assert_eq!(serial(&zones, "example.com"), 2, "nothing of the zone changed");
        zones.set_records(set("a.example.com", &["10.0.0.2"]));
        zones.set_zone(Zone { ttl: 31, ..zone("example.com") });
        zones.remove_records(&set("a.example.com", &[]).name);
        assert_eq!(serial(&zones, "example.com"), 5);
        zones.remove_zone(&host("example.com"));
        zones.set_zone(zone("example.com"));
        assert_eq!(serial(&zones, "example.com"), 6, "a zone that comes back goes on counting");
    }

    #[test]
    fn content_does_not_depend_on_the_way_to_it() {
        let names = ["a.example.com", "*.example.com", "x.sub.example.com", "**.sub.example.com"];
        let mut straight = Zones::default();
        straight.set_zone(zone("example.com"));
        straight.set_zone(zone("sub.example.com"));
        names.iter().for_each(|name| straight.set_records(set(name, &["10.0.0.1"])));

        let mut winding = Zones::default();
        names.iter().rev().for_each(|name| winding.set_records(set(name, &["10.0.0.9"])));
        winding.set_zone(Zone { ttl: 99, ..zone("sub.example.com") });
        winding.set_zone(zone("example.com"));
        winding.remove_zone(&host("sub.example.com"));
        names.iter().for_each(|name| winding.set_records(set(name, &["10.0.0.1"])));
        winding.set_zone(zone("sub.example.com"));

        let contents =
            |zones: &Zones| zones.serials().into_iter().map(|z| (z.apex, z.content)).collect::<Vec<_>>();
        assert_eq!(contents(&straight), contents(&winding));
    }

    #[test]
    fn names_move_between_zones() {
        let mut zones = Zones::default();
        zones.set_zone(zone("example.com"));
        let before = zones.serials()[0].content;
        zones.set_records(set("x.sub.example.com", &["10.0.0.1"]));
        let with = zones.serials()[0].content;
        zones.set_zone(zone("sub.example.com"));
        assert_eq!(zones.serials()[0].content, before, "the name is the new zone's");
        zones.remove_zone(&host("sub.example.com"));
        assert_eq!(zones.serials()[0].content, with, "and comes back");
    }

    #[test]
    fn stored_serials() {
        let mut zones = Zones::default();
        zones.set_zone(zone("example.com"));
        (1..=9).for_each(|n| zones.set_records(set(&format!("h{n}.example.com"), &["10.0.0.1"])));
        let content = zones.serials()[0].content;
        let apex = host("example.com");
        let mut restored = |content, serial| {
            zones.restore_serial(&ZoneSerial { apex: apex.clone(), content, serial });
            zones.serials()[0].serial
        };
        assert_eq!(restored(content, 7), 7);
        assert_eq!(restored(Version(1), 7), 1_008, "what was answered with and not written is passed over");
        assert_eq!(restored(Version(1), u32::MAX - 1_000), 1, "RFC 1982, and never 0");
        assert_eq!(restored(content, 0), 1);
        zones.restore_serial(&ZoneSerial { apex: host("example.org"), content, serial: 5 });
        assert_eq!(zones.serials().len(), 1, "a serial alone makes no zone");
        zones.set_zone(zone("example.org"));
        assert_eq!(serial(&zones, "example.org"), 1_006, "a zone that comes back after a restart goes on");
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut zones = Zones::default();
        let names = ["a.b.c.example.com", "*.d.example.com", "**.d.example.com", "ns1.example.com"];
        names.iter().for_each(|name| zones.set_records(set(name, &["10.0.0.1"])));
        zones.set_zone(zone("example.com"));
        zones.set_zone(zone("c.example.com"));
        names.iter().for_each(|name| zones.remove_records(&set(name, &[]).name));
        zones.remove_zone(&host("example.com"));
        assert!(!zones.tree.is_empty(), "the inner zone stays");
        zones.remove_zone(&host("c.example.com"));
        assert!(zones.tree.is_empty());
    }
}
