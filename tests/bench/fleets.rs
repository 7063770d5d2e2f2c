//! Many engines at one control plane: simulated ones, each a delta ADS stream over
//! a connection and a TLS session of its own.

mod client;

use crate::harness::{
    Options,
    figures::{Figure, Spread},
    machine::Foreign,
    manifests::host_file,
    processes::Role,
    scenes,
    site::{self, Engines, Folder, Site},
};
use client::{Crowd, Seen};
use std::time::{Duration, Instant};

pub const NAME: &str = "simulated engines";

/// So many engines, each with all hosts of its site.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    pub engines: usize,
    pub hosts: usize,
}

impl Fleet {
    /// `10x10000`
    pub fn parse(text: &str) -> Option<Self> {
        let (engines, hosts) = text.split_once('x')?;
        Some(Self { engines: engines.parse().ok().filter(|n| *n > 0)?, hosts: hosts.parse().ok()? })
    }
}

/// Starts `tidegate serve`, connects the engines, then makes changes.
pub fn measure(options: &Options, fleet: Fleet, backend: u16) -> Vec<Figure> {
    let Fleet { engines, hosts } = fleet;
    let (ports, folder) = (site::free_ports(backend), Folder::new());
    scenes::write_world(&folder, options.own_services, hosts, ports, &[]);
    let mut site = Site::start(folder, ports, Engines::Elsewhere);
    site.quiet(options.foreign_max);
    let (empty, before) = (resident(&site), site.used());
    let foreign = Foreign::start(before.all);
    let start = Instant::now();
    let crowd = Crowd::connect(site.xds, &site.folder().state(), engines, hosts);
    crowd.wait_whole();
    let whole = start.elapsed();
    #[expect(clippy::cast_precision_loss)]
    let each = engines as f64;
    // The last ACKs are on their way.
    while metric(&mut site, "tidegate_engines_synced") < each {
        site.pause("engine in sync", Duration::from_millis(20));
    }
    site.quiet(f64::INFINITY);
    let after = site.used();
    let others = foreign.cores(after.all);
    let cpu = after.of(Role::ControlPlane).zip(before.of(Role::ControlPlane)).map(|(now, then)| now - then);
    let mut figures = Vec::new();
    let mut figure = |name: &str, value: f64, unit, foreign| {
        let name = format!("{NAME}, {engines} x {hosts} hosts: {name}");
        figures.push(Figure::new(name, hosts, value, unit).foreign(foreign).print());
    };
    figure("all in sync", whole.as_secs_f64(), "s", others);
    figure("control plane CPU of that", cpu.unwrap_or_default().as_secs_f64(), "s", others);
    figure("control plane RSS", resident(&site), "MiB", f64::NAN);
    let bytes = (resident(&site) - empty) * f64::from(1 << 20) / each;
    figure("control plane RSS an engine", bytes, "bytes", f64::NAN);
    let FanOut { first, last, all, cpu, foreign } = fan_out(options, &mut site, &crowd, fleet);
    for (name, spread) in [
        ("change to first engine", &first),
        ("fan-out of a change, first send to last ACK", &all),
        ("change to last ACK", &last),
        ("control plane CPU of the fan-out", &cpu),
    ] {
        figure(&format!("{name}, p50"), spread.quantile_ms(0.5), "ms", foreign);
        figure(&format!("{name}, max"), spread.quantile_ms(1.0), "ms", foreign);
    }
    figures
}

/// One edited route, to all engines.
struct FanOut {
    first: Spread,
    last: Spread,
    all: Spread,
    cpu: Spread,
    foreign: f64,
}

fn fan_out(options: &Options, site: &mut Site, crowd: &Crowd, fleet: Fleet) -> FanOut {
    let (mut first, mut last, mut all, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let foreign = Foreign::start(site.used().all);
    // The first change brings a cluster that none has yet, and warms up.
    for repeat in 0..=options.reps {
        site.quiet(options.foreign_max);
        let before = site.used();
        let number = repeat % fleet.hosts;
        let text = scenes::edited(options.own_services, number, &scenes::path(repeat), site.ports.backend);
        let at = site.folder().put(&host_file(number), &text);
        let Seen { received, acknowledged } = crowd.wait_changed(number);
        site.quiet(options.foreign_max);
        let took: Duration = site.used().since(&before).into_iter().map(|(_, took)| took).sum();
        if repeat > 0 {
            first.push(received - at);
            last.push(acknowledged - at);
            all.push(acknowledged - received);
            cpu.push(took);
        }
    }
    let foreign = foreign.cores(site.used().all);
    let [first, last, all, cpu] = [first, last, all, cpu].map(Spread::of);
    FanOut { first, last, all, cpu, foreign }
}

/// Of the control plane, MiB.
fn resident(site: &Site) -> f64 {
    let all = site.memory("VmRSS");
    all.iter().find(|(role, _)| *role == Role::ControlPlane).map_or(f64::NAN, |(_, resident)| *resident)
}

fn metric(site: &mut Site, name: &str) -> f64 {
    let text = site.ask_text("/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}
