//! Figures, and how they are shown: JSON lines, a table, BENCHMARKS.md.

use crate::machine;
use std::{fmt::Write, fs, path::Path, time::Duration};

/// One figure. Lower is better in all of them.
#[derive(Debug, Clone)]
pub struct Figure {
    pub name: String,
    /// Hosts.
    pub n: usize,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Option<f64>,
    /// Cores that others took meanwhile, on average.
    pub foreign: f64,
    pub load: f64,
}

impl Figure {
    pub fn new(name: impl Into<String>, n: usize, value: f64, unit: &'static str) -> Self {
        let load = machine::load();
        Self { name: name.into(), n, value, unit, goal: None, foreign: f64::NAN, load }
    }

    pub fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }

    pub fn foreign(self, foreign: f64) -> Self {
        Self { foreign, ..self }
    }

    pub fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.value <= goal)
    }

    pub fn json(&self) -> String {
        let Self { name, n, value, unit, goal, foreign, load } = self;
        serde_json::json!({
            "name": name, "n": n, "value": round(*value), "unit": unit, "goal": goal, "met": self.met(),
            "foreign_cores": round(*foreign), "load1": load,
        })
        .to_string()
    }
}

/// Four digits that count.
fn round(value: f64) -> Option<f64> {
    value.is_finite().then(|| format!("{value:.3e}").parse().expect("what was just printed"))
}

/// Latencies of repeats.
pub struct Spread(Vec<Duration>);

impl Spread {
    pub fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// The least value that this share of the repeats does not exceed.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }

    pub fn mean_ms(&self) -> f64 {
        #[expect(clippy::cast_precision_loss)]
        let count = self.0.len() as f64;
        self.0.iter().sum::<Duration>().as_secs_f64() * 1e3 / count
    }
}

/// One line a name, one column a size.
pub fn table(figures: &[Figure]) -> String {
    let mut sizes: Vec<usize> = figures.iter().map(|figure| figure.n).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut names: Vec<(&str, &str)> = Vec::new();
    for figure in figures {
        if !names.contains(&(&figure.name, figure.unit)) {
            names.push((&figure.name, figure.unit));
        }
    }
    let mut text = "| figure | unit |".to_owned();
    sizes.iter().for_each(|n| write!(text, " {n} hosts |").expect("a string takes all"));
    text += " goal | met |\n|---|---|";
    text += &"---|".repeat(sizes.len() + 2);
    for (name, unit) in names {
        write!(text, "\n| {name} | {unit} |").expect("a string takes all");
        let of = |n| figures.iter().rev().find(|f| f.n == n && f.name == name && f.unit == unit);
        for n in &sizes {
            let value = of(*n).map_or_else(|| "-".to_owned(), |figure| shown(figure.value));
            write!(text, " {value} |").expect("a string takes all");
        }
        let judged = sizes.iter().rev().find_map(|n| of(*n).filter(|figure| figure.goal.is_some()));
        let (goal, met) = judged.map_or_else(Default::default, |figure| {
            let met = if figure.met() == Some(true) { "yes" } else { "**MISSED**" };
            (figure.goal.map(shown).unwrap_or_default(), met)
        });
        write!(text, " {goal} | {met} |").expect("a string takes all");
    }
    text + "\n"
}

fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Where the part that people write begins; it is kept.
const NOTES: &str = "## What limits it";

/// Writes the page; notes that stand in it stay.
pub fn write_page(path: &Path, head: &str, figures: &[Figure]) {
    let before = fs::read_to_string(path).unwrap_or_default();
    let notes = before.find(NOTES).map_or_else(|| format!("{NOTES}\n"), |at| before[at..].to_owned());
    let page = format!("{head}\n{}\n{notes}", table(figures));
    fs::write(path, page).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
