//! Where a change spent its time: what `/metrics` and the log say of it.

use crate::support::live::{How, Ingress, Live, Service, State, manifest::class};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Values of a metric, by its one label.
fn labelled(live: &Live, name: &str) -> BTreeMap<String, f64> {
    let text = String::from_utf8(live.admin_get("/metrics").body).expect("text");
    let of_line = |line: &str| {
        let (label, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
        let label = label.split('"').nth(1)?;
        Some((label.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(of_line).collect()
}

const STAGES: &str = "tidegate_change_seconds_count";
const UNITS: &str = "tidegate_compile_units_total";
const SECONDS: &str = "tidegate_compile_seconds_total";

/// Stages and kinds of units that this was counted for, and how often.
struct Counted {
    stages: BTreeMap<String, f64>,
    units: BTreeMap<String, f64>,
    seconds: BTreeMap<String, f64>,
}

impl Counted {
    /// When no change is under way, and so many are over.
    fn quiet(live: &Live, changes: f64) -> Self {
        let stages = live.eventually("the change is over", || {
            let stages = labelled(live, STAGES);
            let over = stages.get("total") == stages.get("notice");
            let enough = stages.get("total").is_some_and(|total| *total >= changes);
            if over && enough { Ok(stages) } else { Err(format!("{stages:?}")) }
        });
        Self { stages, units: labelled(live, UNITS), seconds: labelled(live, SECONDS) }
    }

    /// What has come since.
    fn after(&self, live: &Live, act: impl FnOnce()) -> Self {
        act();
        let now = Self::quiet(live, self.stages["total"] + 1.0);
        let since = |now: BTreeMap<String, f64>, before: &BTreeMap<String, f64>| {
            let more = now.into_iter().map(|(label, value)| {
                let before = before.get(&label).copied().unwrap_or_default();
                (label, value - before)
            });
            more.filter(|(_, more)| *more > 0.0).collect()
        };
        Self {
            stages: since(now.stages, &self.stages),
            units: since(now.units, &self.units),
            seconds: since(now.seconds, &self.seconds),
        }
    }
}

/// Of each label one.
fn once(labels: &[&str]) -> BTreeMap<String, f64> {
    labels.iter().map(|label| ((*label).to_owned(), 1.0)).collect()
}

#[test]
fn a_change_is_counted_in_each_stage_and_in_the_units_it_runs() {
    let mut service = Service::new("shop", "any");
    let ingress = |name: &str| -> Value {
        let host = format!("{name}.live.test");
        Ingress::new("shop", name, "live").prefix(&host, "/", "any").into()
    };
    let mut objects = class("live", &json!({})).to_vec();
    objects.push(ingress("one"));
    let mut how = How::engines(1);
    how.environment = vec![("TIDEGATE_LOG".to_owned(), "info,tidegate::pipeline=debug".to_owned())];
    let live = Live::start_as(how, &objects);
    live.apply("any", &service.manifests());
    live.programmed("Ingress/shop/one");
    let before = Counted::quiet(&live, 1.0);
    assert!(before.stages["ledger"] >= 1.0, "its address was written: {:?}", before.stages);

    service.backends[0].1 = State::NotReady;
    let seen = before.after(&live, || live.apply("any", &service.manifests()));
    assert_eq!(seen.stages, once(&["notice", "compile", "publish", "sync", "total"]));
    assert_eq!(seen.units, once(&["endpoints"]));
    assert_eq!(seen.seconds.into_keys().collect::<Vec<_>>(), ["endpoints"]);

    let before = Counted::quiet(&live, 1.0);
    let seen = before.after(&live, || live.apply("two", &[ingress("two")]));
    assert_eq!(seen.stages, once(&["notice", "compile", "publish", "sync", "total"]));
    let ran = ["attachment", "host", "owner", "records"];
    assert!(ran.iter().all(|kind| seen.units.contains_key(*kind)), "{:?}", seen.units);
    assert!(!seen.units.contains_key("endpoints"), "{:?}", seen.units);
    assert_eq!(seen.units.into_keys().collect::<Vec<_>>(), seen.seconds.into_keys().collect::<Vec<_>>());

    let log = live.log();
    let lines = log.lines().filter(|line| line.contains("A change is done")).collect::<Vec<_>>();
    let last = lines.last().expect("a change has a line");
    for field in ["objects=1", "resources=", "notice=", "compile=", "publish=", "sync=", "total="] {
        assert!(last.contains(field), "no {field} in {last}");
    }
}
