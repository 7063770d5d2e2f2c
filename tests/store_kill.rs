//! F6: a process that writes the ledger is killed at any moment. What it had
//! acknowledged is there, nothing else is, and nobody has an address twice.
//!
//! The writer's steps follow from their number alone, so that the ledger after
//! any number of writes is known without asking it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tidegate::{
    api::VipPoolSpec,
    base::Text,
    ipam::{Ledger, Plan, Pools, Request, check, plan},
    ir::{Claim, Families},
    store::Store,
};

const ROUNDS: u64 = 25;
/// Names the directory to the process that is to be killed.
const CHILD: &str = "TIDEGATE_STORE_KILL_DIR";

fn pools() -> Pools {
    let spec = VipPoolSpec {
        addresses: vec!["10.0.0.1-10.0.0.6".to_owned(), "2001:db8::/64".to_owned()],
        exclude: Vec::new(),
        namespaces: None,
        priority: 0,
        quarantine_seconds: 30,
    };
    Pools::read([("public", &spec)]).0
}

/// What step number `i` does to a ledger.
fn step(pools: &Pools, ledger: &Ledger, i: u64) -> Plan {
    let random = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let name: Text = format!("claim/{}", random % 9).into();
    let claim = Claim {
        name: name.clone(),
        namespace: None,
        namespace_labels: BTreeMap::new(),
        pool: None,
        families: Families { v4: true, v6: random & 0x100 != 0 },
        requested: Vec::new(),
    };
    let pending = BTreeMap::from([(name, (random & 0x200 != 0).then(|| Arc::new(claim)))]);
    let now = i64::try_from(i).expect("a small number") * 7;
    plan(&Request { pools, ledger, pending: &pending, named: &BTreeSet::new(), now })
}

/// The ledger at a generation (a new one has 1), and the step that comes next.
fn at_generation(pools: &Pools, generation: u64) -> (Ledger, u64) {
    let (mut ledger, mut i, mut at) = (Ledger::default(), 0, 1);
    while at < generation {
        let plan = step(pools, &ledger, i);
        ledger.apply(&plan).expect("a plan of this ledger");
        at += u64::from(!plan.is_empty());
        i += 1;
    }
    (ledger, i)
}

/// Writes until it is killed; tells each write that has returned.
fn write_for_ever(dir: &Path) -> ! {
    let opened = Store::open(dir).expect("opens after a kill");
    let (mut store, mut ledger, pools) = (opened.store, opened.ledger, pools());
    let mut out = std::io::stdout();
    let mut tell = |generation| {
        writeln!(out, "ack {generation}").and_then(|()| out.flush()).expect("the parent listens");
    };
    tell(store.generation());
    let (known, mut i) = at_generation(&pools, store.generation());
    assert_eq!(known, ledger);
    loop {
        let plan = step(&pools, &ledger, i);
        store.commit(&plan).expect("written");
        ledger.apply(&plan).expect("a plan of this ledger");
        tell(store.generation());
        i += 1;
    }
}

fn child(dir: &Path) -> Child {
    let this = std::env::current_exe().expect("this test has a file");
    let mut command = Command::new(this);
    command.args(["--exact", "what_was_acknowledged_survives_kill_9", "--nocapture"]).env(CHILD, dir);
    command.stdout(Stdio::piped()).spawn().expect("starts")
}

/// Lets a writer go until it has acknowledged `acks` writes and a little longer,
/// kills it, and gives the last generation it acknowledged.
fn kill_after(dir: &Path, acks: u64, longer: Duration) -> u64 {
    let mut child = child(dir);
    let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
    let mut last = 0;
    let mut next = || loop {
        // Half a line may be the last.
        let line = lines.next()?.ok()?;
        // The harness writes before, without a line's end.
        if let Some((_, generation)) = line.rsplit_once("ack ") {
            return generation.parse().ok();
        }
    };
    for _ in 0..acks {
        last = next().expect("the writer writes until it is killed");
    }
    std::thread::sleep(longer);
    child.kill().expect("is killed");
    child.wait().expect("has ended");
    while let Some(generation) = next() {
        last = generation;
    }
    last
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the writer is this test itself, told so by its environment")]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writes, mut in_flight) = (0, 0);
    for round in 0..ROUNDS {
        // Every fifth in a new directory and early: killed while it is made.
        let dir = if round % 5 == 4 { dir.path().join(round.to_string()) } else { dir.path().to_owned() };
        let random = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let acks = if round % 5 == 4 { 0 } else { 1 + (random >> 59) };
        let acknowledged = kill_after(
            &dir,
            acks,
            Duration::from_micros((random >> 40) % if acks == 0 { 20_000 } else { 5_000 }),
        );
        let opened = Store::open(&dir).expect("opens after a kill");
        let generation = opened.store.generation();
        assert!(
            generation == acknowledged || generation == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {generation} found"
        );
        check(&opened.ledger).expect("nobody has an address twice");
        assert_eq!(opened.ledger, at_generation(&pools(), generation).0, "round {round}");
        let salvaged = Store::salvage(&dir).expect("a backup").ledger().expect("whole");
        assert_eq!(salvaged, opened.ledger);
        writes = writes.max(generation);
        in_flight += u64::from(generation > acknowledged);
    }
    println!("{writes} writes in the longest history, {in_flight} of {ROUNDS} kills in the middle of one");
    assert!(writes > ROUNDS);
}
