//! A stock Envoy that somebody else runs, joined by `tidegate bootstrap`.

use super::{Live, parts};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// It ends when it is dropped.
pub struct Joined {
    process: Child,
    folder: tempfile::TempDir,
}

impl Joined {
    /// Joins the fleet of `live` under a name, and reaches it at `server`.
    #[must_use]
    pub fn start(live: &Live, name: &str, server: SocketAddr) -> Self {
        let folder = tempfile::Builder::new().prefix("tidegate-joined-").tempdir().expect("a folder");
        let inside = |file: &str| folder.path().join(file);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let bootstrap = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["bootstrap", "--engine", name, "--envoy-admin", &free.to_string()])
            .args(["--server", &server.to_string()])
            .arg("--state")
            .arg(live.state())
            .arg("--files")
            .arg(inside("files"))
            .output()
            .expect("it ends");
        assert!(bootstrap.status.success(), "{}", String::from_utf8_lossy(&bootstrap.stderr));
        fs::write(inside("bootstrap.json"), bootstrap.stdout).expect("written");
        fs::create_dir(inside("modules")).expect("a folder");
        fs::copy(parts::module(), inside("modules/libtidegate_module.so")).expect("the module is there");
        let log = fs::File::create(inside("envoy.log")).expect("a log");
        let process = Command::new(parts::envoy())
            .arg("--config-path")
            .arg(inside("bootstrap.json"))
            .args(["--disable-hot-restart", "--concurrency", "1"])
            .env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", inside("modules"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it runs");
        Self { process, folder }
    }

    /// Where it keeps its certificate.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// What it said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("envoy.log")).unwrap_or_default()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
