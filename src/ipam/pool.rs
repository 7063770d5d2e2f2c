//! Pools: what may be given to whom, and which is asked first.

use super::range::{Entry, Family, Span, Spans, parse_entry, refused};
use crate::{
    api::{Selector, VipPoolSpec},
    base::{ObjectKey, ObjectKind, Text},
    ir::Claim,
    report::{Reason, Report},
};
use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

/// Entries of one pool, addresses and exclusions together.
pub const ENTRIES_MAX: usize = 1024;

/// One pool, as the planner reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: Text,
    pub priority: i32,
    /// How long a released address waits, in seconds.
    pub quarantine_seconds: u32,
    /// None: for every claim, also of VIPs that namespaces share.
    namespaces: Option<Selector>,
    /// What it gives: nothing excluded, nothing that an earlier pool gives.
    spans: Spans,
    excluded: Spans,
}

impl Pool {
    /// Whether the claim's namespace is one this pool is for, whatever pool the
    /// claim asks for.
    #[must_use]
    pub fn admits(&self, claim: &Claim) -> bool {
        let Some(Selector { names, match_labels }) = &self.namespaces else { return true };
        let Some(namespace) = &claim.namespace else { return false };
        let labelled = |(key, value)| claim.namespace_labels.get(key) == Some(value);
        names.iter().any(|name| **name == **namespace)
            || (!match_labels.is_empty() && match_labels.iter().all(labelled))
    }

    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Whether it leaves this address out on purpose.
    #[must_use]
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.excluded.contains(address)
    }
}

/// All pools, in the order in which they are asked: higher priority first, then
/// by name. No address is in two of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools {
    order: Vec<Pool>,
    /// First address of a span to its last and its pool's place in `order`.
    owners: BTreeMap<IpAddr, (IpAddr, usize)>,
}

impl Pools {
    /// Reads pools, in any order. What cannot be read of a pool is left out and
    /// reported on it; a pool whose exclusions cannot all be read gives nothing
    /// new, since what it must not give is unknown.
    pub fn read<'a>(specs: impl IntoIterator<Item = (&'a str, &'a VipPoolSpec)>) -> (Self, Report) {
        let mut report = Report::new();
        let mut order: Vec<Pool> =
            specs.into_iter().map(|(name, spec)| read_pool(name, spec, &mut report)).collect();
        order.sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
        let mut pools = Self::default();
        for pool in order {
            pools.add(pool, &mut report);
        }
        (pools, report)
    }

    /// Takes a pool in behind those that are there.
    fn add(&mut self, mut pool: Pool, report: &mut Report) {
        let mut lost: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
        for span in pool.spans.iter() {
            for (overlap, owner) in self.overlaps(span) {
                lost.entry(owner).or_default().push(overlap);
            }
        }
        for (owner, spans) in &lost {
            report_overlap(&self.order[*owner], &pool, spans[0], report);
        }
        let lost = Spans::new(lost.into_values().flatten().collect());
        pool.spans = pool.spans.without(&lost);
        let place = self.order.len();
        self.owners.extend(pool.spans.iter().map(|span| (span.first, (span.last, place))));
        self.order.push(pool);
    }

    fn overlaps(&self, span: Span) -> impl Iterator<Item = (Span, usize)> {
        let below = self.owners.range(..span.first).next_back();
        below.into_iter().chain(self.owners.range(span.first..=span.last)).filter_map(
            move |(first, (last, owner))| {
                let overlap = Span { first: *first.max(&span.first), last: *last.min(&span.last) };
                (overlap.first <= overlap.last).then_some((overlap, *owner))
            },
        )
    }

    /// In the order in which they are asked.
    #[must_use]
    pub fn in_order(&self) -> &[Pool] {
        &self.order
    }

    /// The pool that gives this address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<&Pool> {
        let (_, (last, place)) = self.owners.range(..=address).next_back()?;
        (*last >= address).then(|| &self.order[*place])
    }

    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Pool> {
        self.order.iter().find(|pool| *pool.name == *name)
    }

    /// How many addresses of a family all pools have; stops at `u128::MAX`.
    #[must_use]
    pub fn count(&self, family: Family) -> u128 {
        self.order.iter().fold(0, |sum: u128, pool| sum.saturating_add(pool.spans.count(family)))
    }
}

fn report_overlap(owner: &Pool, loser: &Pool, sample: Span, report: &mut Report) {
    let at = |pool: &Pool| ObjectKey::cluster(ObjectKind::VipPool, &pool.name);
    let (owner_name, loser_name) = (&owner.name, &loser.name);
    let rule = "the pool of higher priority, then of the first name, gives what two pools have";
    report.warning(
        &at(loser),
        "spec.addresses",
        Reason::PoolOverlap,
        format!("{sample} is also in VipPool {owner_name}, which gives it and this pool does not: {rule}"),
    );
    report.info(
        &at(owner),
        "spec.addresses",
        Reason::PoolOverlap,
        format!("{sample} is also in VipPool {loser_name}; this pool gives it: {rule}"),
    );
}

fn read_pool(name: &str, spec: &VipPoolSpec, report: &mut Report) -> Pool {
    let VipPoolSpec { addresses, exclude, namespaces, priority, quarantine_seconds } = spec;
    let at = ObjectKey::cluster(ObjectKind::VipPool, name);
    if namespaces.as_ref().is_some_and(|select| *select == Selector::default()) {
        let message = "selects no namespace, so that nobody gets an address: name some, or leave it out";
        report.warning(&at, "spec.namespaces", Reason::Invalid, message);
    }
    let mut excluded_unknown = false;
    if addresses.len() + exclude.len() > ENTRIES_MAX {
        let message =
            format!("more than {ENTRIES_MAX} entries in addresses and exclude: the pool gives nothing");
        report.error(&at, "spec.addresses", Reason::TooLarge, message);
        excluded_unknown = true;
    }
    let excluded: Vec<Span> = read_entries(&at, "exclude", exclude, report, |entry| Ok(entry.whole))
        .map(|span| span.inspect_err(|()| excluded_unknown = true))
        .filter_map(Result::ok)
        .collect();
    let excluded = Spans::new(excluded);
    let usable = |entry: Entry| match refused(entry.usable) {
        Some(why) => Err(format!("cannot be a VIP: {why}")),
        None => Ok(entry.usable),
    };
    let given: Vec<Span> =
        read_entries(&at, "addresses", addresses, report, usable).filter_map(Result::ok).collect();
    let spans = if excluded_unknown { Spans::default() } else { Spans::new(given).without(&excluded) };
    Pool {
        name: name.into(),
        priority: *priority,
        quarantine_seconds: *quarantine_seconds,
        namespaces: namespaces.clone(),
        spans,
        excluded,
    }
}

/// Each entry, or `Err` where it was reported.
fn read_entries<'a>(
    at: &'a ObjectKey,
    list: &'static str,
    entries: &'a [String],
    report: &'a mut Report,
    take: impl Fn(Entry) -> Result<Span, String> + 'a,
) -> impl Iterator<Item = Result<Span, ()>> + 'a {
    let effect = if list == "exclude" { "; until it is mended this pool gives nothing new" } else { "" };
    entries.iter().take(ENTRIES_MAX).enumerate().map(move |(i, text)| {
        parse_entry(text).and_then(&take).map_err(|why| {
            report.error(at, format!("spec.{list}[{i}]"), Reason::Invalid, format!("{why}{effect}"));
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(addresses: &[&str], exclude: &[&str], priority: i32) -> VipPoolSpec {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        VipPoolSpec {
            addresses: owned(addresses),
            exclude: owned(exclude),
            namespaces: None,
            priority,
            quarantine_seconds: 60,
        }
    }

    #[track_caller]
    fn check(specs: &[(&str, VipPoolSpec)], spans: &[&str], findings: &[&str]) {
        for rotated in 0..specs.len() {
            let mut specs: Vec<_> = specs.iter().map(|(name, spec)| (*name, spec)).collect();
            specs.rotate_left(rotated);
            let (pools, report) = Pools::read(specs);
            let print = |pool: &Pool| {
                let spans: Vec<String> = pool.spans.iter().map(|span| span.to_string()).collect();
                format!("{}: {}", pool.name, spans.join(" "))
            };
            assert_eq!(pools.in_order().iter().map(print).collect::<Vec<_>>(), spans);
            let mut found: Vec<_> = report
                .findings()
                .iter()
                .map(|f| format!("{} {} {:?}", f.object, f.field, f.severity))
                .collect();
            found.sort();
            assert_eq!(found, findings);
        }
    }

    #[test]
    fn errors_name_the_field_and_spare_the_rest() {
        check(
            &[("a", spec(&["10.0.0.0/30", "10.0.0.300", "224.0.0.0/24"], &[], 0))],
            &["a: 10.0.0.1-10.0.0.2"],
            &["VipPool/a spec.addresses[1] Error", "VipPool/a spec.addresses[2] Error"],
        );
        check(
            &[("a", spec(&["10.0.0.0/29"], &["10.0.0.1", "10.0.0.x"], 0))],
            &["a: "],
            &["VipPool/a spec.exclude[1] Error"],
        );
        check(
            &[("a", spec(&["10.0.0.0/29", "2001:db8::/64"], &["10.0.0.0/30", "2001:db8::/65"], 0))],
            &["a: 10.0.0.4-10.0.0.6 2001:db8:0:0:8000::-2001:db8::ffff:ffff:ffff:ffff"],
            &[],
        );
        let many: Vec<String> = (0..=ENTRIES_MAX).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&[("a", spec(&many, &[], 0))], &["a: "], &["VipPool/a spec.addresses Error"]);
    }

    #[test]
    fn overlaps_are_reported_on_both_and_given_by_one() {
        check(
            &[
                ("b", spec(&["10.0.0.0-10.0.0.9"], &[], 0)),
                ("c", spec(&["10.0.0.4-10.0.0.5", "10.0.0.20"], &[], 7)),
                ("a", spec(&["10.0.0.8-10.0.0.12"], &[], 0)),
            ],
            &[
                "c: 10.0.0.4-10.0.0.5 10.0.0.20",
                "a: 10.0.0.8-10.0.0.12",
                "b: 10.0.0.0-10.0.0.3 10.0.0.6-10.0.0.7",
            ],
            &[
                "VipPool/a spec.addresses Info",
                "VipPool/b spec.addresses Warning",
                "VipPool/b spec.addresses Warning",
                "VipPool/c spec.addresses Info",
            ],
        );
    }

    #[test]
    fn whose_an_address_is() {
        let (low, high) = (spec(&["10.0.0.0/24"], &["10.0.0.7"], 0), spec(&["10.0.0.32/28"], &[], 1));
        let (pools, _) = Pools::read([("low", &low), ("high", &high)]);
        let owner = |text: &str| pools.of(text.parse().expect("an address")).map(|pool| &*pool.name);
        assert_eq!(owner("10.0.0.33"), Some("high"));
        assert_eq!(owner("10.0.0.32"), Some("low"));
        assert_eq!(owner("10.0.0.7"), None);
        assert_eq!(owner("10.0.0.0"), None);
        assert_eq!(owner("10.0.0.255"), None);
        assert_eq!(owner("9.0.0.1"), None);
        assert_eq!(pools.count(Family::V4), 253);
    }
}
