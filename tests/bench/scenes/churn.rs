//! Half of all routes are edited without a pause, and other changes are timed
//! meanwhile.

use super::{Scene, edited, next, path};
use crate::harness::{
    figures::Spread,
    machine::Foreign,
    manifests::{host, host_file},
    site,
};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

pub(super) const NAME: &str = "churn";
/// Files are written in batches: a sleep is not more exact than this.
const BATCH: Duration = Duration::from_millis(10);
/// Between two changes that are timed, at random up to this.
const PAUSE_MAX_MS: u64 = 20;
/// Hosts that are asked whether all of a burst is served.
const ASKED: usize = 50;

/// Goal (issue 4).
const SERVED_P99_MS: f64 = 100.0;

impl Scene<'_> {
    pub(super) fn churn(&mut self) {
        self.endpoint_of_a_is_a();
        self.site.quiet(self.options.foreign_max);
        self.at_a_rate();
        self.site.quiet(self.options.foreign_max);
        self.at_once();
        self.memory("after churn");
    }

    /// The first half of the routes, one after the other and again, at a fixed rate.
    fn at_a_rate(&mut self) {
        let (half, rate) = (self.n / 2, self.options.churn);
        let (writer, stop) = (self.writer(half), AtomicBool::new(false));
        let (before, start) = (self.site.used(), Instant::now());
        let foreign = Foreign::start(before.all);
        let (latency, made) = thread::scope(|scope| {
            let made = scope.spawn(|| writer.put_at(rate, &stop));
            let latency = (0..self.options.probes).map(|_| self.probed(half)).collect();
            stop.store(true, Ordering::Relaxed);
            (latency, made.join().expect("files can be moved"))
        });
        let after = self.site.used();
        let (seconds, foreign) = (start.elapsed().as_secs_f64(), foreign.cores(after.all));
        self.paths += made;
        let name = format!("{NAME}, {half} routes at {rate}/s");
        #[expect(clippy::cast_precision_loss)]
        self.figure(&format!("{name}: edits made"), made as f64 / seconds, "1/s", None, foreign);
        let goals = [None, Some(SERVED_P99_MS)];
        self.latencies(&format!("{name}: probe served"), &Spread::of(latency), goals, foreign);
        for (role, took) in after.since(&before) {
            let name = format!("{name}: {} CPU", role.name());
            self.figure(&name, took.as_secs_f64() / seconds, "cores", None, foreign);
        }
    }

    /// The first half of the routes, as fast as their files can be moved into place.
    fn at_once(&mut self) {
        let half = self.n / 2;
        let (mut written, mut served, mut probes) = (Vec::new(), Vec::new(), Vec::new());
        let before = self.site.used();
        let foreign = Foreign::start(before.all);
        for _ in 0..self.options.rounds {
            let writer = self.writer(half);
            (0..half).for_each(|k| writer.stage(k));
            let start = Instant::now();
            let wrote = thread::scope(|scope| {
                let moved = scope.spawn(|| {
                    (0..half).for_each(|k| writer.put(k));
                    start.elapsed()
                });
                // Once at least, in their midst.
                probes.push(self.probed(half));
                while !moved.is_finished() {
                    probes.push(self.probed(half));
                }
                moved.join().expect("files can be moved")
            });
            self.paths += half;
            let asked = (1..=ASKED.min(half)).map(|k| k * half / ASKED.min(half) - 1);
            let last = asked.map(|k| self.wait(&host(k), &path(writer.first + k), "b")).max();
            served.push(last.expect("some are asked") - start);
            written.push(wrote);
            self.site.quiet(self.options.foreign_max);
        }
        let after = self.site.used();
        let foreign = foreign.cores(after.all);
        let name = format!("{NAME}, {half} routes at once");
        let goals = [None, Some(SERVED_P99_MS)];
        self.latencies(&format!("{name}: probe served"), &Spread::of(probes), goals, foreign);
        for (what, all) in [("files in place", written), ("all served", served)] {
            let all = Spread::of(all);
            self.figure(&format!("{name}: {what}, p50"), all.quantile_ms(0.5), "ms", None, foreign);
            self.figure(&format!("{name}: {what}, max"), all.quantile_ms(1.0), "ms", None, foreign);
        }
        #[expect(clippy::cast_precision_loss)]
        let edits = (half * self.options.rounds) as f64;
        for (role, took) in after.since(&before) {
            let name = format!("{name}: {} CPU a route", role.name());
            self.figure(&name, took.as_secs_f64() * 1e3 / edits, "ms", None, foreign);
        }
    }

    /// One more path of a host that nobody else edits.
    fn probed(&mut self, half: usize) -> Duration {
        self.random = next(self.random);
        sleep(Duration::from_millis(self.random % PAUSE_MAX_MS));
        let number = half + usize::try_from(self.random).unwrap_or(0) % (self.n - half);
        let path = format!("/probe{}", self.random);
        let text = edited(self.options.own_services, number, &path, self.site.ports.backend);
        let at = self.site.folder().put(&host_file(number), &text);
        self.wait(&host(number), &path, "b") - at
    }

    /// The paths it makes count on from those made so far.
    fn writer(&self, half: usize) -> Writer {
        let ports = self.site.ports;
        let folder = self.site.folder().path().to_owned();
        Writer {
            folder,
            own_services: self.options.own_services,
            half,
            port: ports.backend,
            first: self.paths,
        }
    }
}

/// Edits the first half of the routes in turn, each time to a new path.
struct Writer {
    folder: PathBuf,
    own_services: bool,
    half: usize,
    port: u16,
    /// Number of the first path.
    first: usize,
}

impl Writer {
    /// The file of the edit of this number, written beside.
    fn stage(&self, k: usize) {
        let number = k % self.half;
        let text = edited(self.own_services, number, &path(self.first + k), self.port);
        site::stage(&self.folder, &host_file(number), &text);
    }

    fn put(&self, k: usize) {
        site::put(&self.folder, &host_file(k % self.half));
    }

    /// Gives the number of edits.
    fn put_at(&self, rate: usize, stop: &AtomicBool) -> usize {
        let (start, mut made) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let due = (start.elapsed().as_secs_f64() * rate as f64) as usize;
            for k in made..due {
                self.stage(k);
                self.put(k);
            }
            made = due;
            sleep(BATCH);
        }
        made
    }
}
