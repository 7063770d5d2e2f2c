//! What is measured on one site.

mod changes;
mod churn;
mod rate;
mod restart;
mod steady;

use crate::harness::{
    GOAL_HOSTS, Options,
    figures::{Figure, Spread},
    machine::{Cpu, Foreign},
    manifests::{self, BACKENDS, Ports, host, host_file},
    probe::Probe,
    processes::Role,
    site::{self, Engines, Folder, Site},
    tls::{Authority, Leaf},
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Between two polls of an answer.
const POLL: Duration = Duration::from_micros(300);
/// A change that does not show for this long never will.
const CHANGE_MAX: Duration = Duration::from_secs(30);

/// Goals (issue 4).
const RSS_MIB: f64 = 100.0;

/// A way to measure something.
struct Measurement<'o> {
    name: &'static str,
    measure: fn(&mut Scene<'o>),
    /// With the most hosts alone.
    largest: bool,
}

/// Measured wherever there is a site.
const LOAD: &str = "initial load";

/// In this order: the later ones leave more behind.
fn measurements<'o>(tls: bool) -> Vec<Measurement<'o>> {
    let each = |name, measure| Measurement { name, measure, largest: false };
    let largest = |name, measure| Measurement { name, measure, largest: true };
    if tls {
        return vec![
            each(changes::NEW_TLS_HOST, Scene::new_tls_hosts),
            each(changes::ROTATED, Scene::rotated_certificates),
            each(steady::IDLE, Scene::idle),
        ];
    }
    vec![
        each(changes::NEW_HOST, Scene::new_hosts),
        each(changes::EDITED_BACKEND, Scene::edited_backends),
        each(changes::EDITED_PATH, Scene::edited_paths),
        each(changes::ENDPOINT, Scene::endpoints),
        each(steady::IDLE, Scene::idle),
        largest(steady::CHANGES, Scene::steady_changes),
        largest(churn::NAME, Scene::churn),
        largest(restart::NAME, Scene::restarts),
        largest(rate::NAME, Scene::request_rate),
    ]
}

/// Whether a site of this size has to be started for anything.
pub fn wanted(options: &Options, tls: bool, n: usize) -> bool {
    options.wants(LOAD) || measurements(tls).iter().any(|it| it.wanted(options, n))
}

impl Measurement<'_> {
    fn wanted(&self, options: &Options, n: usize) -> bool {
        options.wants(self.name) && (!self.largest || options.sizes.iter().all(|size| *size <= n))
    }
}

/// One site with its hosts.
pub struct Scene<'o> {
    options: &'o Options,
    n: usize,
    tls: Option<(&'o Authority, Vec<Leaf>)>,
    site: Site,
    probe: Probe,
    hosts: usize,
    /// Paths made so far, each of a name of its own.
    paths: usize,
    random: u64,
    figures: Vec<Figure>,
}

impl<'o> Scene<'o> {
    /// Starts a site with `n` hosts and measures how long that takes.
    pub fn load(options: &'o Options, n: usize, tls: Option<&'o Authority>, backend_port: u16) -> Self {
        let ports = site::free_ports(backend_port);
        let folder = Folder::new();
        let leaves: Vec<Leaf> =
            tls.map(|tls| (0..n).map(|number| tls.leaf(&host(number))).collect()).unwrap_or_default();
        write_world(&folder, options.own_services, n, ports, &leaves);
        let foreign = Foreign::start(Cpu::of(std::process::id()).now());
        let site = Site::start(folder, ports, Engines::One { concurrency: options.concurrency });
        let ready = site.started.elapsed();
        let probe = Probe::new(site.http());
        let tls = tls.map(|tls| (tls, leaves));
        let random = next(std::process::id().into());
        let figures = Vec::new();
        let mut scene = Self { options, n, tls, site, probe, hosts: n, paths: 0, random, figures };
        scene.sweep(ready, &foreign);
        scene
    }

    /// Asks five hosts until they answer, then every one.
    fn sweep(&mut self, ready: Duration, foreign: &Foreign) {
        let first = (0..5).map(|k| k * self.n.saturating_sub(1) / 4);
        let mut numbers: Vec<usize> = first.collect();
        numbers.extend(0..self.n);
        for number in numbers {
            self.wait(&host(number), "/", "a");
        }
        let loaded = self.site.started.elapsed();
        self.site.quiet(f64::INFINITY);
        let used = self.site.used();
        let foreign = foreign.cores(used.all);
        self.figure(&format!("{LOAD}: last host answers"), loaded.as_secs_f64(), "s", None, foreign);
        self.figure(&format!("{LOAD}: /readyz"), ready.as_secs_f64(), "s", None, foreign);
        for role in [Role::ControlPlane, Role::Relay] {
            if let Some(used) = used.of(role) {
                let name = format!("{LOAD}: {} CPU", role.name());
                self.figure(&name, used.as_secs_f64(), "s", None, foreign);
            }
        }
        self.memory("after load");
    }

    fn memory(&mut self, when: &str) {
        for (role, resident) in self.site.memory("VmRSS") {
            let goal = (role == Role::ControlPlane).then_some(RSS_MIB);
            self.figure(&format!("RSS {when}: {}", role.name()), resident, "MiB", goal, f64::NAN);
        }
        for (field, word) in [("RssAnon", "anonymous"), ("VmHWM", "peak")] {
            let ours = self.site.memory(field).into_iter().filter(|(role, _)| *role != Role::Envoy);
            for (role, value) in ours {
                let name = format!("RSS {when}: {}, {word}", role.name());
                self.figure(&name, value, "MiB", None, f64::NAN);
            }
        }
    }

    /// All that is wanted; gives the figures.
    pub fn measure(mut self) -> Vec<Figure> {
        for measurement in measurements(self.tls.is_some()) {
            if measurement.wanted(self.options, self.n) {
                (measurement.measure)(&mut self);
            }
        }
        self.figures
    }

    fn figure(&mut self, name: &str, value: f64, unit: &'static str, goal: Option<f64>, foreign: f64) {
        let kind = if self.tls.is_some() { "TLS, " } else { "" };
        let mut figure = Figure::new(format!("{kind}{name}"), self.n, value, unit).foreign(foreign);
        // The memory goal is for plain hosts: a key pair a host is on top.
        let counts = self.n == GOAL_HOSTS && !(unit == "MiB" && self.tls.is_some());
        if let Some(goal) = goal.filter(|_| counts) {
            figure = figure.goal(goal);
        }
        self.figures.push(figure.print());
    }

    /// Quantiles of latencies, those with a goal with theirs.
    fn latencies(&mut self, name: &str, latency: &Spread, goals: [Option<f64>; 2], foreign: f64) {
        let [p50, p99] = goals;
        for (label, share, goal) in
            [("p50", 0.5, p50), ("p90", 0.9, None), ("p99", 0.99, p99), ("max", 1.0, None)]
        {
            self.figure(&format!("{name}, {label}"), latency.quantile_ms(share), "ms", goal, foreign);
        }
    }

    /// A file in place, and the time until all these hosts answer so, the last one
    /// counting.
    fn run(&mut self, step: Step) -> Duration {
        let Step { file, text, wanted } = step;
        for (host, path, backend) in &wanted {
            let answer = self.probe.get(host, path);
            let already = answer.as_ref().is_ok_and(|answer| answer.is_from(backend));
            assert!(!already, "{host}{path} answers {backend} before the change");
        }
        let at = self.site.folder().put(&file, &text);
        let mut shown = at;
        for (host, path, backend) in wanted {
            shown = self.wait(&host, path.as_str(), backend);
        }
        shown - at
    }

    /// Polls until the backend answers; gives the time of that answer.
    fn wait(&mut self, host: &str, path: &str, backend: &str) -> Instant {
        let start = Instant::now();
        loop {
            let answer = self.probe.get(host, path);
            if answer.as_ref().is_ok_and(|answer| answer.is_from(backend)) {
                return Instant::now();
            }
            assert!(start.elapsed() < CHANGE_MAX, "{host}{path} wants {backend}, got {answer:?}");
            sleep(POLL);
        }
    }

    /// A host's file with one more path, which nobody had before; it goes to `svc-b`.
    fn with_new_path(&mut self, number: usize) -> (String, String) {
        let path = path(self.paths);
        self.paths += 1;
        let text = edited(self.options.own_services, number, &path, self.site.ports.backend);
        (path, text)
    }

    /// Earlier changes may have moved it.
    fn endpoint_of_a_is_a(&mut self) {
        let text = manifests::service("svc-a", 0, self.site.ports.backend);
        self.site.folder().put("svc-a.yaml", &text);
        self.wait(&host(self.n / 2), "/", BACKENDS[0].0);
    }
}

/// A file to be put in place, and the answers that show it.
struct Step {
    file: String,
    text: String,
    /// Host, path, backend: all of them, the last one counts.
    wanted: Vec<(String, String, &'static str)>,
}

/// All manifests of a site; certificates where there are leaves.
pub fn write_world(folder: &Folder, own_services: bool, n: usize, ports: Ports, leaves: &[Leaf]) {
    folder.write("gateway.yaml", &manifests::gateway(ports));
    for (at, (name, _)) in BACKENDS.iter().enumerate() {
        let text = manifests::service(&format!("svc-{name}"), at, ports.backend);
        folder.write(&format!("svc-{name}.yaml"), &text);
    }
    for number in 0..n {
        let mut text = manifests::ingress(number, &service(own_services, number), &[], !leaves.is_empty());
        if let Some(leaf) = leaves.get(number) {
            text += &manifests::secret(number, leaf);
        }
        folder.write(&host_file(number), &(text + &rest(own_services, number, ports.backend)));
    }
}

/// A plain host's file with one more path, which goes to `svc-b`.
pub fn edited(own_services: bool, number: usize, path: &str, backend_port: u16) -> String {
    let service = service(own_services, number);
    let ingress = manifests::ingress(number, &service, &[(path, "svc-b")], false);
    ingress + &rest(own_services, number, backend_port)
}

/// The path of an edit.
pub fn path(number: usize) -> String {
    format!("/p{number}")
}

/// Where a host's `/` goes.
fn service(own: bool, number: usize) -> String {
    if own { format!("own-{number:05}") } else { "svc-a".to_owned() }
}

/// The Service of a host's file, which stays as it is.
fn rest(own: bool, number: usize, backend_port: u16) -> String {
    if own {
        format!("---\n{}", manifests::service(&service(own, number), 0, backend_port))
    } else {
        String::new()
    }
}

/// xorshift64: pauses need no better.
fn next(mut random: u64) -> u64 {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    random
}
