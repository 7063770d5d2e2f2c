//! One process: launched or found, held by its pidfd.

use super::{logs, program::Program};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A process that may be ours (a child) or of an earlier control plane.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Starts a program so that it outlives us: in a process group of its own (a Ctrl-C at the
    /// terminal is ours alone), without stdin, its stdout and stderr on files. Our environment
    /// may hold credentials (of DNS providers, say): none of it is handed on.
    pub(super) fn launch<P: Program>(program: &P, directory: &Path) -> io::Result<Self> {
        let mut command = Command::new(program.path());
        command.env_clear();
        program.arrange(&mut command);
        let (stdout, stderr) = P::LOGS;
        command
            .stdin(Stdio::null())
            .stdout(logs::open(&directory.join(stdout))?)
            .stderr(logs::open(&directory.join(stderr))?)
            .process_group(0);
        let child = command.spawn()?;
        // The handle is not kept: it would neither kill nor reap on drop. `exited` reaps.
        Self::hold(child.id())
    }

    /// Holds a process that lives now; the caller then has to make sure that it is the right one.
    pub(super) fn hold(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(raw, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is `unsafe`, for types whose descriptor may change while it is \
                      registered; an OwnedFd keeps its one descriptor until the AsyncFd drops it"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self { pid, pidfd })
    }

    pub(super) fn signal(&self, signal: Signal) {
        // The only failure left with a pidfd is that the process is gone, which `exited` tells.
        if let Err(error) = pidfd_send_signal(self.pidfd.get_ref(), signal) {
            tracing::debug!(pid = self.pid, %error, "Signal not delivered");
        }
    }

    /// Waits for its end and says how it ended, as far as one is told: how a process ended
    /// that is not our child is known to its parent alone.
    pub(super) async fn exited(&self) -> String {
        // An error of the poll itself is answered by the look at the process below.
        let _ = self.pidfd.readable().await;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
            Ok(None) | Err(_) => "ended (how is not known: it was adopted)".to_owned(),
        }
    }
}

/// When a living process started, in clock ticks since boot: with the pid, its identity.
/// `/proc/PID/stat` field 22 (proc_pid_stat(5)); none if it is gone or only a zombie.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process was launched with these two arguments in a row.
pub(super) fn runs(pid: u32, mark: [&OsStr; 2]) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    arguments.windows(2).any(|pair| pair == mark.map(OsStr::as_bytes))
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // Field 2 is the program's name in parentheses and may itself hold spaces and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    // The state is field 3, so field 22 is 18 further on.
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_field_22_whatever_the_name() {
        let rest = (4..=22).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_start_time(&format!("12 (a) b) (c) S {rest} 23")), Some(22));
        assert_eq!(parse_start_time(&format!("12 (envoy) Z {rest} 23")), None);
        assert_eq!(parse_start_time("12 (envoy) S 1 2"), None);
        assert_eq!(parse_start_time(""), None);
        assert_eq!(start_time(std::process::id()), start_time(std::process::id()));
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "`exited` has to reap them")]
    async fn a_child_is_reaped_and_its_end_told() {
        let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        assert_eq!(Process::hold(child.id()).unwrap().exited().await, "exit status 7");
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::hold(child.id()).unwrap();
        process.signal(Signal::KILL);
        assert_eq!(process.exited().await, "killed by signal 9");
        assert!(Process::hold(process.pid).is_err(), "reaped");
    }
}
