//! A site over time: nothing changes, or a little all the time.

use super::Scene;
use crate::harness::{
    machine::Foreign,
    manifests::{host, host_file},
    processes::Role,
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

pub(super) const IDLE: &str = "idle";
pub(super) const CHANGES: &str = "10 changes/s";
/// Of [`CHANGES`].
const INTERVAL: Duration = Duration::from_millis(100);

/// Goal (issue 4).
const IDLE_CORES: f64 = 0.02;

impl Scene<'_> {
    pub(super) fn idle(&mut self) {
        self.site.quiet(f64::INFINITY);
        self.over_time(IDLE, Some(IDLE_CORES), |_| sleep(Duration::from_millis(100)));
        self.memory("at the end");
    }

    /// Routes edited in turn, ten a second, nobody asking for them.
    pub(super) fn steady_changes(&mut self) {
        self.endpoint_of_a_is_a();
        self.site.quiet(f64::INFINITY);
        let (start, mut made) = (Instant::now(), 0);
        let mut last = None;
        self.over_time(CHANGES, None, |scene| {
            let number = made as usize % scene.n;
            let (path, text) = scene.with_new_path(number);
            scene.site.folder().put(&host_file(number), &text);
            last = Some((number, path));
            made += 1;
            sleep((start + INTERVAL * made).saturating_duration_since(Instant::now()));
        });
        self.memory(&format!("under {CHANGES}"));
        let (number, path) = last.expect("there was time for one");
        self.wait(&host(number), &path, "b");
    }

    /// Does this again and again for as long as the options say; the cores it took.
    fn over_time(&mut self, name: &str, goal: Option<f64>, mut act: impl FnMut(&mut Self)) {
        let before = self.site.used();
        let (foreign, start) = (Foreign::start(before.all), Instant::now());
        while start.elapsed() < self.options.idle {
            act(self);
        }
        let after = self.site.used();
        let (seconds, foreign) = (start.elapsed().as_secs_f64(), foreign.cores(after.all));
        for (role, took) in after.since(&before) {
            let goal = goal.filter(|_| role == Role::ControlPlane);
            let name = format!("{name}: {} CPU", role.name());
            self.figure(&name, took.as_secs_f64() / seconds, "cores", goal, foreign);
        }
    }
}
