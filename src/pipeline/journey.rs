//! How long changes take, stage by stage: from the first word of one until the last
//! engine has taken it. Every instant is given.

use prometheus_client::metrics::{
    family::Family,
    histogram::{Histogram, exponential_buckets},
};
use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant},
};
use tracing::{Span, debug_span, field::Empty};

/// Seconds of each stage; the label is its name.
pub type Stages = Family<[(&'static str, &'static str); 1], Histogram>;

/// Names of stages: labels of the metric, and fields of the span (microseconds).
const NOTICE: &str = "notice";
const COMPILE: &str = "compile";
const LEDGER: &str = "ledger";
const PUBLISH: &str = "publish";
const SYNC: &str = "sync";
const TOTAL: &str = "total";

/// Changes that wait for engines at a time. More are counted with the last of these.
const UNDER_WAY_MAX: usize = 64;

/// All changes: the one in hand, and those that engines have not all taken.
pub(super) struct Journeys {
    stages: Stages,
    in_hand: Option<Journey>,
    /// In the order of their epochs.
    under_way: VecDeque<Journey>,
}

struct Journey {
    span: Span,
    noticed: Instant,
    /// When the last stage that is over ended.
    reached: Instant,
    /// Of the compile, spent on the ledger.
    ledger: Option<Duration>,
    awaited: Awaited,
}

/// Whose word is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) epoch: u64,
    /// The streams there were; those before the first of them have it.
    pub(super) streams: Range<u64>,
}

impl Journeys {
    pub(super) fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(50e-6, 2.0, 18));
        Self { stages: Family::new_with_constructor(histogram), in_hand: None, under_way: VecDeque::new() }
    }

    pub(super) fn stages(&self) -> &Stages {
        &self.stages
    }

    /// A change of so many objects was taken in hand. Gives its span.
    pub(super) fn begin(&mut self, noticed: Instant, taken: Instant, batches: usize, objects: usize) -> Span {
        let span = debug_span!(
            "change",
            batches,
            objects,
            resources = Empty,
            notice = Empty,
            compile = Empty,
            ledger = Empty,
            publish = Empty,
            sync = Empty,
            total = Empty,
        );
        let awaited = Awaited::default();
        let mut journey = Journey { span: span.clone(), noticed, reached: noticed, ledger: None, awaited };
        journey.reach(&self.stages, NOTICE, taken);
        self.in_hand = Some(journey);
        span
    }

    /// The ledger was written for it.
    pub(super) fn wrote(&mut self, took: Duration) {
        if let Some(journey) = &mut self.in_hand {
            *journey.ledger.get_or_insert_default() += took;
        }
    }

    /// Nothing is left to compute or to write.
    pub(super) fn compiled(&mut self, at: Instant) {
        let Self { stages, in_hand: Some(journey), .. } = self else { return };
        let ledger = journey.ledger.unwrap_or_default();
        journey.observe(
            stages,
            COMPILE,
            at.saturating_duration_since(journey.reached).saturating_sub(ledger),
        );
        if journey.ledger.is_some() {
            journey.observe(stages, LEDGER, ledger);
        }
        journey.reached = at;
    }

    /// It was sent out, so many resources of it to engines.
    pub(super) fn published(&mut self, at: Instant, resources: usize, awaited: Option<Awaited>) {
        let Some(mut journey) = self.in_hand.take() else { return };
        journey.reach(&self.stages, PUBLISH, at);
        journey.span.record("resources", resources);
        match (awaited, self.under_way.len() < UNDER_WAY_MAX, self.under_way.back_mut()) {
            (None, ..) => journey.end(&self.stages),
            (Some(awaited), false, Some(last)) => {
                last.awaited.epoch = awaited.epoch;
                last.awaited.streams.end = awaited.streams.end;
            }
            (Some(awaited), ..) => self.under_way.push_back(Journey { awaited, ..journey }),
        }
    }

    /// It changed nothing outside.
    pub(super) fn rested(&mut self) {
        if let Some(journey) = self.in_hand.take() {
            journey.end(&self.stages);
        }
    }

    /// An engine has moved on. `behind` gives the first stream that still lacks it;
    /// it is asked once, and once more for each change that is over.
    pub(super) fn moved(&mut self, at: Instant, behind: impl Fn(&Awaited) -> Option<u64>) {
        while let Some(mut journey) = self.under_way.pop_front() {
            if let Some(stream) = behind(&journey.awaited) {
                journey.awaited.streams.start = stream;
                self.under_way.push_front(journey);
                return;
            }
            journey.reach(&self.stages, SYNC, at);
            journey.end(&self.stages);
        }
    }
}

impl Journey {
    /// A stage ends now; the next begins.
    fn reach(&mut self, stages: &Stages, stage: &'static str, at: Instant) {
        self.observe(stages, stage, at.saturating_duration_since(self.reached));
        self.reached = at;
    }

    fn observe(&self, stages: &Stages, stage: &'static str, took: Duration) {
        stages.get_or_create(&[("stage", stage)]).observe(took.as_secs_f64());
        self.span.record(stage, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn end(self, stages: &Stages) {
        self.observe(stages, TOTAL, self.reached.saturating_duration_since(self.noticed));
        tracing::debug!(parent: &self.span, "A change is done; its stages took so many microseconds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use prometheus_client::{encoding::text::encode, registry::Registry};

    const ALL: [&str; 6] = [NOTICE, COMPILE, LEDGER, PUBLISH, SYNC, TOTAL];

    /// How often each stage was counted, and all its milliseconds.
    fn counted(journeys: &Journeys) -> [(f64, f64); 6] {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("took", "", journeys.stages.clone());
        encode(&mut text, &registry).expect("a string takes everything");
        let value = |name: &str, stage: &str| -> f64 {
            let name = format!("took_{name}{{stage=\"{stage}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
            value.unwrap_or_default()
        };
        ALL.map(|stage| (value("count", stage), (value("sum", stage) * 1e3).round()))
    }

    fn awaited(epoch: u64, streams: Range<u64>) -> Option<Awaited> {
        Some(Awaited { epoch, streams })
    }

    #[test]
    fn a_change_is_followed_to_the_last_engine() {
        let (mut journeys, start) = (Journeys::new(), clock::instant());
        let at = |ms| start + Duration::from_millis(ms);
        let _ = journeys.begin(at(0), at(2), 1, 1);
        journeys.wrote(Duration::from_millis(10));
        journeys.wrote(Duration::from_millis(1));
        journeys.compiled(at(18));
        journeys.published(at(19), 4, awaited(7, 1..4));
        journeys.moved(at(30), |wait| (*wait == Awaited { epoch: 7, streams: 1..4 }).then_some(3));
        assert_eq!(
            counted(&journeys),
            [(1.0, 2.0), (1.0, 5.0), (1.0, 11.0), (1.0, 1.0), (0.0, 0.0), (0.0, 0.0)]
        );
        // Those before the one that lacked it are not asked again.
        journeys.moved(at(49), |wait| (wait.streams != (3..4)).then_some(1));
        assert_eq!(
            counted(&journeys),
            [(1.0, 2.0), (1.0, 5.0), (1.0, 11.0), (1.0, 1.0), (1.0, 30.0), (1.0, 49.0)]
        );
        journeys.moved(at(60), |_| panic!("nothing is under way"));
    }

    #[test]
    fn what_no_engine_waits_for_ends_here() {
        let (mut journeys, start) = (Journeys::new(), clock::instant());
        let at = |ms| start + Duration::from_millis(ms);
        let _ = journeys.begin(at(0), at(2), 1, 1);
        journeys.compiled(at(5));
        journeys.rested();
        let _ = journeys.begin(at(10), at(11), 1, 1);
        journeys.compiled(at(12));
        journeys.published(at(14), 0, None);
        // A plan whose time has come is no change of the world.
        journeys.compiled(at(90));
        journeys.published(at(99), 1, awaited(1, 0..1));
        assert_eq!(
            counted(&journeys),
            [(2.0, 3.0), (2.0, 4.0), (0.0, 0.0), (1.0, 2.0), (0.0, 0.0), (2.0, 9.0)]
        );
    }

    #[test]
    fn changes_beyond_the_bound_are_counted_with_the_last() {
        let (mut journeys, now) = (Journeys::new(), clock::instant());
        for epoch in 1..=100 {
            let _ = journeys.begin(now, now, 1, 1);
            journeys.compiled(now);
            journeys.published(now, 1, awaited(epoch, 0..epoch));
        }
        assert_eq!(journeys.under_way.len(), UNDER_WAY_MAX);
        journeys.moved(now, |wait| (wait.epoch > 63).then_some(0));
        let last: Vec<_> = journeys.under_way.iter().map(|journey| journey.awaited.clone()).collect();
        assert_eq!(last, [Awaited { epoch: 100, streams: 0..100 }]);
        journeys.moved(now, |_| None);
        assert_eq!(counted(&journeys).map(|(count, _)| count), [100.0, 100.0, 0.0, 100.0, 64.0, 64.0]);
    }
}
