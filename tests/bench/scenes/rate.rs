//! Requests a second through one Envoy on one core: with all that Tidegate puts
//! there, against an Envoy that has one listener, one route and one cluster.
//!
//! Both have one worker and are held to one core; client and backends have the
//! others. Rounds alternate. Ours logs each request, as it does unless told not to;
//! the bare one runs with the same log and without.

mod client;

use super::Scene;
use crate::harness::{
    CONNECTIONS,
    machine::{self, Cpu, Foreign},
    manifests::{BACKENDS, host},
    probe,
    processes::{self, Role},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tidegate::settings::Settings;

pub(super) const NAME: &str = "request rate";
/// Before each round, not counted.
const WARM_UP: Duration = Duration::from_millis(300);
const START_MAX: Duration = Duration::from_secs(30);
const BARE_ADDRESS: [u8; 4] = [127, 81, 1, 3];

/// One Envoy under load.
struct Target {
    name: &'static str,
    at: SocketAddr,
    pid: u32,
    rates: Vec<f64>,
    /// Envoy CPU a request, microseconds.
    costs: Vec<f64>,
    /// Of its core.
    busy: Vec<f64>,
}

impl Scene<'_> {
    pub(super) fn request_rate(&mut self) {
        self.endpoint_of_a_is_a();
        self.site.quiet(self.options.foreign_max);
        let ours = self.site.pid(Role::Envoy);
        let log = access_log(ours);
        let backend = self.site.ports.backend;
        let (logged, plain) = (Bare::start(backend, Some(log)), Bare::start(backend, None));
        let target = |name, at, pid| Target { name, at, pid, rates: vec![], costs: vec![], busy: vec![] };
        let mut targets = [
            target("with our chain", self.site.http(), ours),
            target("bare Envoy, same access log", logged.at, logged.process.id()),
            target("bare Envoy, no access log", plain.at, plain.process.id()),
        ];
        let others = self.site.pids().filter(|pid| *pid != ours).chain([std::process::id()]);
        let others: Vec<u32> = others.collect();
        let cores = machine::cores();
        let held = cores.len() > 1;
        if held {
            targets.iter().for_each(|target| machine::hold(target.pid, &cores[..1]));
            others.iter().for_each(|pid| machine::hold(*pid, &cores[1..]));
        }
        let hosts: Vec<String> =
            (0..CONNECTIONS).map(|k| host(self.n / 2 + k * self.n / 4 / CONNECTIONS)).collect();
        let foreign = Foreign::start(self.used_with(&targets));
        for _ in 0..self.options.rounds {
            targets.iter_mut().for_each(|target| target.round(&hosts, self.options.load));
        }
        let foreign = foreign.cores(self.used_with(&targets));
        if held {
            others.iter().for_each(|pid| machine::hold(*pid, &cores));
            machine::hold(ours, &cores);
        }
        self.rates(&targets, foreign);
    }

    fn rates(&mut self, targets: &[Target], foreign: f64) {
        for Target { name, at: _, pid: _, rates, costs, busy } in targets {
            self.figure(&format!("{NAME}, one core: {name}"), median(rates), "1/s", None, foreign);
            self.figure(&format!("{NAME}: {name}, Envoy CPU a request"), median(costs), "us", None, foreign);
            self.figure(&format!("{NAME}: {name}, its core"), median(busy), "cores", None, foreign);
        }
        let [ours, logged, plain] = targets else { unreachable!("there are three") };
        for (bare, log) in [(logged, "the same access log"), (plain, "no access log")] {
            let rate = median(&ours.rates) / median(&bare.rates);
            self.figure(&format!("{NAME}: ours against bare with {log}"), rate, "x", None, foreign);
            let cost = median(&ours.costs) / median(&bare.costs);
            let name = format!("{NAME}: CPU a request, ours against bare with {log}");
            self.figure(&name, cost, "x", None, foreign);
        }
    }

    /// CPU of everything that takes part.
    fn used_with(&mut self, targets: &[Target]) -> Duration {
        let bare = targets.iter().skip(1).map(|target| Cpu::of(target.pid).now());
        bare.sum::<Duration>() + self.site.used().all
    }
}

impl Target {
    fn round(&mut self, hosts: &[String], load: Duration) {
        client::drive(self.at, hosts, WARM_UP);
        let mut cpu = Cpu::of(self.pid);
        let before = cpu.now();
        let (requests, took) = client::drive(self.at, hosts, load);
        let used = (cpu.now() - before).as_secs_f64();
        #[expect(clippy::cast_precision_loss)]
        let requests = requests as f64;
        self.rates.push(requests / took.as_secs_f64());
        self.costs.push(used * 1e6 / requests);
        self.busy.push(used / took.as_secs_f64());
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The access log of the first listener that this Envoy was given, as it is.
fn access_log(envoy: u32) -> Value {
    let bootstrap = processes::argument(envoy, "--config-path").expect("it has a bootstrap");
    let bootstrap: Value =
        serde_json::from_slice(&fs::read(&bootstrap).expect("it is readable")).expect("a bootstrap is JSON");
    let path = bootstrap["admin"]["address"]["pipe"]["path"].as_str().expect("its admin is on a socket");
    let mut stream = UnixStream::connect(path).expect("it listens");
    let request = probe::request("admin", "/config_dump?resource=dynamic_listeners");
    stream.write_all(request.as_bytes()).expect("it reads");
    let (answer, _) = probe::read(&mut BufReader::new(stream)).expect("it answers");
    let dump: Value = serde_json::from_str(&answer.body).expect("Envoy speaks JSON");
    find(&dump, "access_log").expect("our listeners log").clone()
}

fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => fields.get(name).or_else(|| fields.values().find_map(|v| find(v, name))),
        Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A stock Envoy that only passes on.
struct Bare {
    process: Child,
    at: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Bare {
    fn start(backend: u16, access_log: Option<Value>) -> Self {
        let folder = tempfile::Builder::new().prefix("tidegate-bare-").tempdir().expect("a folder");
        let free = TcpListener::bind((std::net::Ipv4Addr::from(BARE_ADDRESS), 0)).expect("a free port");
        let at = free.local_addr().expect("it is bound");
        drop(free);
        let config = folder.path().join("config.json");
        fs::write(&config, bare(at, backend, access_log).to_string()).expect("the folder is ours");
        let process = spawn(&config, folder.path());
        let begin = Instant::now();
        while !probe::Probe::new(at).get("any", "/").is_ok_and(|answer| answer.status == 200) {
            assert!(begin.elapsed() < START_MAX, "the bare Envoy does not serve");
            sleep(Duration::from_millis(20));
        }
        Self { process, at, _folder: folder }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(config: &Path, folder: &Path) -> Child {
    let settings = Settings::from_environment().expect("the site started with the same");
    let envoy = settings.find_envoy().expect("the site started with the same");
    let file = |name: &str| File::create(folder.join(name)).expect("the folder is ours");
    Command::new(envoy)
        .arg("--config-path")
        .arg(config)
        .args(["--concurrency", "1", "--disable-hot-restart"])
        .stdin(Stdio::null())
        .stdout(file("access.log"))
        .stderr(file("envoy.log"))
        .spawn()
        .expect("Envoy starts")
}

fn bare(at: SocketAddr, backend: u16, access_log: Option<Value>) -> Value {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let address = |ip: String, port: u16| json!({"socket_address": {"address": ip, "port_value": port}});
    let (_, backend_address) = BACKENDS[0];
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": "bare",
        "access_log": access_log.unwrap_or_else(|| json!([])),
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}],
        }]},
    });
    let endpoint = json!({"endpoint": {"address": address(backend_address.to_owned(), backend)}});
    json!({"static_resources": {
        "listeners": [{
            "name": "bare",
            "address": address(at.ip().to_string(), at.port()),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }],
    }})
}
