//! `make bench`: from a file moved into place to the answer that shows it, through
//! one stock Envoy, with 100, 1,000 and 10,000 hosts.
//!
//! *Takes* sizes and repeats. *Gives* a line of JSON for each figure on stdout and
//! in `target/bench/results.jsonl`, a table, and BENCHMARKS.md. *Invariants*: the
//! clock starts just before rename(2) and stops at the right answer; what others
//! take of the machine meanwhile stands beside each figure; a missed goal is
//! printed as missed. *To add one*: a method of [`scenes::Scene`].
#![allow(unreachable_pub, reason = "the modules of a bench are its own")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench measures with the clock and prints"
)]

mod backend;
mod figures;
mod machine;
mod manifests;
mod probe;
mod scenes;
mod site;
mod tls;

use figures::Figure;
use scenes::{GOAL_HOSTS, Options, Scene};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const USAGE: &str = "cargo bench --bench served -- [--n 100,1000,10000] [--reps 30] [--idle SECONDS]
  [--kind plain|tls|all] [--only NAME] [--own-services] [--max-foreign CORES] [--concurrency 1]
Needs TIDEGATE_ENVOY and TIDEGATE_MODULE: `make bench` sets them.";

const SIZES: [usize; 3] = [100, 1_000, GOAL_HOSTS];
/// CPU of a change at the largest size against the smallest.
const GROWTH_MAX: f64 = 1.2;

struct Arguments {
    options: Options,
    plain: bool,
    tls: bool,
    /// As `make bench` calls it: only then the page of the repository is written.
    whole: bool,
}

fn main() {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let Arguments { options, plain, tls, whole } = arguments;
    for name in ["TIDEGATE_ENVOY", "TIDEGATE_MODULE"] {
        assert!(std::env::var_os(name).is_some(), "{name} is not set\n{USAGE}");
    }
    let backend_port = backend::start(&manifests::BACKENDS);
    let authority = tls::Authority::new();
    let mut figures = Vec::new();
    let kinds = [(plain, None), (tls, Some(&authority))];
    for (_, authority) in kinds.into_iter().filter(|(wanted, _)| *wanted) {
        for n in &options.sizes {
            figures.extend(Scene::load(&options, *n, authority, backend_port).measure());
        }
    }
    let growth = growth(&figures, &options.sizes);
    growth.iter().for_each(|figure| println!("{}", figure.json()));
    figures.extend(growth);
    write(&figures, &options, whole);
}

fn arguments() -> Option<Arguments> {
    let mut options = Options {
        sizes: SIZES.to_vec(),
        reps: 30,
        idle: Duration::from_secs(35),
        foreign_max: 0.3,
        concurrency: 1,
        own_services: false,
        only: String::new(),
    };
    let (mut plain, mut tls, mut whole) = (true, true, !cfg!(debug_assertions));
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        // `cargo bench` adds it.
        if word == "--bench" {
            continue;
        }
        whole = false;
        if word == "--own-services" {
            options.own_services = true;
            continue;
        }
        let value = words.next()?;
        match word.as_str() {
            "--n" => options.sizes = value.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?,
            "--reps" => options.reps = value.parse().ok().filter(|reps| *reps > 0)?,
            "--idle" => options.idle = Duration::from_secs(value.parse().ok()?),
            "--max-foreign" => options.foreign_max = value.parse().ok()?,
            "--concurrency" => options.concurrency = value.parse().ok()?,
            "--only" => options.only = value,
            "--kind" => (plain, tls) = (value != "tls", value != "plain"),
            _ => return None,
        }
    }
    // Repeats take a host each, and three more show endpoints.
    options.sizes.iter().all(|n| *n >= 50 && *n > options.reps).then_some(Arguments {
        options,
        plain,
        tls,
        whole,
    })
}

/// What a change costs the control plane at the largest size, against the smallest.
fn growth(figures: &[Figure], sizes: &[usize]) -> Vec<Figure> {
    let (Some(least), Some(most)) = (sizes.iter().min(), sizes.iter().max()) else { return Vec::new() };
    let costs =
        figures.iter().filter(|figure| figure.n == *most && figure.name.ends_with("control plane CPU, p50"));
    let ratio = |figure: &Figure| {
        let small = figures.iter().find(|other| other.n == *least && other.name == figure.name)?;
        let name = figure.name.replace("CPU, p50", &format!("CPU against {least} hosts"));
        let ratio = Figure::new(name, *most, figure.value / small.value, "x").foreign(figure.foreign);
        Some(if *most == GOAL_HOSTS && *least == SIZES[0] { ratio.goal(GROWTH_MAX) } else { ratio })
    };
    if least == most { Vec::new() } else { costs.filter_map(ratio).collect() }
}

fn write(figures: &[Figure], options: &Options, whole: bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = target(root).join("bench");
    fs::create_dir_all(&folder).expect("the target folder is ours");
    let lines: String = figures.iter().map(|figure| figure.json() + "\n").collect();
    fs::write(folder.join("results.jsonl"), lines).expect("the target folder is ours");
    let page = if whole { root.join("BENCHMARKS.md") } else { folder.join("BENCHMARKS.md") };
    figures::write_page(&page, &head(figures, options, root), figures);
    println!("\n{}", figures::table(figures));
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

* Machine: {machine}; control plane, Envoy, backends and probe share it.
* Load average (1 min) {low:.2} to {high:.2}; others took at most {foreign:.2} core on average in one kind of
  change (each figure of `target/bench/results.jsonl` has its own). Trust no latency above about 0.3.
* Tidegate {revision}, {profile}; {rustc}; Envoy {envoy} with {concurrency} worker{s}.
* {reps} repeats a figure. `served`: from just before rename(2) of the file to the first right answer on a kept
  connection (TLS: new connections), polled each 0.3 ms beside the time a request takes; before each repeat
  both processes were quiet for 300 ms. CPU: from then until the next quiet, read in nanoseconds from /proc.
* All hosts have one path and {services}; TLS: one P-256 leaf a host, new ones never visited before.
  Idle CPU is over {idle} s; all files are scanned each 30 s.
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
    )
}
