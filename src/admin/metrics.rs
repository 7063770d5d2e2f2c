//! The numbers of one scrape, as OpenMetrics text.

use crate::pipeline::Stages;
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
    },
    registry::Registry,
};
use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

/// What scrapers are told the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, &'static str)>;

/// Names without our prefix; counters without `_total`, which the text adds.
pub(super) struct Scrape(Registry);

impl Scrape {
    pub(super) fn new() -> Self {
        Self(Registry::with_prefix("tidegate"))
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.0.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, ConstCounter::new(value));
    }

    /// How long changes took.
    pub(super) fn changes(&mut self, stages: Stages) {
        let help = "From the first event of a change until every engine took it, by stage";
        self.0.register("change_seconds", help, stages);
    }

    /// What units of the compile cost: kind, runs, time.
    pub(super) fn units(&mut self, costs: impl Iterator<Item = (&'static str, u64, Duration)>) {
        let runs: Family<Labels, Counter> = Family::default();
        let seconds: Family<Labels, Counter<f64, AtomicU64>> = Family::default();
        for (kind, count, time) in costs {
            let labels = vec![("kind", kind)];
            runs.get_or_create(&labels).inc_by(count);
            seconds.get_or_create(&labels).inc_by(time.as_secs_f64());
        }
        self.0.register("compile_units", "Units run since the start, by kind", runs);
        self.0.register("compile_seconds", "Time that units ran since the start, by kind", seconds);
    }

    /// The counters of the DNS server, by their own names and labels.
    pub(super) fn dns(&mut self, samples: Vec<crate::dns::Sample>) {
        let mut families: BTreeMap<&str, Family<Labels, Counter>> = BTreeMap::new();
        for crate::dns::Sample { name, label, value } in samples {
            let name = name.trim_start_matches("tidegate_").trim_end_matches("_total");
            let labels: Labels = label.into_iter().collect();
            families.entry(name).or_default().get_or_create(&labels).inc_by(value);
        }
        for (name, family) in families {
            self.0.register(name, "Of the DNS server, since the start", family);
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a string takes everything");
        text
    }
}
