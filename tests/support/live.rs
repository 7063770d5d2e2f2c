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
pub mod joined;
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
    how: How,
    process: Child,
    admin: SocketAddr,
    dns: SocketAddr,
    xds: SocketAddr,
}

/// How the control plane is started.
#[derive(Debug, Clone)]
pub struct How {
    /// Envoys of its own.
    pub engines: usize,
    /// More arguments of `tidegate up`.
    pub arguments: Vec<String>,
    /// More of its environment.
    pub environment: Vec<(String, String)>,
    /// Done by a shell that then becomes the control plane.
    pub shell: String,
}

impl How {
    #[must_use]
    pub fn engines(engines: usize) -> Self {
        Self { engines, arguments: Vec::new(), environment: Vec::new(), shell: String::new() }
    }
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
        Self::start_as(How::engines(engines), manifests)
    }

    #[must_use]
    pub fn start_as(how: How, manifests: &[Value]) -> Self {
        let (home, keys) = Self::folders(manifests);
        Self::begin(home, keys, how)
    }

    /// So many engines, whose Envoys are given this bootstrap on top of their own: a
    /// stock Envoy that takes less, or more, than those we know.
    #[must_use]
    pub fn with_bootstrap(engines: usize, over: &Value, manifests: &[Value]) -> Self {
        let (home, keys) = Self::folders(manifests);
        let script =
            format!("#!/bin/sh\nexec '{}' --config-yaml '{over}' \"$@\"\n", parts::envoy().display());
        let path = home.path().join("envoy");
        fs::write(&path, script).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        let mut how = How::engines(engines);
        how.environment.push(("TIDEGATE_ENVOY".to_owned(), path.display().to_string()));
        Self::begin(home, keys, how)
    }

    fn begin(home: tempfile::TempDir, keys: tempfile::TempDir, how: How) -> Self {
        let (process, Addresses { admin, dns, xds }) = must_spawn(home.path(), keys.path(), &how);
        let live = Self { home, keys, how, process, admin, dns, xds };
        live.wait_ready();
        live
    }

    /// Starts one that dies of itself before it says where it listens, or soon after;
    /// waits for that. To be started again.
    #[must_use]
    pub fn stillborn(how: How, manifests: &[Value]) -> Self {
        let (home, keys) = Self::folders(manifests);
        let mut process = spawn(home.path(), keys.path(), &how);
        wait_death(&mut process, home.path());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { home, keys, how, process, admin: nowhere, dns: nowhere, xds: nowhere }
    }

    fn folders(manifests: &[Value]) -> (tempfile::TempDir, tempfile::TempDir) {
        let home = tempfile::Builder::new().prefix("tidegate-live-").tempdir().expect("a folder");
        for folder in ["objects", "state", "scratch"] {
            fs::create_dir(home.path().join(folder)).expect("a folder");
        }
        write(home.path(), "pool", &documents(&[pool(free_network())]));
        write(home.path(), "start", &documents(manifests));
        let keys = tempfile::Builder::new().prefix("tidegate-live-").tempdir_in("/dev/shm").expect("a tmpfs");
        (home, keys)
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

    /// Where engines reach it.
    #[must_use]
    pub fn xds(&self) -> SocketAddr {
        self.xds
    }

    /// Of the control plane.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Memory that the control plane has, in bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        processes::resident(self.process.id())
    }

    /// A value of `/metrics`, by its name there.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<u64> {
        let text = String::from_utf8(self.admin_get("/metrics").body).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
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

    /// Waits until the one engine could start without a control plane: it is told that it
    /// has everything a moment after its Envoy has.
    #[track_caller]
    pub fn all_is_kept(&self) {
        let log = self.state().join("engines/engine-0/engine.log");
        self.eventually("the engine has kept everything", || {
            let log = fs::read_to_string(&log).map_err(|why| why.to_string())?;
            if log.contains("All that the control plane has is kept here") { Ok(()) } else { Err(log) }
        });
    }

    /// Starts the engine that a dead control plane would, as an operator or systemd does.
    #[must_use]
    pub fn run_engine_by_hand(&self) -> ByHand {
        self.run_engine_as(None)
    }

    /// The same, with one more variable in its environment.
    #[must_use]
    pub fn run_engine_as(&self, more: Option<(&str, &str)>) -> ByHand {
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
            .envs(self.how.environment.iter().map(|(name, value)| (name, value)))
            .envs(more)
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

    /// Ends it as a defect of its own would: SIGSEGV.
    pub fn crash_envoy(&self, id: u32) {
        processes::crash(id);
    }

    /// Starts another on the same folders, which must end by itself; gives its exit
    /// code and what it said.
    #[must_use]
    pub fn second(&self) -> (Option<i32>, String) {
        let output = command(self.home.path(), self.keys.path(), &self.how).output();
        let output = output.expect("it was built with this test");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts the control plane again, on the same folders.
    pub fn start_again(&mut self) {
        let (process, Addresses { admin, dns, xds }) =
            must_spawn(self.home.path(), self.keys.path(), &self.how);
        (self.process, self.admin, self.dns, self.xds) = (process, admin, dns, xds);
        self.wait_ready();
    }

    /// The same, in another way from now on.
    pub fn start_again_as(&mut self, how: How) {
        self.how = how;
        self.start_again();
    }

    /// Starts the control plane again with this in its environment, of which it will
    /// die; gives whether it said before where it listens.
    pub fn start_doomed(&mut self, environment: (&str, &str)) -> bool {
        let mut how = self.how.clone();
        how.environment.push((environment.0.to_owned(), environment.1.to_owned()));
        self.process = spawn(self.home.path(), self.keys.path(), &how);
        let Some(Addresses { admin, dns, xds }) = await_addresses(self.home.path(), &mut self.process) else {
            return false;
        };
        (self.admin, self.dns, self.xds) = (admin, dns, xds);
        true
    }

    /// Whether the control plane has ended by itself.
    pub fn is_dead(&mut self) -> bool {
        self.process.try_wait().expect("it is our child").is_some()
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

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }

    /// Whether it has ended by itself.
    pub fn is_dead(&mut self) -> bool {
        self.0.try_wait().expect("it is our child").is_some()
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
            let engine =
                fs::read_to_string(self.state().join("engines/engine-0/engine.log")).unwrap_or_default();
            let words: Vec<_> = engine.lines().collect();
            eprintln!("the engine's log ended with:\n{}", words[words.len().saturating_sub(40)..].join("\n"));
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

fn command(home: &Path, keys: &Path, how: &How) -> Command {
    let How { engines, arguments, environment, shell } = how;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell}\nexec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .arg("up")
        .arg(home.join("objects"))
        .arg("--state")
        .arg(home.join("state"))
        .args(["--admin", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--allow-loopback-endpoints"])
        .args(["--engines", &engines.to_string()])
        .arg("--keys")
        .arg(keys)
        .args(arguments)
        .env("TIDEGATE_ENVOY", parts::envoy())
        .env("TIDEGATE_MODULE", parts::module())
        .env("NO_COLOR", "1")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    command
}

/// Where it listens.
struct Addresses {
    admin: SocketAddr,
    dns: SocketAddr,
    xds: SocketAddr,
}

fn spawn(home: &Path, keys: &Path, how: &How) -> Child {
    let _ = fs::remove_file(home.join("state/up.json"));
    let log = fs::OpenOptions::new().create(true).append(true).open(home.join("log")).expect("a log");
    let child = command(home, keys, how).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
    child.expect("tidegate was built with this test")
}

fn must_spawn(home: &Path, keys: &Path, how: &How) -> (Child, Addresses) {
    let mut process = spawn(home, keys, how);
    match await_addresses(home, &mut process) {
        Some(addresses) => (process, addresses),
        None => panic!("it does not say where it listens\n{}", log_end(home)),
    }
}

/// Waits until it says where it listens; nothing where it ended before.
fn await_addresses(home: &Path, process: &mut Child) -> Option<Addresses> {
    let (said, begin) = (home.join("state/up.json"), Instant::now());
    loop {
        if let Some(addresses) = addresses(&said, process.id()) {
            return Some(addresses);
        }
        if process.try_wait().expect("it is our child").is_some() {
            return None;
        }
        if begin.elapsed() > DEADLINE {
            let _ = process.kill();
            return None;
        }
        std::thread::sleep(POLL);
    }
}

fn wait_death(process: &mut Child, home: &Path) {
    let begin = Instant::now();
    while process.try_wait().expect("it is our child").is_none() {
        if begin.elapsed() > DEADLINE {
            let _ = process.kill();
            panic!("it does not die\n{}", log_end(home));
        }
        std::thread::sleep(POLL);
    }
}

/// As it wrote them.
fn addresses(said: &Path, pid: u32) -> Option<Addresses> {
    let said: Value = serde_json::from_slice(&fs::read(said).ok()?).ok()?;
    let address = |what: &str| said[what].as_str()?.parse().ok();
    let all = || Some(Addresses { admin: address("admin")?, dns: address("dns")?, xds: address("xds")? });
    (said["pid"] == pid).then(all)?
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
