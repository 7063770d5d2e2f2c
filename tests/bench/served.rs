//! `make bench`: from a file moved into place to the answer that shows it, through
//! one stock Envoy, with 100, 1,000 and 10,000 hosts; and what that takes of the
//! machine, with many engines, under many changes, over a restart.
//!
//! *Takes* what to measure. *Gives* a line of JSON for each figure on stdout and in
//! `target/bench/results.jsonl`, a table, and BENCHMARKS.md. *Invariants*: a missed
//! goal is printed as missed; the page of the repository is written by a whole run
//! alone. *To add one*: see [`harness`].
#![allow(unreachable_pub, reason = "the modules of a bench are its own")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench measures with the clock and prints"
)]

#[path = "harness.rs"]
mod harness;

use harness::{
    Fleet, Options,
    figures::{self, Figure},
    machine,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const USAGE: &str = "cargo bench --bench served -- [--only NAME] [--small] [--kind plain|tls|all]
  [--n 100,1000,10000] [--reps 30] [--rounds 5] [--idle SECONDS] [--probes 100] [--churn 500]
  [--load SECONDS] [--fleets 10x10000,100x2000,1000x200] [--own-services]
  [--max-foreign CORES] [--concurrency 1]
--only takes a part of a name: 'initial load' (memory, too), 'new host', 'edited backend', 'edited path',
  'endpoint change', 'idle', '10 changes/s', 'churn', 'restart', 'request rate', 'new TLS host',
  'rotated certificate', 'simulated engines'.
--small makes every measurement once, at 50 hosts: to try the harness.
Needs TIDEGATE_ENVOY and TIDEGATE_MODULE: `make bench` sets them.";

fn main() {
    let Some((options, whole)) = arguments() else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    for name in ["TIDEGATE_ENVOY", "TIDEGATE_MODULE"] {
        assert!(std::env::var_os(name).is_some(), "{name} is not set\n{USAGE}");
    }
    let figures = harness::run(&options);
    if figures.is_empty() {
        eprintln!("nothing is called '{}'\n{USAGE}", options.only);
        std::process::exit(2);
    }
    write(&figures, &options, whole);
}

/// What to measure, and whether it is all that `make bench` does.
fn arguments() -> Option<(Options, bool)> {
    // `cargo bench` adds the first.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let whole = words.is_empty() && !cfg!(debug_assertions);
    let small = words.iter().any(|word| word == "--small");
    let mut options = if small { Options::small() } else { Options::full() };
    let mut words = words.into_iter().filter(|word| word != "--small");
    while let Some(word) = words.next() {
        if word == "--own-services" {
            options.own_services = true;
            continue;
        }
        let value = words.next()?;
        let seconds = || value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let count = || value.parse().ok().filter(|count| *count > 0);
        match word.as_str() {
            "--n" => options.sizes = value.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?,
            "--reps" => options.reps = count()?,
            "--rounds" => options.rounds = count()?,
            "--idle" => options.idle = seconds()?,
            "--probes" => options.probes = count()?,
            "--churn" => options.churn = count()?,
            "--load" => options.load = seconds()?,
            "--max-foreign" => options.foreign_max = value.parse().ok()?,
            "--concurrency" => options.concurrency = value.parse().ok()?,
            "--only" => options.only = value,
            "--fleets" => options.fleets = value.split(',').map(Fleet::parse).collect::<Option<_>>()?,
            "--kind" => (options.plain, options.tls) = (value != "tls", value != "plain"),
            _ => return None,
        }
    }
    // Repeats take a host each at both ends; those in the middle stay as they were.
    options.sizes.iter().all(|n| *n >= 50 && *n > 2 * options.reps + 10).then_some((options, whole))
}

fn write(figures: &[Figure], options: &Options, whole: bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = target(root).join("bench");
    fs::create_dir_all(&folder).expect("the target folder is ours");
    let lines: String = figures.iter().map(|figure| figure.json() + "\n").collect();
    fs::write(folder.join("results.jsonl"), lines).expect("the target folder is ours");
    let page = if whole { root.join("BENCHMARKS.md") } else { folder.join("BENCHMARKS.md") };
    figures::write_page(&page, &head(figures, options, root), figures);
    println!("\n{}", figures::tables(figures));
    println!("Written: {} and {}", folder.join("results.jsonl").display(), page.display());
    let missed = figures.iter().filter(|figure| figure.met() == Some(false)).count();
    println!("Goals missed: {missed}");
}

/// `target/`, or wherever this binary (`TARGET/PROFILE/deps/served-...`) was put.
fn target(root: &Path) -> PathBuf {
    let own = std::env::current_exe().ok();
    own.and_then(|own| own.ancestors().nth(3).map(Path::to_owned)).unwrap_or_else(|| root.join("target"))
}

fn head(figures: &[Figure], options: &Options, root: &Path) -> String {
    let first_line = |command: &str, words: &[&str]| {
        let output = Command::new(command).args(words).current_dir(root).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
    };
    let known = figures.iter().map(|figure| figure.foreign).filter(|foreign| foreign.is_finite());
    let foreign = known.fold(0.0, f64::max);
    let loads = figures.iter().map(|figure| figure.load);
    let (low, high) =
        loads.fold((f64::INFINITY, 0.0), |(low, high), load| (low.min(load), f64::max(high, load)));
    format!(
        "# Benchmarks

Written by `make bench` (tests/bench/served.rs); only what was measured in that run.

* Machine: {machine}; control plane, engine relay, Envoy, backends and probe share it.
* Load average (1 min) {low:.2} to {high:.2}; others took at most {foreign:.2} core on average in one kind of
  change (each figure of `target/bench/results.jsonl` has its own). Trust no latency above about 0.3.
* Tidegate {revision}, {profile}; {rustc}; Envoy {envoy} with {concurrency} worker{s}.
* {reps} repeats a figure. `served`: from just before rename(2) of the file to the first right answer on a kept
  connection (TLS: new connections), polled each 0.3 ms beside the time a request takes; before each repeat
  both processes were quiet for 300 ms. CPU: from then until the next quiet, read in nanoseconds from /proc.
* All hosts have one path and {services}; TLS: one P-256 leaf a host, new ones never visited before.
  Idle CPU is over {idle} s; all files are scanned each 30 s. 10 changes/s: routes edited in turn over as long.
* Churn: half of all routes, each to a new path: at {churn}/s, in turn and again, while {probes} probes are made; and at
  once, all files moved into place as fast as one thread can, {rounds} times, with probes one after the other
  meanwhile. A probe is an edited path of a route of the other half.
* Restart: SIGKILL, and `tidegate up` again at once, on the same state; from just before exec to /readyz (asked each
  4 ms), and to a new host answering whose file was put there just before exec. Of {rounds}, half of them with one.
* Simulated engines: in one thread of the bench, each with a TCP connection, mTLS and a delta ADS stream of its own,
  asking as Envoy does and acknowledging at once. First send and last ACK are taken there.
* Request rate: both Envoys have one worker and are held to one core; client ({connections} kept connections, one
  request under way on each) and backends have the other. Medians of {rounds} rounds of {load} s that alternate.
* Goals are those of 10,000 hosts. The same definitions as the baseline of Contour and Envoy Gateway.
",
        machine = machine::describe(),
        revision = first_line("git", &["describe", "--always", "--dirty"]),
        profile = if cfg!(debug_assertions) { "debug build" } else { "release build" },
        rustc = first_line("rustc", &["--version"]),
        envoy = fs::read_to_string(root.join("envoy/VERSION")).unwrap_or_default().trim(),
        concurrency = options.concurrency,
        s = if options.concurrency == 1 { "" } else { "s" },
        reps = options.reps,
        services = if options.own_services { "a Service of their own" } else { "share one Service" },
        idle = options.idle.as_secs(),
        churn = options.churn,
        probes = options.probes,
        rounds = options.rounds,
        connections = harness::CONNECTIONS,
        load = options.load.as_secs_f64(),
    )
}
