//! Every measurement of `make bench` once, at its smallest: that each can be made
//! and finds its figures. What they are says the bench.
#![allow(unreachable_pub, dead_code, reason = "the modules of a bench are its own")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the harness measures with the clock and prints"
)]

#[path = "bench/harness.rs"]
mod harness;

use harness::{Options, figures};

/// One figure of each measurement.
const WANTED: [&str; 22] = [
    "initial load: last host answers",
    "RSS after load: control plane",
    "RSS after load: Envoy",
    "new host: served, p99",
    "new host: noticed to taken, mean",
    "new host: compile, mean",
    "new host: noticed to in sync, mean",
    "edited backend: control plane CPU, p50",
    "edited path: served, p50",
    "endpoint change: served, p50",
    "idle: control plane CPU",
    "10 changes/s: control plane CPU",
    "RSS under 10 changes/s: control plane",
    "churn, 25 routes at 500/s: probe served, p99",
    "churn, 25 routes at once: all served, max",
    "restart: last engine in sync, p50",
    "restart: a new object served, p50",
    "request rate: ours against bare with the same access log",
    "TLS, new TLS host: served, p50",
    "TLS, rotated certificate: served, p50",
    "simulated engines, 3 x 50 hosts: control plane RSS an engine",
    "simulated engines, 3 x 50 hosts: fan-out of a change, first send to last ACK, p50",
];

#[test]
fn every_measurement_finds_its_figures() {
    let found = harness::run(&Options::small());
    for name in WANTED {
        let figure = found.iter().find(|figure| figure.name == name);
        let figure = figure.unwrap_or_else(|| panic!("no '{name}' in {found:#?}"));
        assert!(figure.value.is_finite(), "{figure:?}");
    }
    let of = |name: &str| found.iter().find(|figure| figure.name == name).map(|figure| figure.value);
    assert_eq!(of("restart: requests that failed"), Some(0.0), "Envoy serves on");
    assert_eq!(of("restart: resources sent again, max"), Some(0.0), "Envoy holds them all");
    let tables = figures::tables(&found);
    assert_eq!(
        tables.lines().filter(|line| line.starts_with("| new host: served, p50 |")).count(),
        1,
        "{tables}"
    );
}
