//! What /proc says: CPU and memory of our processes, and who else is at work.

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

/// The CPU time of one process to the nanosecond: `/proc/PID/stat` counts in
/// hundredths of a second, as much as ten changes take. A thread that ended
/// counts with what it had when last looked at.
pub struct Cpu {
    pub pid: u32,
    threads: BTreeMap<String, u64>,
}

impl Cpu {
    pub fn of(pid: u32) -> Self {
        Self { pid, threads: BTreeMap::new() }
    }

    pub fn now(&mut self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        for task in tasks {
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanos = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            self.threads.insert(task.file_name().to_string_lossy().into_owned(), nanos);
        }
        Duration::from_nanos(self.threads.values().sum())
    }
}

/// A field of `/proc/PID/status` in MiB: `VmRSS`, `RssAnon`, `VmHWM`.
pub fn memory_mib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// CPU that processes other than ours take.
pub struct Foreign {
    at: Instant,
    all: Duration,
    ours: Duration,
}

impl Foreign {
    /// `ours`: the CPU time of all our processes, this one included.
    pub fn start(ours: Duration) -> Self {
        Self { at: Instant::now(), all: busy(), ours }
    }

    /// Cores taken by others since the start.
    pub fn cores(&self, ours: Duration) -> f64 {
        let others = busy().saturating_sub(self.all).saturating_sub(ours.saturating_sub(self.ours));
        others.as_secs_f64() / self.at.elapsed().as_secs_f64().max(0.001)
    }
}

/// Time that all cores were at work since boot. Linux counts it in ticks of 10 ms.
fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let cpu = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = cpu.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user.
    let busy = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    Duration::from_millis(busy.map(|(_, ticks)| ticks * 10).sum())
}

/// The cores that this process may run on.
pub fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("a process knows its cores");
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Holds all threads that a process has now to these cores.
pub fn hold(pid: u32, cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw) {
        // It may have ended meanwhile.
        let _ = sched_setaffinity(Some(task), &set);
    }
}

/// The load average over one minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Processor, memory and kernel in a line.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = meminfo.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("{cores} x {model}, {:.0} GiB, Linux {}", kib / f64::from(1 << 20), kernel.trim())
}
