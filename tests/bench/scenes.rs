//! What is measured on one site.

use crate::{
    figures::{Figure, Spread},
    machine::{Cpu, Foreign},
    manifests::{self, BACKENDS, host, host_file},
    probe::Probe,
    site::{self, Site},
    tls::{Authority, Leaf},
};
use std::{
    fs, io,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

/// Between two polls of an answer.
const POLL: Duration = Duration::from_micros(300);
/// A change that does not show for this long never will.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// Before each repeat, at random up to this: no beat with timers of the site.
const PAUSE_MAX_MS: u64 = 100;

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Options {
    pub sizes: Vec<usize>,
    pub reps: usize,
    pub idle: Duration,
    /// Repeats wait (for a bounded time) until others take less than this.
    pub foreign_max: f64,
    pub concurrency: u32,
    /// Each host has a Service and an EndpointSlice of its own.
    pub own_services: bool,
    /// Only kinds of change whose name contains this.
    pub only: String,
}

/// Goals at the largest size (issue 4).
const SERVED_P50_MS: f64 = 5.0;
const SERVED_P99_MS: f64 = 25.0;
const ENDPOINT_P50_MS: f64 = 3.0;
const CPU_MS: f64 = 1.0;
const RSS_MIB: f64 = 100.0;
const IDLE_CORES: f64 = 0.02;
/// Hosts of this run for which the goals stand.
pub const GOAL_HOSTS: usize = 10_000;

/// One site with its hosts.
pub struct Scene<'o> {
    options: &'o Options,
    n: usize,
    tls: Option<(&'o Authority, Vec<Leaf>)>,
    site: Site,
    probe: Probe,
    hosts: usize,
    random: u64,
    figures: Vec<Figure>,
}

/// What one kind of change took.
struct Repeats {
    latency: Spread,
    control: Spread,
    engine: Spread,
    foreign: f64,
}

/// A file to be put in place, and the answers that show it.
struct Step {
    file: String,
    text: String,
    /// Host, path, backend: all of them, the last one counts.
    wanted: Vec<(String, &'static str, &'static str)>,
}

impl<'o> Scene<'o> {
    /// Starts a site with `n` hosts and measures how long that takes.
    pub fn load(options: &'o Options, n: usize, tls: Option<&'o Authority>, backend_port: u16) -> Self {
        let scratch = site::folders();
        let ports = site::free_ports(backend_port);
        let leaves: Vec<Leaf> = tls.map(|tls| leaves(tls, n)).unwrap_or_default();
        let write = |file: &str, text: String| {
            fs::write(scratch.path().join("objects").join(file), text).expect("a file can be written");
        };
        write("gateway.yaml", manifests::gateway(ports));
        for (at, (name, _)) in BACKENDS.iter().enumerate() {
            write(&format!("svc-{name}.yaml"), manifests::service(&format!("svc-{name}"), at, backend_port));
        }
        let mut random = std::process::id().into();
        random = next(random);
        for number in 0..n {
            let own = own_service(options, number);
            let service = own.as_deref().unwrap_or("svc-a");
            let mut text = manifests::ingress(number, service, &[], tls.is_some());
            if let Some(leaf) = leaves.get(number) {
                text += &manifests::secret(number, leaf);
            }
            if let Some(own) = &own {
                text += &format!("---\n{}", manifests::service(own, 0, backend_port));
            }
            write(&host_file(number), text);
        }
        let foreign = Foreign::start(Cpu::of(std::process::id()).now());
        let site = Site::start(scratch, ports, options.concurrency);
        let ready = site.started.elapsed();
        let probe = Probe::new(site.http());
        let tls = tls.map(|tls| (tls, leaves));
        let mut scene = Self { options, n, tls, site, probe, hosts: n, random, figures: Vec::new() };
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
        self.figure("initial load: last host answers", loaded.as_secs_f64(), "s", None, foreign);
        self.figure("initial load: /readyz", ready.as_secs_f64(), "s", None, foreign);
        self.figure("initial load: control plane CPU", used.control.as_secs_f64(), "s", None, foreign);
        self.memory("after load");
    }

    fn memory(&mut self, when: &str) {
        let (control, engine) = self.site.memory("VmRSS");
        self.figure(&format!("RSS {when}: control plane"), control, "MiB", Some(RSS_MIB), f64::NAN);
        self.figure(&format!("RSS {when}: Envoy"), engine, "MiB", None, f64::NAN);
        let (heap, _) = self.site.memory("RssAnon");
        self.figure(&format!("RSS {when}: control plane, anonymous"), heap, "MiB", None, f64::NAN);
        let (most, _) = self.site.memory("VmHWM");
        self.figure(&format!("RSS {when}: control plane, peak"), most, "MiB", None, f64::NAN);
    }

    /// All changes, then idleness; gives the figures.
    pub fn measure(mut self) -> Vec<Figure> {
        if self.tls.is_some() {
            self.changes("new TLS host", SERVED_P50_MS, Self::new_host);
            self.changes("rotated certificate", SERVED_P50_MS, Self::rotated);
        } else {
            self.changes("new host", SERVED_P50_MS, Self::new_host);
            self.changes("edited backend", SERVED_P50_MS, Self::edited_backend);
            self.changes("edited path", SERVED_P50_MS, Self::edited_path);
            self.changes("endpoint change", ENDPOINT_P50_MS, Self::endpoint);
        }
        self.idle();
        self.memory("at the end");
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
        println!("{}", figure.json());
        self.figures.push(figure);
    }

    fn idle(&mut self) {
        self.site.quiet(f64::INFINITY);
        let before = self.site.used();
        let foreign = Foreign::start(before.all);
        sleep(self.options.idle);
        let after = self.site.used();
        let foreign = foreign.cores(after.all);
        let seconds = self.options.idle.as_secs_f64();
        let control = (after.control - before.control).as_secs_f64() / seconds;
        let engine = (after.engine - before.engine).as_secs_f64() / seconds;
        self.figure("idle: control plane CPU", control, "cores", Some(IDLE_CORES), foreign);
        self.figure("idle: Envoy CPU", engine, "cores", None, foreign);
    }

    fn changes(&mut self, name: &str, p50: f64, change: fn(&mut Self, usize) -> Duration) {
        if !name.contains(&self.options.only) {
            return;
        }
        let Repeats { latency, control, engine, foreign } = self.repeat(change);
        for (label, share, goal) in [
            ("p50", 0.5, Some(p50)),
            ("p90", 0.9, None),
            ("p99", 0.99, Some(SERVED_P99_MS)),
            ("max", 1.0, None),
        ] {
            self.figure(&format!("{name}: served, {label}"), latency.quantile_ms(share), "ms", goal, foreign);
        }
        let cpu = format!("{name}: control plane CPU");
        self.figure(&format!("{cpu}, p50"), control.quantile_ms(0.5), "ms", Some(CPU_MS), foreign);
        self.figure(&format!("{cpu}, mean"), control.mean_ms(), "ms", None, foreign);
        self.figure(&format!("{name}: Envoy CPU, p50"), engine.quantile_ms(0.5), "ms", None, foreign);
    }

    /// The first repeat warms up and does not count.
    fn repeat(&mut self, change: fn(&mut Self, usize) -> Duration) -> Repeats {
        let (mut latency, mut control, mut engine) = (Vec::new(), Vec::new(), Vec::new());
        let mut others = 0.0;
        self.site.quiet(self.options.foreign_max);
        for repeat in 0..=self.options.reps {
            self.random = next(self.random);
            sleep(Duration::from_millis(self.random % PAUSE_MAX_MS));
            let before = self.site.used();
            let foreign = Foreign::start(before.all);
            let took = change(self, repeat);
            // What a change costs may come behind its answer.
            self.site.quiet(self.options.foreign_max);
            let after = self.site.used();
            if repeat > 0 {
                latency.push(took);
                control.push(after.control - before.control);
                engine.push(after.engine - before.engine);
                others += foreign.cores(after.all);
            }
        }
        #[expect(clippy::cast_precision_loss)]
        let foreign = others / self.options.reps as f64;
        let [latency, control, engine] = [latency, control, engine].map(Spread::of);
        Repeats { latency, control, engine, foreign }
    }

    fn new_host(&mut self, _: usize) -> Duration {
        let number = self.hosts;
        self.hosts += 1;
        if let Some((tls, leaves)) = &mut self.tls {
            let leaf = tls.leaf(&host(number));
            let text = manifests::ingress(number, "svc-a", &[], true) + &manifests::secret(number, &leaf);
            let at = self.site.put(&host_file(number), &text);
            let took = handshakes(tls, self.site.https(), &host(number), at, &leaf);
            leaves.push(leaf);
            return took;
        }
        let text = manifests::ingress(number, "svc-a", &[], false);
        self.run(Step { file: host_file(number), text, wanted: vec![(host(number), "/", "a")] })
    }

    fn edited_backend(&mut self, repeat: usize) -> Duration {
        let number = repeat % self.n;
        let text = manifests::ingress(number, "svc-b", &[], false) + &self.rest(number);
        self.run(Step { file: host_file(number), text, wanted: vec![(host(number), "/", "b")] })
    }

    fn edited_path(&mut self, repeat: usize) -> Duration {
        let number = self.n - 1 - repeat % self.n;
        let own = own_service(self.options, number);
        let service = own.as_deref().unwrap_or("svc-a");
        let text = manifests::ingress(number, service, &[("/cart", "svc-b")], false) + &self.rest(number);
        self.run(Step { file: host_file(number), text, wanted: vec![(host(number), "/cart", "b")] })
    }

    /// The Service of a host's file, which stays as it is.
    fn rest(&self, number: usize) -> String {
        own_service(self.options, number).map_or_else(String::new, |own| {
            format!("---\n{}", manifests::service(&own, 0, self.site.ports.backend))
        })
    }

    /// Moves the endpoint of svc-a to the other backend and back. Hosts whose
    /// backend was not edited show it: three of them.
    fn endpoint(&mut self, repeat: usize) -> Duration {
        let at = (repeat + 1) % 2;
        let text = manifests::service("svc-a", at, self.site.ports.backend);
        // New hosts are on svc-a, whatever the others are on.
        let numbers: Vec<usize> =
            if self.hosts > self.n { (self.n..self.hosts).collect() } else { (40..self.n).collect() };
        let numbers = [numbers[0], numbers[numbers.len() / 2], numbers[numbers.len() - 1]];
        let wanted = numbers.map(|number| (host(number), "/", BACKENDS[at].0)).to_vec();
        self.run(Step { file: "svc-a.yaml".to_owned(), text, wanted })
    }

    /// A new key and certificate for a host that was visited before.
    fn rotated(&mut self, repeat: usize) -> Duration {
        let (tls, leaves) = self.tls.as_mut().expect("only TLS hosts have certificates");
        let number = repeat % self.n;
        let (_, shown) = tls.get(self.site.https(), &host(number)).expect("the host is served");
        assert!(shown == leaves[number].der, "the old certificate is shown first");
        let leaf = tls.leaf(&host(number));
        let text = manifests::ingress(number, "svc-a", &[], true) + &manifests::secret(number, &leaf);
        let at = self.site.put(&host_file(number), &text);
        let took = handshakes(tls, self.site.https(), &host(number), at, &leaf);
        leaves[number] = leaf;
        took
    }

    fn run(&mut self, step: Step) -> Duration {
        let Step { file, text, wanted } = step;
        for (host, path, backend) in &wanted {
            let answer = self.probe.get(host, path);
            let already = answer.as_ref().is_ok_and(|answer| answer.is_from(backend));
            assert!(!already, "{host}{path} answers {backend} before the change");
        }
        let at = self.site.put(&file, &text);
        let mut shown = at;
        for (host, path, backend) in wanted {
            shown = self.wait(&host, path, backend);
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
}

/// New connections until this certificate is shown and the host answers.
fn handshakes(tls: &Authority, to: SocketAddr, host: &str, at: Instant, leaf: &Leaf) -> Duration {
    loop {
        let got: io::Result<_> = tls.get(to, host);
        if let Ok((answer, shown)) = &got
            && answer.is_from("a")
            && *shown == leaf.der
        {
            return at.elapsed();
        }
        let why = got.map(|(answer, _)| answer);
        assert!(at.elapsed() < CHANGE_MAX, "https://{host}/ does not show its certificate: {why:?}");
        sleep(POLL);
    }
}

fn leaves(tls: &Authority, n: usize) -> Vec<Leaf> {
    (0..n).map(|number| tls.leaf(&host(number))).collect()
}

fn own_service(options: &Options, number: usize) -> Option<String> {
    options.own_services.then(|| format!("own-{number:05}"))
}

/// xorshift64: pauses need no better.
fn next(mut random: u64) -> u64 {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    random
}
