//! Figures, and how they are shown: JSON lines, a table, BENCHMARKS.md.

use crate::harness::machine;
use std::{fs, path::Path, time::Duration};

/// One figure. Lower is better wherever there is a goal.
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

    /// A line of JSON on stdout.
    pub fn print(self) -> Self {
        println!("{}", self.json());
        self
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

/// Two tables: what was measured at several sizes, a column each; and the rest.
pub fn tables(figures: &[Figure]) -> String {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for figure in figures {
        if !names.contains(&(&figure.name, figure.unit)) {
            names.push((&figure.name, figure.unit));
        }
    }
    let rows = names.into_iter().map(|(name, unit)| {
        let of = figures.iter().filter(|figure| figure.name == name && figure.unit == unit);
        of.collect::<Vec<_>>()
    });
    let (grown, single): (Vec<_>, Vec<_>) = rows.partition(|row| row.iter().any(|f| f.n != row[0].n));
    let mut sizes: Vec<usize> = grown.iter().flatten().map(|figure| figure.n).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut text = String::new();
    if !grown.is_empty() {
        let columns: Vec<_> = sizes.iter().map(|n| format!("{n} hosts")).collect();
        text += &head(&columns);
    }
    for row in grown {
        let of = |n: &usize| row.iter().rev().find(|figure| figure.n == *n);
        let values = sizes.iter().map(|n| of(n).map_or_else(|| "-".to_owned(), |f| shown(f.value)));
        let judged = row.iter().rev().find(|figure| figure.goal.is_some()).unwrap_or(&row[0]);
        text += &line(judged, values.collect());
    }
    if !single.is_empty() {
        text += "\n";
        text += &head(&["hosts".to_owned(), "value".to_owned()]);
    }
    for row in single {
        let figure = row[row.len() - 1];
        text += &line(figure, vec![figure.n.to_string(), shown(figure.value)]);
    }
    text
}

fn head(columns: &[String]) -> String {
    let rule = "---|".repeat(columns.len() + 4);
    format!("| figure | unit | {} | goal | met |\n|{rule}\n", columns.join(" | "))
}

fn line(figure: &Figure, values: Vec<String>) -> String {
    let met = match figure.met() {
        Some(true) => "yes",
        Some(false) => "**MISSED**",
        None => "",
    };
    let goal = figure.goal.map(shown).unwrap_or_default();
    let Figure { name, unit, .. } = figure;
    format!("| {name} | {unit} | {} | {goal} | {met} |\n", values.join(" | "))
}

fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
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
    let page = format!("{head}\n{}\n{notes}", tables(figures));
    fs::write(path, page).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
