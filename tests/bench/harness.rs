//! Every measurement, and how much of each is made.
//!
//! *Takes* [`Options`]. *Gives* figures, each printed as it is found. *Invariants*:
//! a change is counted from just before rename(2) to the right answer; what others
//! take of the machine meanwhile stands beside each figure. *To add one*: a method of
//! [`Scene`], with a row in `scenes::measurements`, and one in tests/bench.rs.

pub mod backend;
pub mod figures;
mod fleets;
pub mod machine;
mod manifests;
mod probe;
mod processes;
mod scenes;
mod site;
mod tls;

pub use fleets::Fleet;

use figures::Figure;
use scenes::Scene;
use std::time::Duration;

/// Hosts for which the goals stand.
pub const GOAL_HOSTS: usize = 10_000;
/// Sizes of a site.
pub const SIZES: [usize; 3] = [100, 1_000, GOAL_HOSTS];
/// Of the client that loads an Envoy: kept, each with a host of its own.
pub const CONNECTIONS: usize = 64;
/// CPU of a change at the largest size against the smallest.
const GROWTH_MAX: f64 = 1.2;
/// Simulated engines.
const FLEETS: [Fleet; 3] = [
    Fleet { engines: 10, hosts: 10_000 },
    Fleet { engines: 100, hosts: 2_000 },
    Fleet { engines: 1_000, hosts: 200 },
];

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Options {
    pub sizes: Vec<usize>,
    /// Of each kind of change.
    pub reps: usize,
    /// Of what takes seconds: restarts, bursts, rounds of load.
    pub rounds: usize,
    /// How long idleness and a steady rate of changes are watched.
    pub idle: Duration,
    /// Changes that are timed while others are made.
    pub probes: usize,
    /// Changes a second, half of all routes in turn.
    pub churn: usize,
    /// Of one round of requests.
    pub load: Duration,
    pub fleets: Vec<Fleet>,
    /// Repeats wait (for a bounded time) until others take less than this.
    pub foreign_max: f64,
    pub concurrency: u32,
    /// Each host has a Service and an EndpointSlice of its own.
    pub own_services: bool,
    pub plain: bool,
    pub tls: bool,
    /// Only measurements whose name contains this.
    pub only: String,
}

impl Options {
    /// As `make bench` measures.
    pub fn full() -> Self {
        Self {
            sizes: SIZES.to_vec(),
            reps: 30,
            rounds: 5,
            idle: Duration::from_secs(35),
            probes: 100,
            churn: 500,
            load: Duration::from_secs(3),
            fleets: FLEETS.to_vec(),
            foreign_max: 0.3,
            concurrency: 1,
            own_services: false,
            plain: true,
            tls: true,
            only: String::new(),
        }
    }

    /// Every measurement once: the figures mean nothing, but each is found.
    pub fn small() -> Self {
        Self {
            sizes: vec![50],
            reps: 1,
            rounds: 1,
            idle: Duration::from_secs(1),
            probes: 3,
            load: Duration::from_millis(200),
            fleets: vec![Fleet { engines: 3, hosts: 50 }],
            foreign_max: f64::INFINITY,
            ..Self::full()
        }
    }

    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

/// Measures; every figure was printed when this returns.
pub fn run(options: &Options) -> Vec<Figure> {
    let backend = backend::start(&manifests::BACKENDS);
    let authority = tls::Authority::new();
    let mut figures = Vec::new();
    for (kind, authority) in [(options.plain, None), (options.tls, Some(&authority))] {
        let wanted = |n: usize| kind && scenes::wanted(options, authority.is_some(), n);
        for n in options.sizes.iter().copied().filter(|n| wanted(*n)) {
            figures.extend(Scene::load(options, n, authority, backend).measure());
        }
    }
    if options.wants(fleets::NAME) {
        for fleet in &options.fleets {
            figures.extend(fleets::measure(options, *fleet, backend));
        }
    }
    figures.extend(growth(&figures, &options.sizes));
    figures
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
    if least == most {
        return Vec::new();
    }
    costs.filter_map(ratio).map(Figure::print).collect()
}
