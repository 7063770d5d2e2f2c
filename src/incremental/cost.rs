//! What the runs of units cost, by their kind.
//!
//! The clock is read where the kind changes, not twice a unit: what runs one after
//! another of one kind shares a reading. A unit made because another one asked for
//! it counts as its own kind, not as the asker's.

use std::time::Duration;

/// Of one kind, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    pub runs: u64,
    /// With what it takes to record a run and to wake its readers.
    pub time: Duration,
}

pub(super) struct Costs {
    kinds: Box<[Cost]>,
    /// The kind that runs, and since when.
    running: Option<usize>,
    since: Duration,
}

impl Costs {
    pub(super) fn new(kinds: usize) -> Self {
        Self { kinds: vec![Cost::default(); kinds].into(), running: None, since: Duration::ZERO }
    }

    pub(super) fn kinds(&self) -> &[Cost] {
        &self.kinds
    }

    pub(super) fn running(&self) -> Option<usize> {
        self.running
    }

    pub(super) fn count(&mut self, kind: usize) {
        self.kinds[kind].runs += 1;
    }

    /// From now on this kind runs, or none.
    pub(super) fn turn(&mut self, to: Option<usize>, now: impl FnOnce() -> Duration) {
        if self.running == to {
            return;
        }
        let now = now();
        if let Some(kind) = self.running {
            self.kinds[kind].time += now.saturating_sub(self.since);
        }
        (self.running, self.since) = (to, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_of_the_kind_that_runs_and_read_where_that_changes() {
        let mut costs = Costs::new(2);
        let readings = std::cell::Cell::new(0);
        let at = |ms| {
            let readings = &readings;
            move || {
                readings.set(readings.get() + 1);
                Duration::from_millis(ms)
            }
        };
        costs.turn(Some(0), at(10));
        costs.turn(Some(0), at(11));
        // It asks for one of the other kind, and goes on.
        costs.turn(Some(1), at(13));
        costs.turn(Some(0), at(18));
        costs.turn(None, at(19));
        costs.turn(Some(1), at(100));
        costs.turn(None, at(107));
        let times: Vec<_> = costs.kinds().iter().map(|cost| cost.time.as_millis()).collect();
        assert_eq!((times, readings.get()), (vec![4, 12], 6));
    }
}
