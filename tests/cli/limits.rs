//! Limits of the kernel, as a shell or a service manager sets them.

use super::{Site, TIDEGATE, text, tidegate, wait_for};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

const SOFT: u64 = 256;

/// A shell that becomes the product, which may have so many files open.
fn limited() -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -Sn {SOFT} && exec \"$0\" \"$@\""), TIDEGATE]);
    shell
}

/// The soft and the hard limit of open files of a process.
fn open_files(pid: u32) -> Option<(u64, u64)> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let mut words = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace();
    let mut number = || words.next()?.parse().ok();
    Some((number()?, number()?))
}

#[test]
fn a_control_plane_may_open_as_many_files_as_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let [state, log] = ["state", "log"].map(|name| folder.path().join(name));
    let example = super::support::golden::root().join("examples/quickstart");
    let mut command = limited();
    command.env("TIDEGATE_LOG", "debug").env("NO_COLOR", "1");
    let site = Site::serve_by(command, "127.0.0.1:0", &example, &state, &log);
    let (soft, hard) = open_files(site.child.id()).unwrap();
    assert!(hard > SOFT, "this test needs a hard limit above {SOFT}: {hard}");
    assert_eq!(soft, hard);
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains(&format!("before={SOFT} now={hard}")), "what it became is told");
}

/// Ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An Envoy has a file for each connection.
#[test]
fn an_envoy_may_open_as_many_files_as_its_engine() {
    let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let [state, home, files, envoy, said] =
        ["state", "home", "files", "envoy", "said"].map(|name| folder.path().join(name));
    fs::create_dir(&state).unwrap();
    let whom = ["--engine", "e1", "--server", "localhost:1", "--files", text(&files)];
    tidegate(&[&["bootstrap", "--state", text(&state)], whom.as_slice()].concat()).ends(0);
    // In the place of Envoy: it says what it may, at once and whole, and ends.
    let script = format!("#!/bin/sh\nulimit -Sn > '{0}.new' && mv '{0}.new' '{0}'\n", said.display());
    fs::write(&envoy, script).unwrap();
    fs::set_permissions(&envoy, fs::Permissions::from_mode(0o755)).unwrap();
    let child = limited()
        .args(["engine", "--server", "localhost:1", "--files", text(&files), "--state", text(&home)])
        .args(["--envoy", text(&envoy), "--module", text(&envoy), "--keys", text(&keys.path().join("e1"))])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let soft = wait_for("what the Envoy may", || fs::read_to_string(&said).ok());
    let (_, hard) = open_files(running.0.id()).unwrap();
    assert!(hard > SOFT, "this test needs a hard limit above {SOFT}: {hard}");
    assert_eq!(soft.trim(), hard.to_string());
}
