//! The whole of the control plane under one seeded scheduler: clock, network and
//! disk are simulated, the code between facts and streams is the real one. A
//! seed that fails prints the command that runs it again, with what happened.

mod support;

#[path = "simulation/alphabet.rs"]
mod alphabet;
#[path = "simulation/beside.rs"]
mod beside;
#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/control.rs"]
mod control;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/envoy.rs"]
mod envoy;
#[path = "simulation/hop.rs"]
mod hop;
#[path = "simulation/outside.rs"]
mod outside;
#[cfg(feature = "planted")]
#[path = "simulation/planted.rs"]
mod planted;
#[path = "simulation/scheduler.rs"]
mod scheduler;
#[path = "simulation/swarm.rs"]
mod swarm;
#[path = "simulation/truth.rs"]
mod truth;

use scheduler::Sim;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Seeds of one run, unless `SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how long to look is asked of who looks")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Whether some engines of a seed have a relay before them: those of every other
/// seed, unless `RELAYS` (0 or 1) says it of all. That is not drawn from the dice
/// of the seed: without relays it goes as it did before there were any.
fn relays(seed: u64) -> bool {
    static ASKED: std::sync::OnceLock<Option<u64>> = std::sync::OnceLock::new();
    let asked = ASKED.get_or_init(|| number("RELAYS"));
    asked.unwrap_or(seed % 2) > 0
}

/// Runs a seed; why it failed, if it did.
fn run(seed: u64) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| Sim::new(seed).run())).map_err(|why| {
        let text = why.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

/// `FROM`: the first seed; `SEEDS`: how many; `SECONDS`: no seed begins later.
#[test]
fn seeds() {
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    #[expect(clippy::disallowed_methods, reason = "bounds how long seeds are tried")]
    let start = Instant::now();
    let limit = number("SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let work = || {
            while !failed.load(Ordering::Relaxed) && start.elapsed() < limit {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    break;
                }
                if let Err(why) = run(from + n) {
                    failed.store(true, Ordering::Relaxed);
                    return Some((from + n, why));
                }
            }
            None
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("seeds catch their panics")).collect()
    });
    println!("{} seeds from {from} in {:?}", next.load(Ordering::Relaxed).min(count), start.elapsed());
    for (seed, why) in &failures {
        println!("seed {seed}: {why}\n{}", replay_command(*seed));
    }
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
}

fn replay_command(seed: u64) -> String {
    format!(
        "  RELAYS={} SIM_SEED={seed} cargo test --test simulation replay -- --nocapture",
        u8::from(relays(seed))
    )
}

/// Runs `SIM_SEED` again and prints what happened; without it, seed 0 twice: what
/// happens must be the same.
#[test]
fn replay() {
    let told = |seed| {
        outside::trace(true);
        let result = run(seed);
        (result, outside::trace(false))
    };
    let Some(seed) = number("SIM_SEED") else {
        let (first, second) = (told(0), told(0));
        assert!(first.1.len() > 100, "{first:?}");
        assert_eq!(first, second);
        return;
    };
    let (result, trace) = told(seed);
    println!("{}", trace.join("\n"));
    result.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
}
