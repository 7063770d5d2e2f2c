//! The compile's own promises: incremental equals from scratch, the order of
//! facts does not matter, and one change costs the same in any world.

mod support;

use proptest::prelude::*;
use std::collections::BTreeMap;
use support::facts::{self, Facts};
use tidegate::compile::{Compile, FactKey, Input, Outcome};
use tidegate::translate::Options;

/// A step: one fact of a small universe comes, changes or goes.
#[derive(Debug, Clone)]
struct Step {
    what: usize,
    variant: usize,
}

fn step() -> impl Strategy<Value = Step> {
    (0..facts::UNIVERSE, 0..6_usize).prop_map(|(what, variant)| Step { what, variant })
}

fn print(compile: &Compile) -> (Vec<String>, Vec<String>) {
    let outcomes = compile.outcomes().iter().map(|outcome| format!("{outcome:?}")).collect();
    let findings = compile.all_findings().map(|finding| finding.to_string()).collect();
    (outcomes, findings)
}

/// The outcomes one is left with who only hears of changes.
fn follow(known: &mut BTreeMap<String, Outcome>, outcomes: Vec<Outcome>) {
    for outcome in outcomes {
        let key = match &outcome {
            Outcome::Upstream(key, _) => format!("upstream {key}"),
            Outcome::Endpoints(key, _) => format!("endpoints {key}"),
            Outcome::Sni(name, _) => format!("sni {name}"),
            Outcome::Dedicated(name, _) => format!("dedicated {name}"),
            Outcome::Gateway(key, _) => format!("gateway {key}"),
            Outcome::Host(key, _) => format!("host {key}"),
            Outcome::Records(host, _) => format!("records {host:?}"),
            Outcome::Zone(key, _) => format!("zone {key}"),
        };
        if outcome.is_some() {
            known.insert(key, outcome);
        } else {
            known.remove(&key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_from_scratch(steps in prop::collection::vec(prop::collection::vec(step(), 1..5), 1..25)) {
        let mut facts: BTreeMap<FactKey, Input> = BTreeMap::new();
        let mut compile = Compile::new(Options::default());
        let mut followed = BTreeMap::new();
        for batch in steps {
            let mut changes = Vec::new();
            for Step { what, variant } in batch {
                let (key, input) = facts::of_universe(what, variant);
                match &input {
                    Some(input) => facts.insert(key.clone(), input.clone()),
                    None => facts.remove(&key),
                };
                changes.push((key, input));
            }
            follow(&mut followed, compile.apply(changes).outcomes);
            let mut fresh = Compile::new(Options::default());
            // From scratch, and in the opposite order, one by one.
            for (key, input) in facts.iter().rev() {
                fresh.apply([(key.clone(), Some(input.clone()))]);
            }
            prop_assert_eq!(print(&compile), print(&fresh));
            let mut heard: Vec<_> = followed.values().map(|outcome| format!("{outcome:?}")).collect();
            let mut now = print(&compile).0;
            heard.sort_unstable();
            now.sort_unstable();
            prop_assert_eq!(heard, now);
        }
    }
}

/// Units that run when one more host comes, when its route changes, and when its
/// endpoints change, in a world of n hosts.
fn runs(n: usize) -> [u64; 3] {
    let mut compile = Compile::new(Options::default());
    compile.apply(Facts::class("public").with(Facts::hosts("public", n)).inputs());
    let mut cost = |facts: Facts| {
        let before = compile.runs();
        compile.apply(facts.inputs());
        compile.runs() - before
    };
    [
        cost(Facts::host("public", n)),
        cost(Facts::host_with_path("public", n, "/edited")),
        cost(Facts::slice("shop", &format!("s{n}"), "10.9.9.9")),
    ]
}

#[test]
fn one_change_costs_the_same_in_any_world() {
    let small = runs(10);
    assert_eq!(small, runs(2_000));
    assert_eq!(small[2], 1, "an endpoint change runs one unit");
    assert!(small[0] <= 10 && small[1] <= 4, "units run: {small:?}");
}
