//! The stock Envoy as a process.

use serde_json::Value;
use std::{
    fs::File,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Asserts that Envoy takes the config as it is, without a word of warning.
#[track_caller]
pub fn validate(config: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let output = command(config, folder.path()).args(["--mode", "validate"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{config:#}");
    let warned: Vec<_> = said.lines().filter(|line| line.contains("[warning]")).collect();
    assert!(warned.is_empty(), "{warned:#?}");
}

/// An Envoy at work, killed when dropped.
pub struct Envoy {
    process: Child,
    folder: tempfile::TempDir,
}

impl Envoy {
    /// Returns when all these addresses take connections.
    #[track_caller]
    pub fn start(config: &Value, ready: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = command(config, folder.path())
            .stdout(File::create(folder.path().join("stdout")).unwrap())
            .stderr(File::create(folder.path().join("stderr")).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut envoy = Self { process, folder };
        for address in ready {
            wait_for(|| {
                let ended = envoy.process.try_wait().unwrap();
                assert!(ended.is_none(), "Envoy ended: {}", envoy.read("stderr"));
                TcpStream::connect(address).ok()
            });
        }
        envoy
    }

    /// The first line of the access log that holds this text.
    pub fn access_log(&self, text: &str) -> Value {
        let line =
            wait_for(|| self.read("stdout").lines().find(|line| line.contains(text)).map(str::to_owned));
        serde_json::from_str(&line).unwrap()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Asks again until there is an answer.
#[track_caller]
pub fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "nothing after {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn command(config: &Value, folder: &Path) -> Command {
    let text = config.to_string();
    let path = folder.join("envoy.json");
    std::fs::write(&path, &text).unwrap();
    let mut command = Command::new(binary());
    command.arg("--config-path").arg(path).args(["--concurrency", "1", "--disable-hot-restart"]);
    command.args(["--log-level", "warning", "--log-format", "[%l] %v"]);
    if text.contains("dynamic_module_config") {
        let modules = folder.join("modules");
        std::fs::create_dir(&modules).unwrap();
        std::os::unix::fs::symlink(module(), modules.join("libtidegate_module.so")).unwrap();
        command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", modules);
    }
    command
}

fn binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("TIDEGATE_ENVOY") {
        Some(path) => path.into(),
        None => {
            let install = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/install.sh");
            let output =
                Command::new(install).stderr(Stdio::inherit()).output().expect("envoy/install.sh runs");
            assert!(output.status.success(), "envoy/install.sh failed; see above");
            let said = String::from_utf8(output.stdout).unwrap();
            said.lines().last().expect("envoy/install.sh prints a path").into()
        }
    })
}

fn module() -> PathBuf {
    let path = std::env::var_os("TIDEGATE_MODULE").map_or_else(
        || std::env::current_exe().unwrap().with_file_name("libtidegate_module.so"),
        PathBuf::from,
    );
    assert!(path.exists(), "{} is missing: run cargo build --workspace", path.display());
    path
}
