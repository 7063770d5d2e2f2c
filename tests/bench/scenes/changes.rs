//! One change at a time, on a site that is quiet before and after.

use super::{BACKENDS, CHANGE_MAX, POLL, Scene, Step, edited, next, rest};
use crate::harness::{
    figures::Spread,
    machine::Foreign,
    manifests::{self, host, host_file},
    processes::Role,
    site::Site,
    tls::{Authority, Leaf},
};
use std::{
    io,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

pub(super) const NEW_HOST: &str = "new host";
pub(super) const EDITED_BACKEND: &str = "edited backend";
pub(super) const EDITED_PATH: &str = "edited path";
pub(super) const ENDPOINT: &str = "endpoint change";
pub(super) const NEW_TLS_HOST: &str = "new TLS host";
pub(super) const ROTATED: &str = "rotated certificate";

/// Before each repeat, at random up to this: no beat with timers of the site.
const PAUSE_MAX_MS: u64 = 100;

/// Goals (issue 4).
const SERVED_P50_MS: f64 = 5.0;
const SERVED_P99_MS: f64 = 25.0;
const ENDPOINT_P50_MS: f64 = 3.0;
const CPU_MS: f64 = 1.0;

impl Scene<'_> {
    pub(super) fn new_hosts(&mut self) {
        self.changes(NEW_HOST, SERVED_P50_MS, Self::new_host);
    }

    pub(super) fn edited_backends(&mut self) {
        self.changes(EDITED_BACKEND, SERVED_P50_MS, Self::edited_backend);
    }

    pub(super) fn edited_paths(&mut self) {
        self.changes(EDITED_PATH, SERVED_P50_MS, Self::edited_path);
    }

    pub(super) fn endpoints(&mut self) {
        self.changes(ENDPOINT, ENDPOINT_P50_MS, Self::endpoint);
        self.endpoint_of_a_is_a();
    }

    pub(super) fn new_tls_hosts(&mut self) {
        self.changes(NEW_TLS_HOST, SERVED_P50_MS, Self::new_tls_host);
    }

    pub(super) fn rotated_certificates(&mut self) {
        self.changes(ROTATED, SERVED_P50_MS, Self::rotated);
    }

    /// The first repeat warms up and does not count.
    fn changes(&mut self, name: &str, p50: f64, change: fn(&mut Self, usize) -> Duration) {
        let mut latency = Vec::new();
        let mut cpu: Vec<(Role, Vec<Duration>)> = Role::ALL.map(|role| (role, Vec::new())).into();
        let mut others = 0.0;
        let mut stages = Stages::default();
        self.site.quiet(self.options.foreign_max);
        for repeat in 0..=self.options.reps {
            self.random = next(self.random);
            sleep(Duration::from_millis(self.random % PAUSE_MAX_MS));
            if repeat == 1 {
                stages = Stages::read(&mut self.site);
            }
            let before = self.site.used();
            let foreign = Foreign::start(before.all);
            let took = change(self, repeat);
            // What a change costs may come behind its answer.
            self.site.quiet(self.options.foreign_max);
            let after = self.site.used();
            if repeat > 0 {
                latency.push(took);
                for (role, took) in after.since(&before) {
                    cpu.iter_mut().filter(|(is, _)| *is == role).for_each(|(_, all)| all.push(took));
                }
                others += foreign.cores(after.all);
            }
        }
        #[expect(clippy::cast_precision_loss)]
        let foreign = others / self.options.reps as f64;
        let goals = [Some(p50), Some(SERVED_P99_MS)];
        self.latencies(&format!("{name}: served"), &Spread::of(latency), goals, foreign);
        for (stage, mean) in Stages::read(&mut self.site).means_since(&stages) {
            self.figure(&format!("{name}: {stage}, mean"), mean, "ms", None, foreign);
        }
        for (role, all) in cpu.into_iter().filter(|(_, all)| !all.is_empty()) {
            let (all, of) = (Spread::of(all), format!("{name}: {} CPU", role.name()));
            let goal = (role == Role::ControlPlane).then_some(CPU_MS);
            self.figure(&format!("{of}, p50"), all.quantile_ms(0.5), "ms", goal, foreign);
            // The periodic look at all files shows here alone.
            if role == Role::ControlPlane {
                self.figure(&format!("{of}, mean"), all.mean_ms(), "ms", None, foreign);
            }
        }
    }

    fn new_host(&mut self, _: usize) -> Duration {
        let number = self.hosts;
        self.hosts += 1;
        let text = manifests::ingress(number, "svc-a", &[], false);
        self.run(Step { file: host_file(number), text, wanted: vec![(host(number), "/".to_owned(), "a")] })
    }

    fn new_tls_host(&mut self, _: usize) -> Duration {
        let (tls, leaves) = self.tls.as_mut().expect("only TLS hosts have certificates");
        let number = self.hosts;
        self.hosts += 1;
        let leaf = tls.leaf(&host(number));
        let text = manifests::ingress(number, "svc-a", &[], true) + &manifests::secret(number, &leaf);
        let at = self.site.folder().put(&host_file(number), &text);
        let took = handshakes(tls, self.site.https(), &host(number), at, &leaf);
        leaves.push(leaf);
        took
    }

    fn edited_backend(&mut self, repeat: usize) -> Duration {
        let number = repeat % self.n;
        let rest = rest(self.options.own_services, number, self.site.ports.backend);
        let text = manifests::ingress(number, "svc-b", &[], false) + &rest;
        self.run(Step { file: host_file(number), text, wanted: vec![(host(number), "/".to_owned(), "b")] })
    }

    fn edited_path(&mut self, repeat: usize) -> Duration {
        let number = self.n - 1 - repeat % self.n;
        let text = edited(self.options.own_services, number, "/cart", self.site.ports.backend);
        let wanted = vec![(host(number), "/cart".to_owned(), "b")];
        self.run(Step { file: host_file(number), text, wanted })
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
        let wanted = numbers.map(|number| (host(number), "/".to_owned(), BACKENDS[at].0)).to_vec();
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
        let at = self.site.folder().put(&host_file(number), &text);
        let took = handshakes(tls, self.site.https(), &host(number), at, &leaf);
        leaves[number] = leaf;
        took
    }
}

/// Where changes spent their time, as `/metrics` sums it up: how often, and seconds.
#[derive(Default)]
struct Stages(Vec<(f64, f64)>);

/// Labels of stages, and their words here.
const STAGES: [(&str, &str); 6] = [
    ("notice", "noticed to taken"),
    ("compile", "compile"),
    ("ledger", "ledger"),
    ("publish", "publish"),
    ("sync", "published to in sync"),
    ("total", "noticed to in sync"),
];

impl Stages {
    fn read(site: &mut Site) -> Self {
        let text = site.ask_text("/metrics");
        let value = |what: &str, label: &str| -> f64 {
            let name = format!("tidegate_change_seconds_{what}{{stage=\"{label}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
        };
        Self(STAGES.iter().map(|(label, _)| (value("count", label), value("sum", label))).collect())
    }

    /// Milliseconds of each stage that was passed since.
    fn means_since(self, before: &Self) -> Vec<(&'static str, f64)> {
        let of = STAGES.iter().zip(self.0).zip(&before.0);
        let means =
            of.map(|(((_, word), now), before)| (*word, (now.1 - before.1) * 1e3 / (now.0 - before.0)));
        means.filter(|(_, mean)| mean.is_finite()).collect()
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
