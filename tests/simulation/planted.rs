//! Known bugs, planted one at a time: the simulation finds each, soon.

use crate::run;
use tidegate::planted::{self, Bug};

/// Seeds within which each bug shows itself.
const SEEDS_MAX: u64 = 300;

/// The first seed that shows a bug, and what it says.
fn found(bug: Bug) -> Option<(u64, String)> {
    planted::plant(Some(bug));
    let first = (0..SEEDS_MAX).find_map(|seed| run(seed).err().map(|why| (seed, why)));
    planted::plant(None);
    first
}

#[test]
fn every_planted_bug_is_found() {
    // Words of the check that has to find it.
    let expected = |bug| match bug {
        Bug::RouteBeforeCluster => "came before",
        Bug::EndpointsNotSentAgain => "no endpoints came",
        Bug::RemovalAtOnce => "while",
        Bug::NoQuarantine => "I3",
        Bug::PublishBeforeSync => "half of a first list",
        Bug::RefusedSentAgain => "is sent again",
        Bug::AnnounceBeforeWrite => "not in the ledger",
    };
    for bug in Bug::ALL {
        let (seed, why) = found(bug).unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: seed {seed}: {}", why.lines().next().unwrap_or_default());
        assert!(why.contains(expected(bug)), "{bug:?} shows as: {why}");
    }
}
