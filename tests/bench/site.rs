//! One `tidegate up` with one stock Envoy, as an operator would run it (its processes
//! are found by their roles); or `tidegate serve`, for engines that are simulated.

use crate::harness::{
    machine::{self, Cpu, Foreign},
    manifests::Ports,
    probe::Probe,
    processes::{self, Role},
};
use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest wait for the site to be ready, and for one change to show.
const READY_MAX: Duration = Duration::from_secs(300);
/// How often readiness is asked for: each answer costs the control plane time.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// How often its addresses are looked for: that costs it nothing.
const ADDRESS_PAUSE: Duration = Duration::from_millis(2);
/// Our processes are quiet when they take less than this of a core...
const QUIET_CORES: f64 = 0.02;
/// ...for this long.
const QUIET: Duration = Duration::from_millis(300);
/// Longest wait for quiet, ours and of others.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// Who runs the Envoys.
#[derive(Debug, Clone, Copy)]
pub enum Engines {
    /// `tidegate up`: one Envoy with this many workers.
    One { concurrency: u32 },
    /// `tidegate serve`: they come from elsewhere.
    Elsewhere,
}

/// Processes, folders and addresses; all gone when dropped.
pub struct Site {
    folder: Folder,
    engines: Engines,
    control: Child,
    /// Of the control plane, the last time.
    pub started: Instant,
    pub ports: Ports,
    vip: IpAddr,
    admin: Probe,
    /// Where engines come to, by mTLS.
    pub xds: SocketAddr,
    cpu: Vec<(Role, Cpu)>,
    own_cpu: Cpu,
}

/// The folder of manifests, another beside it where files are written first, and
/// the state of the control plane.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        let scratch = tempfile::Builder::new().prefix("tidegate-bench-").tempdir().expect("a scratch folder");
        for folder in ["objects", "staging", "state"] {
            fs::create_dir(scratch.path().join(folder)).expect("a folder of our own");
        }
        Self(scratch)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Writes a file where it belongs, before anybody looks.
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join("objects").join(file), text).expect("a file can be written");
    }

    /// Puts a file in place at one instant: the one just before.
    pub fn put(&self, file: &str, text: &str) -> Instant {
        stage(self.path(), file, text);
        put(self.path(), file)
    }
}

/// Writes a file beside where it belongs.
pub fn stage(home: &Path, file: &str, text: &str) {
    fs::write(home.join("staging").join(file), text).expect("a file can be written");
}

/// Moves a staged file into place.
pub fn put(home: &Path, file: &str) -> Instant {
    let (staged, target) = (home.join("staging").join(file), home.join("objects").join(file));
    let at = Instant::now();
    fs::rename(staged, target).expect("a file can be moved into place");
    at
}

/// CPU of each role that is there, and of all our processes together.
#[derive(Debug, Clone)]
pub struct Used {
    roles: Vec<(Role, Duration)>,
    pub all: Duration,
}

impl Used {
    pub fn of(&self, role: Role) -> Option<Duration> {
        self.roles.iter().find(|(is, _)| *is == role).map(|(_, used)| *used)
    }

    /// What each role took since then.
    pub fn since(&self, before: &Self) -> Vec<(Role, Duration)> {
        let took = |(role, now): &(Role, Duration)| Some((*role, now.saturating_sub(before.of(*role)?)));
        self.roles.iter().filter_map(took).collect()
    }
}

/// How far a control plane has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    Reading,
    /// All files are read; an engine lacks something, or is not there.
    Read,
    Synced,
}

/// Two ports nobody has now.
pub fn free_ports(backend: u16) -> Ports {
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.81.0.1", 0)).expect("a free port"));
    let [http, https] = listeners.map(|listener| listener.local_addr().expect("it is bound").port());
    Ports { http, https, backend }
}

impl Site {
    /// Starts on a folder whose manifests are all there; gives it when ready.
    pub fn start(folder: Folder, ports: Ports, engines: Engines) -> Self {
        let started = Instant::now();
        let control = launch(&folder, engines);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut site = Self {
            folder,
            engines,
            control,
            started,
            ports,
            vip: IpAddr::from([127, 81, 0, 0]),
            admin: Probe::new(nowhere),
            xds: nowhere,
            cpu: Vec::new(),
            own_cpu: Cpu::of(std::process::id()),
        };
        site.find_addresses();
        while !site.ready() {
            site.pause("/readyz", READY_PAUSE);
        }
        let vips = site.ask("/api/v1/vips");
        let vip = vips[0]["addresses"][0].as_str().and_then(|text| text.parse().ok());
        site.vip = vip.unwrap_or_else(|| panic!("no VIP in {vips}"));
        site.find_processes();
        site
    }

    /// Ends the control plane as a crash does; what runs beside it is left alone.
    pub fn crash(&mut self) {
        self.control.kill().expect("it runs");
        self.control.wait().expect("it is our child");
        let _ = fs::remove_file(self.folder.state().join("up.json"));
    }

    /// Returns when it listens.
    pub fn start_again(&mut self) {
        self.started = Instant::now();
        self.control = launch(&self.folder, self.engines);
        self.find_addresses();
    }

    fn find_addresses(&mut self) {
        let up = loop {
            let up = fs::read(self.folder.state().join("up.json")).ok();
            let up = up.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
            if let Some(up) = up.filter(|up| up["pid"] == self.control.id()) {
                break up;
            }
            self.pause("up.json", ADDRESS_PAUSE);
        };
        let address = |name: &str| up[name].as_str().and_then(|text| text.parse().ok());
        self.admin = Probe::new(address("admin").expect("the admin API has an address"));
        self.xds = address("xds").expect("the xDS server has an address");
    }

    /// The CPU of processes that are new counts from their start.
    pub fn find_processes(&mut self) {
        let found = processes::of(self.folder.path());
        self.cpu = found.into_iter().map(|(role, pid)| (role, Cpu::of(pid))).collect();
        let envoys = self.cpu.iter().filter(|(role, _)| *role == Role::Envoy).count();
        let wanted = usize::from(matches!(self.engines, Engines::One { .. }));
        assert!(envoys == wanted, "{envoys} Envoys of {wanted} run");
    }

    /// Whether everything was read and every engine is in sync.
    pub fn ready(&mut self) -> bool {
        self.readiness() == Some(Readiness::Synced)
    }

    /// Nothing before the admin API answers.
    pub fn readiness(&mut self) -> Option<Readiness> {
        let answer = self.admin.get("admin", "/readyz").ok()?;
        Some(match answer.status {
            200 => Readiness::Synced,
            _ if answer.body.starts_with("engine") => Readiness::Read,
            _ => Readiness::Reading,
        })
    }

    /// Asks the admin API for JSON.
    pub fn ask(&mut self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.ask_text(path)).expect("the admin API speaks JSON")
    }

    /// Asks the admin API.
    pub fn ask_text(&mut self, path: &str) -> String {
        self.admin.get("admin", path).expect("the admin API answers").body
    }

    /// Resources and removals sent to all engines on the streams they have now.
    pub fn sent(&mut self) -> f64 {
        let status = self.ask("/api/v1/status");
        let engines = status["engines"].as_array().expect("engines are listed");
        engines.iter().map(|engine| engine["sent"].as_f64().expect("what was sent is counted")).sum()
    }

    /// Waits a little, if the control plane lives and there is time left.
    pub fn pause(&mut self, what: &str, time: Duration) {
        let ended = self.control.try_wait().expect("our own child");
        if ended.is_some() || self.started.elapsed() > READY_MAX {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            panic!("no {what} yet, ended: {ended:?}; its log, last line first:\n{}", tail.join("\n"));
        }
        sleep(time);
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where requests go.
    pub fn http(&self) -> SocketAddr {
        (self.vip, self.ports.http).into()
    }

    pub fn https(&self) -> SocketAddr {
        (self.vip, self.ports.https).into()
    }

    pub fn used(&mut self) -> Used {
        let roles: Vec<_> = self.cpu.iter_mut().map(|(role, cpu)| (*role, cpu.now())).collect();
        let all = roles.iter().map(|(_, used)| *used).sum::<Duration>() + self.own_cpu.now();
        Used { roles, all }
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
            let ours: Duration = after.since(&before).into_iter().map(|(_, took)| took).sum();
            let foreign = foreign.cores(after.all);
            let quiet = ours.as_secs_f64() < QUIET_CORES * QUIET.as_secs_f64() && foreign < foreign_max;
            if quiet || start.elapsed() > QUIET_MAX {
                return foreign;
            }
        }
    }

    /// A field of memory in MiB of each role that is there.
    pub fn memory(&self, field: &str) -> Vec<(Role, f64)> {
        self.cpu.iter().map(|(role, cpu)| (*role, machine::memory_mib(cpu.pid, field))).collect()
    }

    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.cpu.iter().map(|(_, cpu)| cpu.pid)
    }

    pub fn pid(&self, role: Role) -> u32 {
        let found = self.cpu.iter().find(|(is, _)| *is == role);
        found.unwrap_or_else(|| panic!("no {} runs", role.name())).1.pid
    }
}

fn launch(folder: &Folder, engines: Engines) -> Child {
    let log = File::options().create(true).append(true).open(folder.path().join("log"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg(match engines {
        Engines::One { .. } => "up",
        Engines::Elsewhere => "serve",
    });
    command.arg(folder.path().join("objects")).arg("--state").arg(folder.state());
    command.args(["--admin", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--allow-loopback-endpoints"]);
    if let Engines::One { concurrency } = engines {
        command.args(["--concurrency", &concurrency.to_string()]);
    }
    command.stdin(Stdio::null()).stderr(log.expect("a log file"));
    command.spawn().expect("the tidegate binary was built with this bench")
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.control.kill();
        let _ = self.control.wait();
        for role in Role::ALL {
            let left = processes::of(self.folder.path());
            left.into_iter().filter(|(is, _)| *is == role).for_each(|(_, pid)| processes::kill(pid));
        }
    }
}
