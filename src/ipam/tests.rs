//! Histories: whatever happens to pools, claims and time, the invariants hold.

use super::*;
use crate::{
    api::{Selector, VipPoolSpec},
    base::Text,
    ir::{Claim, Families},
    report::{Reason, Severity},
};
use proptest::{prelude::*, sample::Index};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

pub(super) fn pool(addresses: &[&str]) -> VipPoolSpec {
    VipPoolSpec {
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        exclude: Vec::new(),
        namespaces: None,
        priority: 0,
        quarantine_seconds: 60,
    }
}

fn claim(name: &str) -> Claim {
    Claim {
        name: name.into(),
        namespace: None,
        namespace_labels: BTreeMap::new(),
        pool: None,
        families: Families { v4: true, v6: false },
        requested: Vec::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A desk and its ledger, as the pipeline has them; each step checks itself.
#[derive(Default)]
struct World {
    specs: BTreeMap<String, VipPoolSpec>,
    claims: BTreeMap<Text, Arc<Claim>>,
    desk: Desk,
    ledger: Ledger,
    named: BTreeSet<IpAddr>,
    now: i64,
    looked_at: u64,
}

impl World {
    fn pools(&self) -> Pools {
        Pools::read(self.specs.iter().map(|(name, spec)| (name.as_str(), spec))).0
    }

    fn pool(&mut self, name: &str, spec: Option<VipPoolSpec>) -> &mut Self {
        match spec {
            Some(spec) => self.specs.insert(name.to_owned(), spec),
            None => self.specs.remove(name),
        };
        self.desk.set_pools(Arc::new(self.pools()));
        self
    }

    fn claim(&mut self, claim: Claim) -> &mut Self {
        let (name, claim) = (claim.name.clone(), Arc::new(claim));
        self.claims.insert(name.clone(), claim.clone());
        self.desk.set_claim(&name, Some(claim));
        self
    }

    fn gone(&mut self, name: &str) -> &mut Self {
        self.claims.remove(name);
        self.desk.set_claim(&name.into(), None);
        self
    }

    fn restart(&mut self) {
        let entries: Vec<_> = self.ledger.entries().map(|(at, entry)| (at, entry.clone())).collect();
        self.ledger = Ledger::new(entries).expect("a ledger reads itself");
        self.desk = Desk::default();
        for (name, claim) in self.claims.iter().rev() {
            self.desk.set_claim(name, Some(claim.clone()));
        }
        self.desk.set_pools(Arc::new(self.pools()));
        self.desk.adopt(&self.ledger);
    }

    #[track_caller]
    fn step(&mut self) -> Plan {
        let plan = self.desk.plan(&self.ledger, &self.named, self.now);
        check_step(&self.ledger, &plan, &self.named).expect("I1, I3");
        self.ledger.apply(&plan).expect("a plan of this ledger");
        check(&self.ledger).expect("I1");
        self.desk.done(&plan);
        self.looked_at += plan.looked_at;
        plan
    }

    #[track_caller]
    fn holds(&self, name: &str, addresses: &[&str]) {
        let held: Vec<String> = self.ledger.held(name).map(|address| address.to_string()).collect();
        assert_eq!(held, addresses, "{name}");
    }

    #[track_caller]
    fn told(&self, name: &str, severity: Severity, reason: Reason, part: &str) {
        let found = self.desk.findings(name);
        let fits =
            |f: &ClaimFinding| f.severity == severity && f.reason == reason && f.message.contains(part);
        assert!(found.iter().any(fits), "no {reason:?} with '{part}' in {found:?}");
    }
}

#[test]
fn gives_the_lowest_and_keeps_it() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.0/29"]))).claim(claim("b")).claim(claim("a")).step();
    world.holds("a", &["10.0.0.1"]);
    world.holds("b", &["10.0.0.2"]);
    world.gone("a").step();
    world.claim(claim("c")).step();
    world.holds("c", &["10.0.0.3"]);
    assert!(world.step().is_empty());
    // Nothing of it changes when everything is read anew.
    world.restart();
    assert!(world.step().is_empty());
}

#[test]
fn a_released_address_waits_for_its_last_owner() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.1-10.0.0.2"]))).claim(claim("a")).step();
    let plan = world.gone("a").step();
    assert_eq!(plan.wake_at, Some(60));
    world.now = 59;
    world.claim(claim("b")).claim(claim("c")).step();
    world.holds("b", &["10.0.0.2"]);
    world.told("c", Severity::Error, Reason::PoolExhausted, "VipPool public");
    world.claim(claim("a")).step();
    world.holds("a", &["10.0.0.1"]);
    world.gone("a").step();
    world.now = 119;
    assert_eq!(world.step().allocate.len(), 1, "c waited, and the quarantine is over");
    world.holds("c", &["10.0.0.1"]);
    assert_eq!(world.desk.waiting().count(), 0);
    assert!(world.desk.findings("c").is_empty());
}

#[test]
fn a_named_address_waits_longer() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.1"]))).claim(claim("a")).step();
    world.gone("a").claim(claim("b")).step();
    world.now = 60;
    world.named = BTreeSet::from([ip("10.0.0.1")]);
    let plan = world.step();
    assert!(plan.is_empty() && plan.wake_at == Some(65), "{plan:?}");
    world.named.clear();
    world.now = 65;
    world.step();
    world.holds("b", &["10.0.0.1"]);
}

#[test]
fn who_waits_is_served_when_a_pool_grows() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.1"])));
    for name in ["d", "b", "c", "a"] {
        world.claim(claim(name));
    }
    world.step();
    assert_eq!(world.desk.waiting().map(|name| &**name).collect::<Vec<_>>(), ["b", "c", "d"]);
    world.pool("public", Some(pool(&["10.0.0.1-10.0.0.3"]))).step();
    world.holds("b", &["10.0.0.2"]);
    world.holds("c", &["10.0.0.3"]);
    world.told("d", Severity::Error, Reason::PoolExhausted, "all 3 of VipPool public");
    world.pool("more", Some(pool(&["10.9.0.1"]))).step();
    world.holds("d", &["10.9.0.1"]);
}

#[test]
fn requests_are_honoured_or_refused_with_the_reason() {
    let mut world = World::default();
    let mut public = pool(&["10.0.0.0/28", "2001:db8::/64"]);
    public.exclude = vec!["10.0.0.9".to_owned()];
    let mut other = pool(&["10.1.0.0/28"]);
    other.namespaces = Some(Selector { names: vec!["shop".to_owned()], ..Selector::default() });
    world.pool("public", Some(public)).pool("shop", Some(other));
    let asks = |name: &str, address: &str| Claim { requested: vec![ip(address)], ..claim(name) };
    // Who takes any does not get what another asks for by name.
    world.claim(claim("a")).claim(asks("b", "10.0.0.1")).claim(asks("c", "2001:db8::7")).step();
    world.holds("b", &["10.0.0.1"]);
    world.holds("a", &["10.0.0.2"]);
    world.holds("c", &["10.0.0.3", "2001:db8::7"]);
    let mut refused = |address: &str, why: &str| {
        world.claim(asks("d", address)).step();
        world.holds("d", &[]);
        world.told("d", Severity::Error, Reason::AddressRefused, why);
    };
    refused("10.0.0.1", "held by b");
    refused("10.0.0.9", "VipPool public excludes it");
    refused("10.0.0.0", "no VipPool has it");
    refused("10.1.0.1", "its VipPool shop is not for a VIP that namespaces share");
    world.claim(Claim { pool: Some("shop".into()), ..asks("d", "10.0.0.5") }).step();
    world.told("d", Severity::Error, Reason::AddressRefused, "it is in VipPool public");
    world.claim(Claim { namespace: Some("shop".into()), ..asks("d", "10.1.0.1") }).step();
    world.holds("d", &["10.1.0.1"]);
    // Another request: the new one is given, the old one released; a request
    // that cannot be given leaves what there is.
    world.claim(asks("b", "10.0.0.5")).step();
    world.holds("b", &["10.0.0.5"]);
    world.claim(asks("b", "10.0.0.2")).step();
    world.holds("b", &["10.0.0.5"]);
    world.told("b", Severity::Error, Reason::AddressRefused, "held by a; 10.0.0.5 stays");
    world.claim(asks("a", "10.0.0.1")).step();
    world.holds("a", &["10.0.0.2"]);
    world.told("a", Severity::Error, Reason::AddressRefused, "in quarantine until 1970-01-01T00:01:00Z");
    world.now = 60;
    world.step();
    world.holds("a", &["10.0.0.1"]);
    let two = Claim { requested: vec![ip("10.0.0.6"), ip("10.0.0.7")], ..claim("e") };
    world.claim(two).step();
    world.holds("e", &["10.0.0.6"]);
    world.told("e", Severity::Error, Reason::AddressRefused, "10.0.0.7 is a second IPv4 address");
}

#[test]
fn pools_choose_their_namespaces_and_claims_their_pool() {
    let mut world = World::default();
    let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
    let mut team = pool(&["10.1.0.1"]);
    team.namespaces = Some(Selector { names: vec!["ops".to_owned()], match_labels: labels.clone() });
    team.priority = 5;
    world.pool("team", Some(team)).pool("b", Some(pool(&["10.2.0.1"]))).pool("a", Some(pool(&["10.3.0.1"])));
    let of = |name: &str, namespace: &str| Claim { namespace: Some(namespace.into()), ..claim(name) };
    world.claim(Claim { namespace_labels: labels, ..of("labelled", "any") }).step();
    world.holds("labelled", &["10.1.0.1"]);
    world.claim(of("stranger", "any")).step();
    world.holds("stranger", &["10.3.0.1"]);
    world.claim(Claim { pool: Some("team".into()), ..claim("shared") }).step();
    world.told(
        "shared",
        Severity::Error,
        Reason::NoPool,
        "VipPool team has none for a VIP that namespaces share",
    );
    world.claim(Claim { pool: Some("nope".into()), ..claim("shared") }).step();
    world.told("shared", Severity::Error, Reason::NoPool, "there is no VipPool nope");
    // Asking for another pool moves it, but not before there is a place.
    world.claim(Claim { pool: Some("a".into()), ..of("labelled", "ops") }).step();
    world.holds("labelled", &["10.1.0.1"]);
    world.told("labelled", Severity::Error, Reason::PoolExhausted, "10.1.0.1 stays");
    world.claim(Claim { pool: Some("b".into()), ..of("labelled", "ops") }).step();
    world.holds("labelled", &["10.2.0.1"]);
}

#[test]
fn two_families_give_what_there_is() {
    let mut world = World::default();
    let dual = |name: &str| Claim { families: Families { v4: true, v6: true }, ..claim(name) };
    world.pool("v4", Some(pool(&["10.0.0.1"]))).claim(dual("a")).step();
    world.holds("a", &["10.0.0.1"]);
    world.told("a", Severity::Error, Reason::NoPool, "no IPv6 address");
    world.pool("v6", Some(pool(&["2001:db8::/126"]))).step();
    world.holds("a", &["10.0.0.1", "2001:db8::"]);
    let v6 = Claim { families: Families { v4: false, v6: true }, ..claim("a") };
    world.claim(v6).step();
    world.holds("a", &["2001:db8::"]);
}

#[test]
fn a_serving_address_outlives_its_pool() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.1-10.0.0.4"]))).claim(claim("a")).claim(claim("b")).step();
    world.pool("public", Some(pool(&["10.0.0.2-10.0.0.4"]))).step();
    world.holds("a", &["10.0.0.1"]);
    world.told("a", Severity::Warning, Reason::AddressOutsidePool, "no VipPool has it");
    world.pool("public", None).step();
    world.holds("b", &["10.0.0.2"]);
    world.told("b", Severity::Warning, Reason::AddressOutsidePool, "no VipPool has it");
    assert_eq!(world.desk.waiting().count(), 0);
    world.restart();
    world.step();
    world.holds("a", &["10.0.0.1"]);
    world.pool("public", Some(pool(&["10.0.0.1-10.0.0.4"]))).step();
    assert!(world.desk.findings("a").is_empty());
}

#[test]
fn what_went_while_we_were_away_is_released() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.1"]))).claim(claim("a")).step();
    world.claims.clear();
    world.restart();
    let plan = world.step();
    assert_eq!(plan.release.len(), 1);
    // An operator's release of what is wanted comes back at once.
    world.claim(claim("a")).step();
    let plan = release(&world.pools(), &world.ledger, &"a".into(), world.now);
    world.ledger.apply(&plan).expect("applies");
    world.holds("a", &[]);
    world.restart();
    world.step();
    world.holds("a", &["10.0.0.1"]);
}

#[test]
fn an_operator_ends_a_quarantine() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.1"]))).claim(claim("a")).step();
    assert_eq!(end_quarantine(&world.ledger, ip("10.0.0.1"), 0), None);
    world.gone("a").claim(claim("b")).step();
    let plan = end_quarantine(&world.ledger, ip("10.0.0.1"), 0).expect("in quarantine");
    world.ledger.apply(&plan).expect("applies");
    world.desk.retry();
    world.step();
    world.holds("b", &["10.0.0.1"]);
}

#[test]
fn a_plan_of_an_old_ledger_is_refused() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.1"]))).claim(claim("a"));
    let stale = world.desk.plan(&world.ledger, &world.named, 0);
    let mut other = Ledger::default();
    let held = |name: &str, state| Entry { claim: name.into(), pool: "public".into(), state };
    other = Ledger::new(
        other
            .entries()
            .map(|(at, e)| (at, e.clone()))
            .chain([(ip("10.0.0.1"), held("b", State::Held { since: 0 }))]),
    )
    .expect("one entry");
    assert!(matches!(other.apply(&stale), Err(Broken::TwoOwners { .. })));
    let waits = held("b", State::Quarantined { until: 9 });
    let mut waits = Ledger::new([(ip("10.0.0.1"), waits)]).expect("one entry");
    assert!(matches!(waits.apply(&stale), Err(Broken::InQuarantine { .. })));
    let twice = (ip("10.0.0.1"), held("b", State::Held { since: 0 }));
    assert!(matches!(Ledger::new([twice.clone(), twice]), Err(Broken::Twice { .. })));
    let gone = Plan {
        release: vec![Release { claim: "z".into(), address: ip("10.0.0.1"), until: 0 }],
        ..Plan::default()
    };
    assert!(matches!(other.apply(&gone), Err(Broken::NotHeld { .. })));
}

/// One by one and all at once, in a /16 and in a /64: the cost of a claim does
/// not grow with the claims before it.
#[test]
fn ten_thousand_claims_cost_a_few_steps_each() {
    const CLAIMS: u64 = 10_000;
    for addresses in ["10.0.0.0/16", "2001:db8::/64"] {
        let v6 = addresses.contains(':');
        let make = |i: u64| {
            let families = Families { v4: !v6, v6 };
            Claim { families, ..claim(&format!("c{i:05}")) }
        };
        let mut single = World::default();
        single.pool("public", Some(pool(&[addresses])));
        for i in 0..CLAIMS {
            single.claim(make(i));
            let plan = single.desk.plan(&single.ledger, &single.named, 0);
            single.ledger.apply(&plan).expect("applies");
            single.desk.done(&plan);
            assert!(plan.looked_at <= 4, "claim {i} looked at {} places", plan.looked_at);
        }
        let mut batch = World::default();
        batch.pool("public", Some(pool(&[addresses])));
        for i in 0..CLAIMS {
            batch.claim(make(i));
        }
        let plan = batch.step();
        assert!(plan.looked_at <= 4 * CLAIMS, "{} places", plan.looked_at);
        assert_eq!(batch.ledger, single.ledger);
        check(&single.ledger).expect("I1");
    }
}

/// Ten thousand who wait in vain cost a few steps each, too.
#[test]
fn an_empty_pool_is_asked_once() {
    let mut world = World::default();
    world.pool("public", Some(pool(&["10.0.0.0/24"])));
    for i in 0..10_000 {
        world.claim(claim(&format!("c{i:05}")));
    }
    let plan = world.step();
    assert_eq!((plan.allocate.len(), plan.findings.len()), (254, 9_746));
    assert!(plan.looked_at <= 11_000, "{} places", plan.looked_at);
}

#[derive(Debug, Clone)]
enum Op {
    Pool(usize, Option<VipPoolSpec>),
    Claim(Claim),
    Gone(String),
    Tick(i64),
    Named(Vec<Index>),
    Restart,
}

const NAMES: [&str; 3] = ["p", "q", "r"];

fn spec() -> impl Strategy<Value = VipPoolSpec> {
    let texts = ["10.0.0.0/29", "10.0.0.4-10.0.0.9", "10.0.0.2", "2001:db8::/126", "2001:db8::2-2001:db8::5"];
    let some = |max| prop::collection::vec(prop::sample::select(texts.to_vec()), 0..max);
    (some(3), some(2), any::<bool>(), 0..2_i32, 0..40_u32).prop_map(
        |(addresses, exclude, selects, priority, quarantine_seconds)| VipPoolSpec {
            exclude: exclude.into_iter().map(str::to_owned).collect(),
            namespaces: selects.then(|| Selector { names: vec!["n".to_owned()], ..Selector::default() }),
            priority,
            quarantine_seconds,
            ..pool(&addresses)
        },
    )
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let address = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.8", "2001:db8::3"]);
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let pool = prop::option::weighted(0.3, prop::sample::select(NAMES.to_vec()));
    (name, any::<bool>(), pool, 0..4_u8, prop::option::weighted(0.3, address)).prop_map(
        |(name, namespaced, pool, families, requested)| Claim {
            namespace: namespaced.then(|| "n".into()),
            pool: pool.map(Into::into),
            families: Families { v4: families != 1, v6: families == 1 || families == 2 },
            requested: requested.map(ip).into_iter().collect(),
            ..claim(name)
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..NAMES.len(), prop::option::weighted(0.85, spec())).prop_map(|(i, spec)| Op::Pool(i, spec)),
        6 => any_claim().prop_map(Op::Claim),
        3 => any_claim().prop_map(|claim| Op::Gone(claim.name.to_string())),
        3 => (0..50_i64).prop_map(Op::Tick),
        1 => prop::collection::vec(any::<Index>(), 0..3).prop_map(Op::Named),
        1 => Just(Op::Restart),
    ]
}

/// Whether the claim could be given an address of this family right now.
fn could_have(world: &World, claim: &Claim, family: Family) -> bool {
    let pools = world.pools();
    let fits =
        |pool: &&Pool| pool.admits(claim) && claim.pool.as_ref().is_none_or(|asked| *asked == pool.name);
    let free = |address| match world.ledger.entry(address).map(|entry| (&entry.claim, entry.state)) {
        None => true,
        Some((_, State::Held { .. })) => false,
        Some((last, State::Quarantined { until })) => {
            *last == claim.name || (until <= world.now && !world.named.contains(&address))
        }
    };
    let spans =
        pools.in_order().iter().filter(fits).flat_map(|pool| pool.spans().of(family)).collect::<Vec<_>>();
    spans.into_iter().any(|span| {
        std::iter::successors(Some(span.first), |at| range::after(*at))
            .take_while(|at| *at <= span.last)
            .any(free)
    })
}

/// Who is told nothing has what it wants; who is told of want could not have it.
fn check_served(world: &World) -> Result<(), TestCaseError> {
    for (name, claim) in &world.claims {
        let findings = world.desk.findings(name);
        let held: BTreeSet<IpAddr> = world.ledger.held(name).collect();
        for family in Family::ALL {
            let of_family: Vec<_> = held.iter().filter(|at| Family::of(**at) == family).collect();
            prop_assert!(of_family.len() <= 1, "{name} holds {of_family:?}");
            let requested = claim.requested.iter().find(|at| Family::of(**at) == family);
            let wanted = if family == Family::V4 { claim.families.v4 } else { claim.families.v6 };
            if requested.is_none() && wanted && of_family.is_empty() {
                let told = findings.iter().any(|f| {
                    f.severity == Severity::Error && f.message.contains(&format!("no {family} address"))
                });
                prop_assert!(told, "{name} lacks {family} and is not told");
                prop_assert!(!could_have(world, claim, family), "{name} could have {family}");
            }
            if let Some(requested) = requested.filter(|at| !held.contains(at)) {
                let told =
                    findings.iter().any(|f| f.message.starts_with(&format!("{requested} cannot be given")));
                prop_assert!(told, "{name} has not {requested} and is not told");
            }
            prop_assert!(requested.is_some() || wanted || of_family.is_empty(), "{name} keeps {family}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn histories(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::default();
        for op in ops {
            let before = world.ledger.clone();
            let mut touched: Option<Text> = None;
            match op {
                Op::Pool(i, spec) => drop(world.pool(NAMES[i], spec)),
                Op::Claim(claim) => {
                    touched = Some(claim.name.clone());
                    world.claim(claim);
                }
                Op::Gone(name) => {
                    touched = Some(name.as_str().into());
                    world.gone(&name);
                }
                Op::Tick(seconds) => world.now += seconds,
                Op::Named(picks) => {
                    let waiting: Vec<IpAddr> = world.ledger.ends().map(|(_, at)| at).collect();
                    let pick = |pick: Index| waiting.get(pick.index(waiting.len().max(1))).copied();
                    world.named = picks.into_iter().filter_map(pick).collect();
                    world.desk.retry();
                }
                Op::Restart => world.restart(),
            }
            // A quarantine of no time is over at once.
            while world.step().wake_at == Some(world.now) {}
            check_served(&world)?;
            // Sticky: who asked for nothing new has lost nothing, unless it
            // moved to what it had asked for and could not have.
            for (name, addresses) in before.claims().filter(|(name, _)| Some(*name) != touched.as_ref()) {
                let held: BTreeSet<IpAddr> = world.ledger.held(name).collect();
                for lost in addresses.difference(&held) {
                    let claim = &world.claims[name];
                    let moved = held.iter().any(|at| {
                        Family::of(*at) == Family::of(*lost)
                            && (claim.requested.contains(at) || claim.pool.is_some())
                    });
                    prop_assert!(moved, "{name} lost {lost}");
                }
            }
            // Nothing is left to do, and reading the world anew changes nothing.
            let ledger = world.ledger.clone();
            world.restart();
            world.step();
            prop_assert_eq!(&ledger, &world.ledger);
        }
        // I2: when all are gone and the time is over, everything is free.
        for name in world.claims.keys().cloned().collect::<Vec<_>>() {
            world.gone(&name);
        }
        world.step();
        world.named.clear();
        world.now += 1_000;
        world.step();
        prop_assert_eq!(world.ledger.entries().count(), 0);
        for family in Family::ALL {
            prop_assert_eq!(free(&world.pools(), &world.ledger, family), world.pools().count(family));
        }
    }

    /// One batch, read in any order: one outcome.
    #[test]
    fn order_does_not_matter(
        specs in prop::collection::vec(spec(), NAMES.len()),
        (claims, shuffled) in prop::collection::vec(any_claim(), 1..12).prop_flat_map(|claims| {
            let mut named = BTreeMap::new();
            named.extend(claims.into_iter().map(|claim| (claim.name.clone(), claim)));
            let claims: Vec<Claim> = named.into_values().collect();
            (Just(claims.clone()), Just(claims).prop_shuffle())
        }),
    ) {
        let (mut one, mut other) = (World::default(), World::default());
        for (name, spec) in NAMES.iter().zip(&specs) {
            one.pool(name, Some(spec.clone()));
        }
        for claim in claims {
            one.claim(claim);
        }
        for claim in shuffled {
            other.claim(claim);
        }
        for (name, spec) in NAMES.iter().zip(&specs).rev() {
            other.pool(name, Some(spec.clone()));
        }
        prop_assert_eq!(one.step(), other.step());
    }
}
