//! The engine process around an Envoy as a program that `tidegate up` keeps alive, and what it
//! says of itself.

use super::{
    EngineError, EngineProcess, EngineState,
    logs::ENGINE_LOG,
    program::{Program, Ready},
};
use crate::base::Version;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsStr,
    io,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Where an engine process says how it is, in its home.
const REPORT: &str = "status.json";
/// The argument that names its home.
const HOME: &str = "--state";
/// The running program, even when another took its name meanwhile.
const SELF: &str = "/proc/self/exe";

/// One `tidegate engine` to keep alive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgentSpec {
    /// The name of the engine.
    pub name: String,
    /// Its folder, which is the engine's own home as well.
    pub home: PathBuf,
    /// What follows `tidegate engine --state HOME`.
    pub arguments: Vec<String>,
    /// `TIDEGATE_LOG` for it.
    pub log: Option<String>,
}

/// How an engine process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The engine process itself.
    pub pid: u32,
    /// Its Envoy.
    pub envoy: EngineProcess,
}

impl Report {
    /// None where nothing was said yet.
    #[must_use]
    pub fn read(home: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(home.join(REPORT)).ok()?).ok()
    }

    /// Says how it is, at once and whole.
    ///
    /// # Errors
    /// The home cannot be written.
    pub fn write(&self, home: &Path) -> io::Result<()> {
        let path = home.join(REPORT);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }

    /// What is no longer true is not said.
    pub fn remove(home: &Path) {
        // What is not there is removed.
        let _ = std::fs::remove_file(home.join(REPORT));
    }
}

impl Program for AgentSpec {
    /// It stops its Envoy first.
    const KILL_AFTER: Duration = Duration::from_secs(15);
    const LOGS: (&'static str, &'static str) = (ENGINE_LOG, ENGINE_LOG);

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new(SELF)
    }

    fn arrange(&self, command: &mut Command) {
        let Self { name: _, home, arguments, log } = self;
        command.arg0("tidegate").arg("engine").arg(HOME).arg(home).args(arguments);
        // Its output is a file.
        command.env("NO_COLOR", "1");
        if let Some(log) = log {
            command.env("TIDEGATE_LOG", log);
        }
    }

    fn mark(&self) -> [&OsStr; 2] {
        [HOME.as_ref(), self.home.as_os_str()]
    }

    /// The spec, and which program we are.
    fn content(&self) -> io::Result<String> {
        let about = std::fs::metadata(SELF)?;
        Ok(Version::of(&(self, about.dev(), about.ino(), about.mtime(), about.mtime_nsec())).to_string())
    }

    async fn ready(&self) -> Option<Ready> {
        let report = Report::read(&self.home)?;
        let live = matches!(report.envoy.state, EngineState::Running | EngineState::Adopted);
        Some(Ready { live, pid: Some(report.pid) })
    }

    /// For good: SIGTERM, and it drains its Envoy. To make room: SIGHUP, and its Envoy runs on.
    fn quit(&self, replaced: bool) -> Option<Signal> {
        Some(if replaced { Signal::HUP } else { Signal::TERM })
    }

    async fn drain(&self, _drain_for: Duration) {}

    fn gone(&self) {
        Report::remove(&self.home);
    }
}
