//! A stock Envoy as a program.

use super::{
    AdminAddress, EngineError, EngineSpec, MODULE_FILE, UNIX_PATH_MAX_BYTES,
    admin::AdminError,
    logs::{ACCESS_LOG, ENVOY_LOG},
    program::{Program, Ready},
};
use crate::base::Version;
use rustix::process::Signal;
use std::{ffi::OsStr, io, path::Path, process::Command, time::Duration};
use tokio::time::{sleep, timeout};

const CONFIG_PATH: &str = "--config-path";
/// Seconds after which a listener that went from the configuration closes its last connections.
/// Envoy's own default is 600; stated so that it is ours.
const LISTENER_DRAIN_SECONDS: &str = "600";
/// Between two counts of its connections; each walks the gauges on Envoy's main thread.
const DRAIN_POLL: Duration = Duration::from_millis(200);

impl Program for EngineSpec {
    const KILL_AFTER: Duration = Duration::from_secs(5);
    const LOGS: (&'static str, &'static str) = (ACCESS_LOG, ENVOY_LOG);

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), EngineError> {
        match &self.admin {
            AdminAddress::Unix(path) if path.as_os_str().len() > UNIX_PATH_MAX_BYTES => {
                Err(EngineError::SocketPathTooLong(path.clone()))
            }
            AdminAddress::Unix(_) | AdminAddress::Tcp(_) => Ok(()),
        }
    }

    fn path(&self) -> &Path {
        &self.envoy
    }

    fn arrange(&self, command: &mut Command) {
        let Self { name: _, envoy: _, bootstrap, admin: _, module_directory, concurrency, log_level } = self;
        command
            .arg(CONFIG_PATH)
            .arg(bootstrap)
            .args(["--log-level", log_level.word()])
            .args(["--drain-time-s", LISTENER_DRAIN_SECONDS])
            // Hot restart shares memory by base id, and two engines on one machine would collide.
            .arg("--disable-hot-restart");
        if let Some(threads) = concurrency {
            command.args(["--concurrency", &threads.to_string()]);
        }
        if let Some(modules) = module_directory {
            command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", modules);
        }
    }

    fn mark(&self) -> [&OsStr; 2] {
        [CONFIG_PATH.as_ref(), self.bootstrap.as_os_str()]
    }

    /// The spec with its arguments, the bytes of the bootstrap and of the module.
    fn content(&self) -> io::Result<String> {
        let bootstrap = std::fs::read(&self.bootstrap)?;
        let module = match &self.module_directory {
            Some(directory) => Some(std::fs::read(directory.join(MODULE_FILE))?),
            None => None,
        };
        Ok(Version::of(&(self, bootstrap, module)).to_string())
    }

    async fn ready(&self) -> Option<Ready> {
        self.admin.ready().await.ok()
    }

    fn quit(&self, _replaced: bool) -> Option<Signal> {
        None
    }

    /// First all answers say `close` while new connections are still taken, so that whoever sends
    /// them here can turn away; then, when none is left or half of the time is over, new ones are
    /// refused; then it waits for the last. The life has the time and ends this when it is over.
    async fn drain(&self, drain_for: Duration) {
        let admin = &self.admin;
        let work = async {
            admin.begin_drain().await?;
            if let Ok(outcome) = timeout(drain_for / 2, quiet(admin)).await {
                outcome?;
            }
            admin.stop_listening().await?;
            // Who was taken in at the last moment is not counted at once.
            sleep(DRAIN_POLL).await;
            quiet(admin).await
        };
        if let Err(error) = work.await {
            tracing::warn!(%admin, %error, "Envoy cannot be drained; it is stopped as it is");
        }
    }

    fn gone(&self) {
        if let AdminAddress::Unix(socket) = &self.admin {
            // Gone already, if Envoy has ended in good order.
            let _ = std::fs::remove_file(socket);
        }
    }
}

async fn quiet(admin: &AdminAddress) -> Result<(), AdminError> {
    while admin.connections().await? > 0 {
        sleep(DRAIN_POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EnvoyLogLevel;

    fn spec(folder: &Path) -> EngineSpec {
        EngineSpec {
            name: "edge".into(),
            envoy: "/envoy".into(),
            bootstrap: folder.join("bootstrap.yaml"),
            admin: AdminAddress::Unix(folder.join("admin.sock")),
            module_directory: Some(folder.into()),
            concurrency: None,
            log_level: EnvoyLogLevel::Info,
        }
    }

    #[test]
    fn content_is_all_that_the_process_runs() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path());
        std::fs::write(&spec.bootstrap, "a").unwrap();
        assert!(spec.content().is_err(), "the module is missing");
        std::fs::write(folder.path().join(MODULE_FILE), "b").unwrap();
        let mut seen = std::collections::BTreeSet::from([spec.content().unwrap()]);
        assert!(!seen.insert(spec.content().unwrap()), "nothing has changed");
        std::fs::write(&spec.bootstrap, "ab").unwrap();
        assert!(seen.insert(spec.content().unwrap()));
        std::fs::write(folder.path().join(MODULE_FILE), "c").unwrap();
        assert!(seen.insert(spec.content().unwrap()));
        spec.log_level = EnvoyLogLevel::Debug;
        assert!(seen.insert(spec.content().unwrap()));
    }
}
