//! A whole Tidegate under test: `tidegate up` as a process, with the stock Envoys
//! it starts, on loopback VIPs of its own.
//!
//! *Takes* manifests. *Gives* a product to ask, over the network alone. *Invariants*:
//! waits are for events, with one generous deadline; what was started is ended by
//! its own process id, and it is a failure when anything of it is left.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each program of tests uses a part of it")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests hold a real process to real time, and share it"
)]

pub mod backend;
pub mod client;
pub mod dns;
pub mod http2;
pub mod load;
pub mod manifest;
pub mod parts;
mod processes;
pub mod tenant;
pub mod tls;

pub use backend::Backend;
pub use client::{Answer, Connection, Request};
pub use manifest::{Ingress, Service, State, documents};
pub use tenant::Tenant;

use serde_json::{Value, json};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Ports of every VIP under test: no root is needed for them.
pub const HTTP: u16 = 18_080;
pub const HTTPS: u16 = 18_443;

/// How long anything may take to happen. A test that waits for it so long fails;
/// how long it really takes is what benches say.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long a stopping product may take, drain included.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(15);

/// One running product.
pub struct Live {
    /// Manifests in `objects`, what the product keeps in `state`, its log in `log`.
    home: tempfile::TempDir,
    /// Private keys of engines, in memory.
    keys: tempfile::TempDir,
    engines: usize,
    process: Child,
    admin: SocketAddr,
    dns: SocketAddr,
}

impl Live {
    /// Starts on these manifests, with one engine, and waits until it is ready.
    /// There are loopback VIPs in VipPool `live` already.
    #[must_use]
    pub fn start(manifests: &[Value]) -> Self {
        Self::with_engines(1, manifests)
    }

    #[must_use]
    pub fn with_engines(engines: usize, manifests: &[Value]) -> Self {
        Self::in_home(new_home(), engines, manifests)
    }

    /// One engine, whose Envoy is given this bootstrap on top of its own: a stock
    /// Envoy that takes less, or more, than those we know.
    #[must_use]
    pub fn with_bootstrap(over: &Value, manifests: &[Value]) -> Self {
        let home = new_home();
        let script =
            format!("#!/bin/sh\nexec '{}' --config-yaml '{over}' \"$@\"\n", parts::envoy().display());
        let path = home.path().join("envoy");
        fs::write(&path, script).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        Self::in_home(home, 1, manifests)
    }

    fn in_home(home: tempfile::TempDir, engines: usize, manifests: &[Value]) -> Self {
        for folder in ["objects", "state", "scratch"] {
            fs::create_dir(home.path().join(folder)).expect("a folder");
        }
        write(home.path(), "pool", &documents(&[pool(free_network())]));
        write(home.path(), "start", &documents(manifests));
        let keys = tempfile::Builder::new().prefix("tidegate-live-").tempdir_in("/dev/shm").expect("a tmpfs");
        let (process, admin, dns) = spawn(home.path(), keys.path(), engines);
        let live = Self { home, keys, engines, process, admin, dns };
        live.wait_ready();
        live
    }

    /// The product that the tests of one program share. It ends with the last
    /// test that holds it.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Live>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(live) = shared.upgrade() {
            return live;
        }
        let live = Arc::new(Self::start(&[]));
        *shared = Arc::downgrade(&live);
        live
    }

    /// Writes a file of the watched folder, at once and whole.
    pub fn apply(&self, file: &str, objects: &[Value]) {
        self.apply_text(file, &documents(objects));
    }

    pub fn apply_text(&self, file: &str, text: &str) {
        write(self.home.path(), file, text);
    }

    pub fn delete(&self, file: &str) {
        fs::remove_file(object_file(self.home.path(), file)).expect("the file was applied before");
    }

    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the admin API.
    #[must_use]
    pub fn admin_get(&self, path: &str) -> Answer {
        client::get(self.admin, &self.admin.to_string(), path)
    }

    #[must_use]
    pub fn status(&self) -> Value {
        self.admin_get("/api/v1/status").json()
    }

    /// What is said of an object (`Ingress/shop/cart`); nothing when it is unknown.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Value> {
        let answer = self.admin_get(&format!("/api/v1/status/{key}"));
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until the status is as wanted, and gives it.
    #[track_caller]
    pub fn wait(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        self.eventually(what, || {
            let status = self.status();
            if wanted(&status) { Ok(status) } else { Err(shortened(&status.to_string())) }
        })
    }

    /// Waits until every engine serves the object; gives its first address.
    #[track_caller]
    pub fn programmed(&self, key: &str) -> IpAddr {
        self.eventually(&format!("{key} is programmed"), || {
            let Some(object) = self.object(key) else { return Err("unknown".to_owned()) };
            let address = object["addresses"][0].as_str().and_then(|text| text.parse().ok());
            match (object["programmed"].as_bool(), address) {
                (Some(true), Some(address)) => Ok(address),
                _ => Err(object.to_string()),
            }
        })
    }

    /// Waits until an object is told something for this reason; gives the finding.
    #[track_caller]
    pub fn finding(&self, key: &str, reason: &str) -> Value {
        self.eventually(&format!("{key} is told {reason}"), || {
            let Some(object) = self.object(key) else { return Err("unknown".to_owned()) };
            let findings = object["findings"].as_array().cloned().unwrap_or_default();
            findings.into_iter().find(|finding| finding["reason"] == reason).ok_or_else(|| object.to_string())
        })
    }

    /// Asks again and again until the answer is there.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
        let begin = Instant::now();
        loop {
            match ask() {
                Ok(found) => return found,
                Err(seen) if begin.elapsed() > DEADLINE => {
                    panic!("waited {DEADLINE:?} until {what}; last seen: {seen}\n{}", self.log_end())
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// Waits until a plain request of a VIP is answered as wanted.
    #[track_caller]
    pub fn answered(&self, at: SocketAddr, request: &Request, wanted: impl Fn(&Answer) -> bool) -> Answer {
        self.eventually(&format!("{at} answers {} as wanted", request.show()), || {
            match client::send(at, request) {
                Ok(answer) if wanted(&answer) => Ok(answer),
                Ok(answer) => Err(answer.show()),
                Err(why) => Err(why.to_string()),
            }
        })
    }

    /// An answer of the embedded DNS.
    #[must_use]
    pub fn dns(&self, name: &str, kind: hickory_proto::rr::RecordType) -> dns::Reply {
        dns::ask(self.dns, name, kind)
    }

    /// Process ids of the Envoys that run for this product, in order.
    #[must_use]
    pub fn envoys(&self) -> Vec<u32> {
        processes::running(&parts::envoy(), self.home.path())
    }

    /// Ends the control plane as a crash would, and leaves the Envoys alone.
    pub fn kill_control_plane(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it is our child");
    }

    /// Process ids of the engines around them, in order.
    #[must_use]
    pub fn engines(&self) -> Vec<u32> {
        let all = processes::running(Path::new(env!("CARGO_BIN_EXE_tidegate")), self.home.path());
        all.into_iter().filter(|id| *id != self.process.id()).collect()
    }

    /// Ends one of [`Live::envoys`] or [`Live::engines`] as a crash would.
    pub fn kill(&self, id: u32) {
        processes::kill(id);
    }

    /// Has one of [`Live::engines`] hand its Envoy over (SIGHUP).
    pub fn hang_up(&self, id: u32) {
        processes::hang_up(id);
    }

    /// Starts the engine that a dead control plane would, as an operator or systemd does.
    #[must_use]
    pub fn run_engine_by_hand(&self) -> ByHand {
        let name = "engine-0";
        let xds = fs::read_to_string(self.state().join("xds.address")).expect("it was written at the start");
        let command = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["engine", "--server", xds.trim(), "--state"])
            .arg(self.state().join("engines").join(name))
            .arg("--files")
            .arg(self.state().join("trust/engines").join(name))
            .arg("--keys")
            .arg(self.keys().join(name))
            .env("TIDEGATE_ENVOY", parts::envoy())
            .env("TIDEGATE_MODULE", parts::module())
            .stderr(Stdio::null())
            .spawn();
        ByHand(command.expect("it was built with this test"))
    }

    /// What the product keeps, in files.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// What its engines keep in memory.
    #[must_use]
    pub fn keys(&self) -> &Path {
        self.keys.path()
    }

    /// Starts another on the same folders, which must end by itself; gives its exit
    /// code and what it said.
    #[must_use]
    pub fn second(&self) -> (Option<i32>, String) {
        let output = command(self.home.path(), self.keys.path(), self.engines)
            .output()
            .expect("it was built with this test");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts the control plane again, on the same folders.
    pub fn start_again(&mut self) {
        let (process, admin, dns) = spawn(self.home.path(), self.keys.path(), self.engines);
        (self.process, self.admin, self.dns) = (process, admin, dns);
        self.wait_ready();
    }

    /// Asks it to end; [`Live::ended`] waits.
    pub fn stop(&self) {
        processes::ask_to_end(self.process.id());
    }

    /// Waits until it has ended, and checks that nothing of it is left.
    #[track_caller]
    pub fn ended(&mut self) {
        let begin = Instant::now();
        let code = loop {
            if let Some(code) = self.process.try_wait().expect("it is our child") {
                break code;
            }
            assert!(begin.elapsed() < STOP_DEADLINE, "does not end\n{}", self.log_end());
            std::thread::sleep(POLL);
        };
        assert!(code.success(), "ended with {code}\n{}", self.log_end());
        let left = processes::of(self.home.path());
        assert!(left.is_empty(), "left running: {left:?}\n{}", self.log_end());
    }

    /// The last lines of the log, for whoever reads a failure.
    #[must_use]
    pub fn log_end(&self) -> String {
        log_end(self.home.path())
    }

    /// All of the log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    fn wait_ready(&self) {
        self.eventually("it is ready", || {
            match client::send(self.admin, &Request::get(&self.admin.to_string(), "/readyz")) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.show()),
                Err(why) => Err(why.to_string()),
            }
        });
    }
}

/// A process of [`Live::run_engine_by_hand`].
pub struct ByHand(Child);

impl ByHand {
    /// Asks it to end, and waits.
    pub fn end(&mut self) {
        processes::ask_to_end(self.0.id());
        let code = self.0.wait().expect("it is our child");
        assert!(code.success(), "ended with {code}");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let running = matches!(self.process.try_wait(), Ok(None));
        if running && !std::thread::panicking() {
            self.stop();
            self.ended();
            return;
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the log ended with:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        // A failed test, or one that killed the control plane: nothing may stay behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for process in processes::of(self.home.path()) {
            processes::kill(process.id);
        }
    }
}

fn new_home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidegate-live-").tempdir().expect("a folder")
}

fn command(home: &Path, keys: &Path, engines: usize) -> Command {
    let own = home.join("envoy");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .arg("up")
        .arg(home.join("objects"))
        .arg("--state")
        .arg(home.join("state"))
        .args(["--admin", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--allow-loopback-endpoints"])
        .args(["--engines", &engines.to_string()])
        .arg("--keys")
        .arg(keys)
        .env("TIDEGATE_ENVOY", if own.exists() { own } else { parts::envoy() })
        .env("TIDEGATE_MODULE", parts::module())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

fn spawn(home: &Path, keys: &Path, engines: usize) -> (Child, SocketAddr, SocketAddr) {
    let said = home.join("state/up.json");
    let _ = fs::remove_file(&said);
    let log = fs::OpenOptions::new().create(true).append(true).open(home.join("log")).expect("a log");
    let mut process = command(home, keys, engines)
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("tidegate was built with this test");
    let begin = Instant::now();
    loop {
        if let Some((admin, dns)) = addresses(&said, process.id()) {
            return (process, admin, dns);
        }
        let ended = process.try_wait().expect("it is our child");
        if ended.is_some() || begin.elapsed() > DEADLINE {
            let _ = process.kill();
            panic!("it does not say where it listens ({ended:?})\n{}", log_end(home));
        }
        std::thread::sleep(POLL);
    }
}

/// Where it listens, as it wrote.
fn addresses(said: &Path, pid: u32) -> Option<(SocketAddr, SocketAddr)> {
    let said: Value = serde_json::from_slice(&fs::read(said).ok()?).ok()?;
    let address = |what: &str| said[what].as_str()?.parse().ok();
    (said["pid"] == pid).then_some((address("admin")?, address("dns")?))
}

fn object_file(home: &Path, file: &str) -> PathBuf {
    home.join("objects").join(format!("{file}.yaml"))
}

/// By a rename, as a careful editor does.
fn write(home: &Path, file: &str, text: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let scratch = home.join("scratch").join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    fs::write(&scratch, text).expect("the folder is ours");
    fs::rename(&scratch, object_file(home, file)).expect("the folder is ours");
}

fn pool(network: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "VipPool",
        "metadata": {"name": "live"},
        "spec": {"addresses": [format!("{network}/24")]},
    })
}

/// A loopback /24 that no other test, and no other program, listens on: each
/// process begins elsewhere in 127.100.0.0 to 127.250.0.0.
fn free_network() -> Ipv4Addr {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    const NETWORKS: u32 = 150 * 256;
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(64)));
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed) % NETWORKS;
        let [_, _, high, low] = n.to_be_bytes();
        let free = |port| TcpListener::bind((Ipv4Addr::new(127, 100 + high, low, 1), port)).is_ok();
        if free(HTTP) && free(HTTPS) {
            return Ipv4Addr::new(127, 100 + high, low, 0);
        }
    }
}

fn log_end(home: &Path) -> String {
    let log = fs::read_to_string(home.join("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(60);
    format!("--- the end of its log\n{}", lines[from..].join("\n"))
}

fn shortened(text: &str) -> String {
    text.chars().take(3_000).collect()
}
