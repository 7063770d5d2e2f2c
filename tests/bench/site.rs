//! One `tidegate up` with one stock Envoy, as an operator would run it.

use crate::{
    machine::{self, Cpu, Foreign},
    manifests::Ports,
    probe::Probe,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest wait for the site to be ready, and for one change to show.
const READY_MAX: Duration = Duration::from_secs(300);
/// How often readiness is asked for: each answer costs the control plane time.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Our processes are quiet when they take less than this of a core...
const QUIET_CORES: f64 = 0.02;
/// ...for this long.
const QUIET: Duration = Duration::from_millis(300);
/// Longest wait for quiet, ours and of others.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// Processes, folders and addresses; all gone when dropped.
pub struct Site {
    scratch: TempDir,
    control: Child,
    pub started: Instant,
    pub engine: u32,
    pub ports: Ports,
    vip: IpAddr,
    control_cpu: Cpu,
    engine_cpu: Cpu,
    own_cpu: Cpu,
}

/// CPU of the control plane, of Envoy, and of all our processes together.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub control: Duration,
    pub engine: Duration,
    pub all: Duration,
}

/// A folder for manifests, and one beside it where files are written first.
pub fn folders() -> TempDir {
    let scratch = tempfile::Builder::new().prefix("tidegate-bench-").tempdir().expect("a scratch folder");
    for folder in ["objects", "staging", "state"] {
        fs::create_dir(scratch.path().join(folder)).expect("a folder of our own");
    }
    scratch
}

/// Two ports nobody has now.
pub fn free_ports(backend: u16) -> Ports {
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.81.0.1", 0)).expect("a free port"));
    let [http, https] = listeners.map(|listener| listener.local_addr().expect("it is bound").port());
    Ports { http, https, backend }
}

impl Site {
    /// Starts on `scratch`, whose manifests are all there; gives it when ready.
    pub fn start(scratch: TempDir, ports: Ports, concurrency: u32) -> Self {
        let log = File::create(scratch.path().join("log")).expect("a log file");
        let started = Instant::now();
        let control = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("up")
            .arg(scratch.path().join("objects"))
            .arg("--state")
            .arg(scratch.path().join("state"))
            .args(["--admin", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--allow-loopback-endpoints"])
            .args(["--concurrency", &concurrency.to_string()])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the tidegate binary was built with this bench");
        let control_cpu = Cpu::of(control.id());
        let vip = IpAddr::from([127, 81, 0, 0]);
        let own_cpu = Cpu::of(std::process::id());
        let engine_cpu = Cpu::of(0);
        let mut site =
            Self { scratch, control, started, engine: 0, ports, vip, control_cpu, engine_cpu, own_cpu };
        site.wait_ready();
        site
    }

    fn wait_ready(&mut self) {
        let admin = loop {
            let up = fs::read(self.state("up.json")).ok();
            let up = up.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
            if let Some(admin) = up.as_ref().and_then(|up| up["admin"].as_str()?.parse().ok()) {
                break admin;
            }
            self.wait("up.json");
        };
        let mut admin = Probe::new(admin);
        while !admin.get("admin", "/readyz").is_ok_and(|answer| answer.status == 200) {
            self.wait("/readyz");
        }
        let vips = admin.get("admin", "/api/v1/vips").expect("the admin API answers").body;
        let vips: serde_json::Value = serde_json::from_str(&vips).expect("the admin API speaks JSON");
        let vip = vips[0]["addresses"][0].as_str().and_then(|text| text.parse().ok());
        self.vip = vip.unwrap_or_else(|| panic!("no VIP in {vips}"));
        let record = fs::read(self.state("engines/engine-0/process.json")).expect("the engine's record");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("the record is JSON");
        self.engine = record["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a pid");
        self.engine_cpu = Cpu::of(self.engine);
    }

    fn wait(&mut self, what: &str) {
        let ended = self.control.try_wait().expect("our own child");
        if ended.is_some() || self.started.elapsed() > READY_MAX {
            let log = fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            panic!("no {what} yet, ended: {ended:?}; its log, last line first:\n{}", tail.join("\n"));
        }
        sleep(READY_PAUSE);
    }

    fn state(&self, file: &str) -> PathBuf {
        self.scratch.path().join("state").join(file)
    }

    /// Where requests go.
    pub fn http(&self) -> SocketAddr {
        (self.vip, self.ports.http).into()
    }

    pub fn https(&self) -> SocketAddr {
        (self.vip, self.ports.https).into()
    }

    /// Puts a file in place at one instant: the one just before.
    pub fn put(&self, file: &str, text: &str) -> Instant {
        let staged = self.scratch.path().join("staging").join(file);
        fs::write(&staged, text).expect("a file can be written");
        let target = self.scratch.path().join("objects").join(file);
        let at = Instant::now();
        fs::rename(staged, target).expect("a file can be moved into place");
        at
    }

    pub fn used(&mut self) -> Used {
        let (control, engine) = (self.control_cpu.now(), self.engine_cpu.now());
        Used { control, engine, all: control + engine + self.own_cpu.now() }
    }

    /// Waits until our processes have nothing to do, and until others take less
    /// than `foreign_max` cores; both for a bounded time. Gives what others took.
    pub fn quiet(&mut self, foreign_max: f64) -> f64 {
        let start = Instant::now();
        loop {
            let before = self.used();
            let foreign = Foreign::start(before.all);
            sleep(QUIET);
            let after = self.used();
            let ours = (after.control + after.engine).saturating_sub(before.control + before.engine);
            let foreign = foreign.cores(after.all);
            let quiet = ours.as_secs_f64() < QUIET_CORES * QUIET.as_secs_f64() && foreign < foreign_max;
            if quiet || start.elapsed() > QUIET_MAX {
                return foreign;
            }
        }
    }

    /// Resident memory of the control plane and of Envoy in MiB.
    pub fn memory(&self, field: &str) -> (f64, f64) {
        (machine::memory_mib(self.control.id(), field), machine::memory_mib(self.engine, field))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The control plane first: it would start its Envoy again.
        let _ = self.control.kill();
        let _ = self.control.wait();
        let engine = i32::try_from(self.engine).ok().and_then(Pid::from_raw);
        if let Some(engine) = engine {
            let _ = kill_process(engine, Signal::KILL);
        }
    }
}
