//! A stock Envoy as a child process with our module in its search path.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::http::{PATIENCE, get};

/// A running Envoy, killed on drop.
pub struct Envoy {
    process: Child,
    folder: PathBuf,
    ports: HashMap<String, u16>,
}

impl Envoy {
    /// Starts Envoy and waits until its listeners accept.
    pub fn start(yaml: &str) -> Envoy {
        let folder = folder();
        let process =
            command(&folder, yaml).arg("--admin-address-path").arg(folder.join("admin")).spawn().unwrap();
        let mut envoy = Envoy { process, folder, ports: HashMap::new() };
        let admin = envoy.wait_for("its admin port", |envoy| {
            let address = std::fs::read_to_string(envoy.folder.join("admin")).ok()?;
            address.rsplit_once(':')?.1.parse::<u16>().ok()
        });
        envoy.wait_for("its listeners", |_| (get(admin, "admin", "/ready", "").status == 200).then_some(()));
        // Lines of `name::address:port`.
        for line in get(admin, "admin", "/listeners", "").body.lines() {
            if let Some((name, (_, port))) =
                line.split_once("::").map(|(n, a)| (n, a.rsplit_once(':').unwrap()))
            {
                envoy.ports.insert(name.to_owned(), port.parse().unwrap());
            }
        }
        envoy
    }

    pub fn port(&self, listener: &str) -> u16 {
        self.ports[listener]
    }

    fn wait_for<T>(&mut self, what: &str, look: impl Fn(&Envoy) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.process.try_wait().unwrap();
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("Envoy without {what} ({ended:?}):\n{log}");
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The log of an Envoy that does not take a config.
pub fn refused(yaml: &str) -> String {
    let folder = folder();
    let status = command(&folder, yaml).args(["--mode", "validate"]).status().unwrap();
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(!status.success(), "Envoy took it:\n{log}");
    log
}

/// The module as cargo built it for this very test, or `TIDEGATE_MODULE`: a release to be tested.
pub fn module() -> PathBuf {
    match std::env::var_os("TIDEGATE_MODULE") {
        Some(release) => release.into(),
        None => std::env::current_exe().unwrap().with_file_name("libtidegate_module.so"),
    }
}

fn command(folder: &Path, yaml: &str) -> Command {
    let config = folder.join("envoy.yaml");
    std::fs::write(&config, yaml).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new(binary());
    command
        .arg("--config-path")
        .arg(config)
        .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
        .env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", module().parent().unwrap())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

/// `install.sh` hands `TIDEGATE_ENVOY` through, so asking it covers both.
fn binary() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../install.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "no Envoy to test with: its reason is above");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
}

/// A folder of this test alone.
pub fn folder() -> PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("tidegate-module-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
