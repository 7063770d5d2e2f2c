//! The tree against RFC 4592 written down as slowly as it reads: a list of the
//! names there are, and a search through it.

use super::super::{
    SiteId, Transport, ZoneSerial, Zones, answer,
    zones::tests::{host, set, zone},
};
use super::tests::plain;
use crate::ir::RecordSet;
use hickory_proto::op::{Message, ResponseCode};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const ZONES: [&str; 3] = ["z", "a.z", "b.a.z"];

/// A step: publish, withdraw, begin or end a zone.
#[derive(Debug, Clone)]
enum Step {
    Set(String, u8),
    Remove(String),
    Zone(usize, bool),
}

/// What there is after some steps. `**.` is a wildcard of any number of labels.
#[derive(Debug, Default)]
struct Model {
    records: BTreeMap<String, u8>,
    zones: BTreeSet<&'static str>,
}

fn records(name: &str, octet: u8) -> RecordSet {
    set(name, &[&format!("10.0.0.{octet}")])
}

/// Every ending of a name, the whole first.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |rest| rest.split_once('.').map(|(_, rest)| rest))
}

impl Model {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Set(name, octet) => drop(self.records.insert(name.clone(), *octet)),
            Step::Remove(name) => drop(self.records.remove(name)),
            Step::Zone(which, true) => drop(self.zones.insert(ZONES[*which])),
            Step::Zone(which, false) => drop(self.zones.remove(ZONES[*which])),
        }
    }

    /// From nothing, in an order of its own.
    fn build(&self) -> Zones {
        let mut zones = Zones::default();
        self.records.iter().for_each(|(name, octet)| zones.set_records(records(name, *octet)));
        self.zones.iter().rev().for_each(|apex| zones.set_zone(zone(apex)));
        zones
    }

    /// All names that exist: owners, apexes, name servers, and what is above them.
    fn names(&self) -> BTreeSet<String> {
        let owners = self.records.keys().map(|name| name.replacen("**", "*", 1));
        let apexes = self.zones.iter().flat_map(|apex| [(*apex).to_owned(), format!("ns1.{apex}")]);
        let all: Vec<String> = owners.chain(apexes).collect();
        all.iter().flat_map(|name| endings(name)).map(str::to_owned).collect()
    }

    /// The code, and the last octet of the address.
    fn expected(&self, asked: &str) -> (ResponseCode, Option<u8>) {
        let Some(apex) = endings(asked).find(|ending| self.zones.contains(ending)) else {
            return (ResponseCode::Refused, None);
        };
        if asked == format!("ns1.{apex}") {
            return (ResponseCode::NoError, Some(53));
        }
        let names = self.names();
        let record = |name: &str| self.records.get(name).copied();
        if names.contains(asked) {
            let deep = asked.strip_prefix("*.").and_then(|rest| record(&format!("**.{rest}")));
            return (ResponseCode::NoError, record(asked).or(deep));
        }
        let encloser = endings(asked).find(|ending| names.contains(*ending)).expect("the apex exists");
        if !names.contains(&format!("*.{encloser}")) {
            return (ResponseCode::NXDomain, None);
        }
        let (one, deep) = (record(&format!("*.{encloser}")), record(&format!("**.{encloser}")));
        let next = endings(asked).nth(1) == Some(encloser);
        (ResponseCode::NoError, if next { one.or(deep) } else { deep.or(one) })
    }
}

/// A name of up to four labels from an alphabet so small that names meet.
fn name() -> impl Strategy<Value = String> {
    let label = || prop::sample::select(vec!["a", "b", "c", "ns1"]);
    (prop::collection::vec(label(), 0..4), 0..8_u8).prop_map(|(labels, odd)| {
        let top = if odd == 0 { "y" } else { "z" };
        labels.into_iter().chain([top]).collect::<Vec<_>>().join(".")
    })
}

fn owner() -> impl Strategy<Value = String> {
    (prop::sample::select(vec!["", "", "*.", "**."]), name()).prop_map(|(star, name)| format!("{star}{name}"))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (owner(), 1..4_u8).prop_map(|(name, octet)| Step::Set(name, octet)),
        2 => owner().prop_map(Step::Remove),
        2 => (0..ZONES.len(), prop::bool::weighted(0.7)).prop_map(|(which, on)| Step::Zone(which, on)),
    ];
    prop::collection::vec(step, 0..40)
}

/// All serials alike, so that only content is compared.
fn level(zones: &mut Zones) -> Vec<ZoneSerial> {
    for stored in zones.serials() {
        zones.restore_serial(&ZoneSerial { serial: 1, ..stored });
    }
    zones.serials()
}

fn answered(zones: &Zones, asked: &str) -> (ResponseCode, Option<u8>) {
    let reply = answer(zones, &plain(asked, "A"), Transport::Udp, &SiteId::default()).expect("a reply");
    let message = Message::from_vec(&reply.bytes).expect("hickory reads what we write");
    assert!(message.answers.len() <= 1);
    let negative = message.answers.is_empty() && message.metadata.authoritative;
    assert_eq!(message.authorities.len(), usize::from(negative), "an SOA where there is nothing else");
    let last = |text: String| text.rsplit('.').next().and_then(|octet| octet.parse().ok());
    let address = message.answers.first().and_then(|record| last(record.data.to_string()));
    (message.metadata.response_code, address)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_way_to_the_same_names_answers_as_the_rfc_says(
        steps in steps(),
        asked in prop::collection::vec(prop_oneof![3 => name(), 1 => owner()], 40),
    ) {
        let mut model = Model::default();
        let mut zones = Zones::default();
        for step in &steps {
            let before = zones.serials();
            model.step(step);
            match step {
                Step::Set(name, octet) => zones.set_records(records(name, *octet)),
                Step::Remove(name) => zones.remove_records(&set(name, &[]).name),
                Step::Zone(which, true) => zones.set_zone(zone(ZONES[*which])),
                Step::Zone(which, false) => zones.remove_zone(&host(ZONES[*which])),
            }
            for (old, new) in before.iter().flat_map(|old| zones.serials().into_iter().map(move |new| (old, new))) {
                if old.apex == new.apex {
                    prop_assert_eq!(old.content == new.content, old.serial == new.serial, "{:?}", step);
                }
            }
        }
        prop_assert_eq!(level(&mut zones), level(&mut model.build()));
        for asked in asked.iter().map(|asked| asked.replacen("**", "*", 1)) {
            prop_assert_eq!(answered(&zones, &asked), model.expected(&asked), "{}", asked);
        }
    }
}
