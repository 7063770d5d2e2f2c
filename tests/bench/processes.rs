//! Which processes a site consists of: by their command lines, since an Envoy and
//! its relay may be children of a control plane that is gone.

use rustix::process::{Pid, Signal, kill_process};
use std::{fs, os::unix::ffi::OsStrExt, path::Path};

/// What a process does for the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    ControlPlane,
    /// `tidegate engine`, between the control plane and an Envoy.
    Relay,
    Envoy,
}

impl Role {
    /// In the order in which they are ended: each would start the next again.
    pub const ALL: [Self; 3] = [Self::ControlPlane, Self::Relay, Self::Envoy];

    /// As the rows of the table call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control plane",
            Self::Relay => "engine relay",
            Self::Envoy => "Envoy",
        }
    }

    fn of(arguments: &[&[u8]]) -> Option<Self> {
        match arguments.get(1) {
            Some(&(b"up" | b"serve")) => Some(Self::ControlPlane),
            Some(&b"engine") => Some(Self::Relay),
            _ => arguments.contains(&b"--config-path".as_slice()).then_some(Self::Envoy),
        }
    }
}

/// The processes that were given this folder in their arguments, in the order of
/// [`Role::ALL`].
pub fn of(home: &Path) -> Vec<(Role, u32)> {
    let entries = fs::read_dir("/proc").expect("this is Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<_> = pids.filter_map(|pid| Some((role(pid, home)?, pid))).collect();
    found.sort_unstable();
    found
}

fn role(pid: u32, home: &Path) -> Option<Role> {
    let home = home.as_os_str().as_bytes();
    // A zombie has no arguments: it has ended.
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    line.windows(home.len()).any(|window| window == home).then(|| Role::of(&arguments))?
}

/// The argument behind this one.
pub fn argument(pid: u32, name: &str) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    line.split('\0').skip_while(|word| *word != name).nth(1).map(str::to_owned)
}

/// SIGKILL; it may have ended meanwhile.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
