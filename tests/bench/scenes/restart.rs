//! The control plane killed and started again while Envoy serves on.

use super::{CHANGE_MAX, POLL, Scene};
use crate::harness::{
    figures::Spread,
    machine::Foreign,
    manifests::{self, host, host_file},
    processes::Role,
    site::Readiness,
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

pub(super) const NAME: &str = "restart";
/// How often readiness is asked for: 20 ms would be a part of what is measured.
const READY_POLL: Duration = Duration::from_millis(4);

/// Goals (issue 4).
const SYNCED_S: f64 = 1.0;
const SERVED_S: f64 = 1.0;
const SENT: f64 = 0.0;

/// What one restart took, from just before exec.
struct Restart {
    listens: Duration,
    read: Duration,
    synced: Duration,
    /// CPU of the control plane, quiet after it included.
    cpu: Duration,
    served: Option<Duration>,
    /// Resources sent to the engine.
    sent: f64,
    /// Requests of hosts that were there before, which failed meanwhile.
    failed: usize,
}

impl Scene<'_> {
    pub(super) fn restarts(&mut self) {
        self.endpoint_of_a_is_a();
        let foreign = Foreign::start(self.site.used().all);
        let (mut same, mut new) = (Vec::new(), Vec::new());
        for _ in 0..self.options.rounds {
            same.push(self.restart(false));
            new.push(self.restart(true));
        }
        let used = self.site.used();
        let foreign = foreign.cores(used.all);
        let sent = same.iter().map(|restart| restart.sent).fold(0.0, f64::max);
        let all: Vec<Restart> = same.into_iter().chain(new).collect();
        let failed: usize = all.iter().map(|restart| restart.failed).sum();
        let took = |time: fn(&Restart) -> Option<Duration>| Spread::of(all.iter().filter_map(time).collect());
        for (what, spread, goal) in [
            ("listens", took(|restart| Some(restart.listens)), None),
            ("all files read", took(|restart| Some(restart.read)), None),
            ("last engine in sync", took(|restart| Some(restart.synced)), Some(SYNCED_S)),
            ("a new object served", took(|restart| restart.served), Some(SERVED_S)),
            ("control plane CPU", took(|restart| Some(restart.cpu)), None),
        ] {
            let name = format!("{NAME}: {what}");
            self.figure(&format!("{name}, p50"), spread.quantile_ms(0.5) / 1e3, "s", goal, foreign);
            self.figure(&format!("{name}, max"), spread.quantile_ms(1.0) / 1e3, "s", None, foreign);
        }
        self.figure(&format!("{NAME}: resources sent again, max"), sent, "", Some(SENT), foreign);
        #[expect(clippy::cast_precision_loss)]
        self.figure(&format!("{NAME}: requests that failed"), failed as f64, "", Some(0.0), foreign);
        self.memory(&format!("after {NAME}"));
    }

    /// With a new host whose file is written just before exec, or without.
    fn restart(&mut self, with_new: bool) -> Restart {
        self.site.quiet(self.options.foreign_max);
        let envoy = self.site.pid(Role::Envoy);
        let new = with_new.then(|| {
            let number = self.hosts;
            self.hosts += 1;
            number
        });
        self.site.crash();
        if let Some(number) = new {
            let text = manifests::ingress(number, "svc-a", &[], false);
            self.site.folder().put(&host_file(number), &text);
        }
        self.site.start_again();
        let listens = self.site.started.elapsed();
        let (mut read, mut synced, mut served, mut failed) = (None, None, None, 0);
        let mut asked = Instant::now();
        while synced.is_none() || (new.is_some() && served.is_none()) {
            if !self.probe.get(&host(self.n / 2), "/").is_ok_and(|answer| answer.is_from("a")) {
                failed += 1;
            }
            if let Some(number) = new.filter(|_| served.is_none())
                && self.probe.get(&host(number), "/").is_ok_and(|answer| answer.is_from("a"))
            {
                served = Some(self.site.started.elapsed());
            }
            if synced.is_none() && asked.elapsed() > READY_POLL {
                let readiness = self.site.readiness();
                asked = Instant::now();
                let now = self.site.started.elapsed();
                read = read.or((readiness >= Some(Readiness::Read)).then_some(now));
                synced = (readiness == Some(Readiness::Synced)).then_some(now);
            }
            assert!(self.site.started.elapsed() < CHANGE_MAX, "synced: {synced:?}, served: {served:?}");
            sleep(POLL);
        }
        self.site.find_processes();
        assert!(self.site.pid(Role::Envoy) == envoy, "the same Envoy serves on");
        self.site.quiet(f64::INFINITY);
        let cpu = self.site.used().of(Role::ControlPlane).expect("it runs");
        let (read, synced) = read.zip(synced).expect("the loop waited for them");
        let sent = self.site.sent();
        assert!(sent > 0.0 || !with_new, "what is new was sent, and counts");
        Restart { listens, read, synced, cpu, served, sent, failed }
    }
}
