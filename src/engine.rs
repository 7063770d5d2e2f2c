//! The stock Envoys this process keeps alive.
//!
//! *Takes* [`EngineSpec`]s whose bootstrap others have written, and a home
//! folder (`<state>/engines`). *Gives* running Envoys, one [`EngineProcess`] of
//! status each, and their logs in `<home>/<name>/`.
//! *Invariants*: an Envoy never depends on our life: it is in a process group of
//! its own, writes to files and not to pipes, and is found again by its record
//! (and, on a Unix admin socket, by the peer of that socket). One supervisor a
//! home, held by a lock. Whoever is signalled is held by pidfd, so never a
//! stranger with a reused pid. A restart is never given up.
//! *To add one*: a state of the life is a phase of `lifecycle`, with its row in
//! its tests; a way to talk to Envoy is a call in `admin`.
//!
//! Knows nothing of xDS. Under systemd the unit needs `KillMode=process`, or
//! systemd kills the Envoys together with us.

mod admin;
mod agent;
mod envoy;
mod identity;
pub mod lifecycle;
mod link;
mod logs;
mod process;
mod program;
mod record;
pub mod relay;
mod snapshot;
mod supervise;

pub use agent::{AgentSpec, Report};
pub use identity::{EngineFiles, Identity, IdentityError};
pub use lifecycle::EngineState;
pub use link::{Link, Upstream};
pub use logs::{ACCESS_LOG, ENGINE_LOG, ENVOY_LOG};
pub use program::{Program, Ready};
pub use record::Lock;
pub use relay::Relay;
pub use snapshot::Snapshot;
pub use supervise::Supervisor;

use serde::{Deserialize, Serialize};
use std::{
    fmt, io,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// The module's file in [`EngineSpec::module_directory`], as Envoy looks for `tidegate_module`.
pub const MODULE_FILE: &str = "libtidegate_module.so";
/// `sockaddr_un.sun_path` is 108 bytes with its final NUL (unix(7)).
pub const UNIX_PATH_MAX_BYTES: usize = 107;
/// Longest name of an engine, which is a folder's name.
const NAME_MAX_BYTES: usize = 64;

/// One Envoy to keep alive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EngineSpec {
    /// Letters, digits, `-` and `_`; the folder `<home>/<name>` is the engine's.
    pub name: String,
    /// The stock Envoy binary.
    pub envoy: PathBuf,
    /// Its bootstrap, ready to be read. It has to keep the gauges
    /// `http.*.downstream_cx_active` and `listener.*.downstream_cx_active` through its stats
    /// diet: a drain ends when they are 0, and what is not told counts as 0.
    pub bootstrap: PathBuf,
    /// Where that bootstrap puts the admin.
    pub admin: AdminAddress,
    /// The folder with [`MODULE_FILE`]; none if the bootstrap needs no module.
    pub module_directory: Option<PathBuf>,
    /// Worker threads; none for one a core.
    pub concurrency: Option<NonZeroU32>,
    pub log_level: EnvoyLogLevel,
}

/// Where an Envoy's admin listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AdminAddress {
    /// To be preferred: its folder's permissions guard it, it takes no port, and it tells
    /// which process listens.
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Envoy's `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum EnvoyLogLevel {
    Debug,
    #[default]
    Info,
    Warning,
    Error,
}

impl EnvoyLogLevel {
    /// The word on Envoy's command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// How one engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineProcess {
    pub name: String,
    pub pid: Option<u32>,
    #[serde(flatten)]
    pub state: EngineState,
    /// Launches in place of a process that died, since this supervisor began.
    pub restarts: u32,
    /// Why the last one died that was not told to: how it ended, and its last words on stderr.
    pub last_error: Option<String>,
}

/// Why engines cannot be supervised at all. What goes wrong with one engine is in its status.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{} is supervised by another tidegate (pid {holder}); stop that one, or use another --state", home.display())]
    Locked { home: PathBuf, holder: String },
    #[error("cannot use {} ({source}); check that its folder exists and is ours to write", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("engine name {0:?} is no folder name: use 1 to {NAME_MAX_BYTES} letters, digits, `-`, `_`")]
    Name(String),
    #[error("two engines are named {0:?}; their folders would be one")]
    NameTwice(String),
    #[error("{} is no place for private keys: it has to be a folder of ours alone (mode 0700) on a tmpfs", .0.display())]
    NoPlaceForKeys(PathBuf),
    #[error("admin socket {} is longer than {UNIX_PATH_MAX_BYTES} bytes; use a shorter --state", .0.display())]
    SocketPathTooLong(PathBuf),
}

/// The folder of an engine: its logs, its record, and a good place for bootstrap and admin socket.
#[must_use]
pub fn directory(home: &Path, name: &str) -> PathBuf {
    home.join(name)
}

/// Finds what cannot be supervised before anything is started.
fn check<P: Program>(specs: &[P]) -> Result<(), EngineError> {
    let mut names = std::collections::BTreeSet::new();
    for spec in specs {
        let name = spec.name();
        if !is_name(name) {
            return Err(EngineError::Name(name.to_owned()));
        }
        if !names.insert(name) {
            return Err(EngineError::NameTwice(name.to_owned()));
        }
        spec.check()?;
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, admin: &str) -> EngineSpec {
        EngineSpec {
            name: name.into(),
            envoy: "envoy".into(),
            bootstrap: "b.yaml".into(),
            admin: AdminAddress::Unix(admin.into()),
            module_directory: None,
            concurrency: None,
            log_level: EnvoyLogLevel::default(),
        }
    }

    #[test]
    fn specs_are_checked_before_the_start() {
        check(&[spec("edge-0", "/a"), spec("edge_1", "/b")]).unwrap();
        for name in ["", "../up", "a/b", "lock.", &"x".repeat(65)] {
            assert!(matches!(check(&[spec(name, "/a")]), Err(EngineError::Name(_))), "{name}");
        }
        assert!(matches!(check(&[spec("a", "/a"), spec("a", "/b")]), Err(EngineError::NameTwice(_))));
        let long = "x".repeat(UNIX_PATH_MAX_BYTES + 1);
        assert!(matches!(check(&[spec("a", &long)]), Err(EngineError::SocketPathTooLong(_))));
        check(&[spec("a", &long[1..])]).unwrap();
    }

    #[test]
    fn status_is_flat_in_json() {
        let process = EngineProcess {
            name: "edge".into(),
            pid: None,
            state: EngineState::CrashLoop { failures: 4 },
            restarts: 3,
            last_error: Some("exit status 1".into()),
        };
        assert_eq!(
            serde_json::to_string(&process).unwrap(),
            r#"{"name":"edge","pid":null,"state":"CrashLoop","failures":4,"restarts":3,"lastError":"exit status 1"}"#
        );
    }
}
