//! Processes of one product under test, found by the folder they work in.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: u32,
    /// For whoever reads a failure.
    pub(super) command: String,
}

/// All but this one that were given the folder, in their arguments or environment.
pub(super) fn of(folder: &Path) -> Vec<Process> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").expect("this is Linux").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<_> = ids.filter(|id| *id != own).filter_map(|id| given(id, folder)).collect();
    found.sort_by_key(|process| process.id);
    found
}

fn given(id: u32, folder: &Path) -> Option<Process> {
    let read = |what: &str| fs::read(format!("/proc/{id}/{what}")).unwrap_or_default();
    let (arguments, environment) = (read("cmdline"), read("environ"));
    let needle = folder.as_os_str().as_bytes();
    let has = |text: &[u8]| text.windows(needle.len()).any(|window| window == needle);
    // A zombie has neither: it has ended, and its parent has not asked yet.
    (has(&arguments) || has(&environment)).then(|| {
        let command = String::from_utf8_lossy(&arguments).replace('\0', " ");
        Process { id, command: command.chars().take(200).collect() }
    })
}

/// Those of them that run this program.
pub(super) fn running(program: &Path, folder: &Path) -> Vec<u32> {
    let program = fs::canonicalize(program).unwrap_or_else(|_| PathBuf::from(program));
    let runs = |id: &u32| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == program);
    of(folder).into_iter().map(|process| process.id).filter(runs).collect()
}

/// SIGTERM.
pub(super) fn ask_to_end(id: u32) {
    signal(id, Signal::TERM);
}

pub(super) fn kill(id: u32) {
    signal(id, Signal::KILL);
}

/// SIGHUP.
pub(super) fn hang_up(id: u32) {
    signal(id, Signal::HUP);
}

/// SIGSEGV.
pub(super) fn crash(id: u32) {
    signal(id, Signal::SEGV);
}

/// Resident memory, bytes: `VmRSS` of proc_pid_status(5).
pub fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64) * 1024
}

fn signal(id: u32, signal: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
    // It may have ended meanwhile.
    let _ = kill_process(id, signal);
}
