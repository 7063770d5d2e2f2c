//! Supervision of stock Envoy: started, restarted, adopted, replaced, drained.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

use rustix::process::{Pid, Signal, getpgid, kill_process};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread::JoinHandle,
    time::Duration,
};
use tempfile::TempDir;
use tidegate::engine::{
    ACCESS_LOG, AdminAddress, ENVOY_LOG, EngineError, EngineProcess, EngineSpec, EngineState, EnvoyLogLevel,
    Lock, Supervisor, directory,
};
use tokio::{task::JoinSet, time::timeout};

/// Far beyond what anything here takes: only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(30);

/// The pinned stock Envoy; the script installs it if it is not there.
fn envoy() -> PathBuf {
    static ENVOY: OnceLock<PathBuf> = OnceLock::new();
    let install = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/install.sh");
        assert!(script.exists(), "{} is missing: these tests run stock Envoy", script.display());
        let done = Command::new("bash").arg(&script).output().expect("bash runs");
        assert!(done.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&done.stderr));
        PathBuf::from(String::from_utf8(done.stdout).expect("a path").trim_end())
    };
    ENVOY.get_or_init(install).clone()
}

/// A home with the specs of engines in it. On drop, whatever still runs there is killed.
struct Home {
    folder: TempDir,
    backend: SocketAddr,
}

fn home() -> Home {
    Home { folder: tempfile::tempdir().unwrap(), backend: (Ipv4Addr::LOCALHOST, 9).into() }
}

impl Home {
    fn backend(mut self, backend: SocketAddr) -> Self {
        self.backend = backend;
        self
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("engines")
    }

    fn log(&self, name: &str, log: &str) -> String {
        std::fs::read_to_string(directory(&self.path(), name).join(log)).unwrap_or_default()
    }

    /// An engine that answers `body` at `/` and asks the backend at `/slow`.
    fn spec(&self, name: &str, body: &str) -> EngineSpec {
        let spec = self.raw_spec(name, "");
        let AdminAddress::Unix(admin) = &spec.admin else { unreachable!("raw_spec says unix") };
        std::fs::write(&spec.bootstrap, bootstrap(admin, body, self.backend)).unwrap();
        spec
    }

    fn raw_spec(&self, name: &str, bootstrap: &str) -> EngineSpec {
        let folder = directory(&self.path(), name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("bootstrap.yaml"), bootstrap).unwrap();
        EngineSpec {
            name: name.into(),
            envoy: envoy(),
            bootstrap: folder.join("bootstrap.yaml"),
            admin: AdminAddress::Unix(folder.join("admin.sock")),
            module_directory: None,
            concurrency: NonZeroU32::new(1),
            log_level: EnvoyLogLevel::Info,
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for folder in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let Ok(record) = std::fs::read_to_string(folder.path().join("process.json")) else { continue };
            let record: serde_json::Value = serde_json::from_str(&record).unwrap();
            if let Some(pid) = record["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

fn bootstrap(admin: &Path, body: &str, backend: SocketAddr) -> String {
    let (admin, ip, port) = (admin.display(), backend.ip(), backend.port());
    format!(
        r#"
admin: {{address: {{pipe: {{path: "{admin}"}}}}}}
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          access_log:
          - name: stdout
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{prefix: /slow}}, route: {{cluster: backend, timeout: 0s}}}}
              - {{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: "{body}"}}}}}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}
"#
    )
}

fn lock(home: &Home) -> Lock {
    Lock::take(&home.path()).expect("the home is ours")
}

async fn start(home: &Home, specs: Vec<EngineSpec>) -> Supervisor {
    Supervisor::start(lock(home), specs).await.expect("the home is ours")
}

/// The engine's status when it is as it should be.
async fn until(
    supervisor: &Supervisor,
    name: &str,
    mut as_expected: impl FnMut(&EngineProcess) -> bool,
) -> EngineProcess {
    let mut watch = supervisor.watch();
    let seen = timeout(PATIENCE, watch.wait_for(|all| all.get(name).is_some_and(&mut as_expected))).await;
    match seen {
        Ok(all) => all.expect("the supervisor lives")[name].clone(),
        Err(_) => panic!("after {PATIENCE:?} still {:?}", supervisor.status()),
    }
}

async fn running(supervisor: &Supervisor, name: &str) -> Pid {
    pid(&until(supervisor, name, |engine| engine.state == EngineState::Running).await)
}

fn pid(process: &EngineProcess) -> Pid {
    Pid::from_raw(process.pid.expect("it has a process") as i32).expect("a pid")
}

/// A zombie whose parent has not looked yet is dead.
fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// Where the engine's listener is: asked of its admin.
fn listener(spec: &EngineSpec) -> SocketAddr {
    let AdminAddress::Unix(admin) = &spec.admin else { unreachable!("raw_spec says unix") };
    let mut stream = std::os::unix::net::UnixStream::connect(admin).expect("the admin listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /listeners HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let at = answer.split("web::").nth(1).expect("it has the listener").lines().next().unwrap();
    at.parse().unwrap()
}

fn request(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    stream
}

/// The first bytes of an answer whose connection may stay open.
fn head(mut stream: TcpStream) -> String {
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).expect("an answer");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// All of an answer that ends its connection.
fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A backend that answers its one request when the test says so.
struct Slow {
    listener: TcpListener,
}

impl Slow {
    fn bind() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Waits for the request.
    fn take(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).unwrap() > 0, "a request");
        stream
    }
}

fn answer(mut stream: TcpStream) {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nfinished").unwrap();
}

fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(work)
}

#[tokio::test]
async fn starts_and_restarts_after_a_crash() {
    let home = home();
    let spec = home.spec("edge", "hello");
    let supervisor = start(&home, vec![spec.clone()]).await;
    let first = running(&supervisor, "edge").await;
    assert!(get(listener(&spec)).ends_with("hello"));
    assert_eq!(getpgid(Some(first)).unwrap(), first, "a Ctrl-C at our terminal is not Envoy's");
    let environment = std::fs::read(format!("/proc/{}/environ", first.as_raw_nonzero())).unwrap();
    assert_eq!(String::from_utf8_lossy(&environment), "", "nothing of our environment is Envoy's");

    kill_process(first, Signal::KILL).unwrap();
    let again =
        until(&supervisor, "edge", |engine| engine.restarts == 1 && engine.state == EngineState::Running)
            .await;
    assert_ne!(pid(&again), first);
    assert!(again.last_error.as_deref().unwrap().starts_with("killed by signal 9"), "{again:?}");
    assert!(get(listener(&spec)).ends_with("hello"));

    supervisor.shutdown(Duration::ZERO).await;
    assert!(!lives(pid(&again)), "nothing is left behind");
    let AdminAddress::Unix(admin) = &spec.admin else { unreachable!("raw_spec says unix") };
    assert!(!admin.exists() && !admin.with_file_name("process.json").exists());
    assert!(home.log("edge", ACCESS_LOG).contains("GET / HTTP/1.1"), "{}", home.log("edge", ACCESS_LOG));
    assert!(home.log("edge", ENVOY_LOG).contains("starting main dispatch loop"));
}

#[tokio::test]
async fn outlives_its_supervisor_and_is_adopted() {
    let home = home();
    let spec = home.spec("edge", "hello");
    let supervisor = start(&home, vec![spec.clone()]).await;
    let first = running(&supervisor, "edge").await;
    let refused = Lock::take(&home.path()).expect_err("it is held");
    assert!(matches!(&refused, EngineError::Locked { .. }), "{refused}");
    supervisor.detach().await;
    assert!(get(listener(&spec)).ends_with("hello"), "serves without us");

    let second = start(&home, vec![spec.clone()]).await;
    let adopted = until(&second, "edge", |engine| engine.state == EngineState::Adopted).await;
    assert_eq!((pid(&adopted), adopted.restarts), (first, 0));
    kill_process(first, Signal::KILL).unwrap();
    let next = running(&second, "edge").await;
    assert_ne!(next, first, "an adopted one is watched like any");
    second.shutdown(Duration::ZERO).await;
    assert!(!lives(next));
}

#[tokio::test]
async fn dropped_supervisor_leaves_envoy_and_frees_its_home() {
    let home = home();
    let spec = home.spec("edge", "hello");
    let supervisor = start(&home, vec![spec.clone()]).await;
    let first = running(&supervisor, "edge").await;
    drop(supervisor);
    // The tasks end on their own time, and with them the lock.
    let second = timeout(PATIENCE, async {
        loop {
            match Lock::take(&home.path()) {
                Ok(lock) => return Supervisor::start(lock, vec![spec.clone()]).await.expect("as before"),
                Err(EngineError::Locked { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let second = second.await.expect("the lock is let go of");
    let adopted = until(&second, "edge", |engine| engine.state == EngineState::Adopted).await;
    assert_eq!(pid(&adopted), first);
    second.shutdown(Duration::ZERO).await;
    assert!(!lives(first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_an_open_request_finish() {
    let slow = Slow::bind();
    let home = home().backend(slow.address());
    let spec = home.spec("edge", "hello");
    let supervisor = start(&home, vec![spec.clone()]).await;
    let envoy = running(&supervisor, "edge").await;
    let address = listener(&spec);
    let client = in_thread(move || {
        let mut stream = request(address, "/slow");
        let mut answer = Vec::new();
        while !answer.ends_with(b"finished") {
            let mut bytes = [0; 4096];
            let length = stream.read(&mut bytes).expect("the connection is not broken");
            assert!(length > 0, "it ended with {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..length]);
        }
        String::from_utf8(answer).unwrap()
    });
    let open = in_thread(move || slow.take()).join().unwrap();

    let mut watch = supervisor.watch();
    let mut tasks = JoinSet::new();
    tasks.spawn(supervisor.shutdown(DRAIN));
    timeout(PATIENCE, watch.wait_for(|all| all["edge"].state == EngineState::Draining))
        .await
        .unwrap()
        .unwrap();
    // Until Envoy itself says that it drains: new answers tell their clients to close.
    let told_to_close = async {
        while !head(request(address, "/")).contains("connection: close") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, told_to_close).await.expect("Envoy drains");
    assert!(lives(envoy) && tasks.try_join_next().is_none());
    answer(open);
    let finished = client.join().unwrap();
    assert!(finished.contains("connection: close"), "{finished}");
    let done = timeout(DRAIN / 2, tasks.join_next()).await.expect("done before the drain time is over");
    done.expect("one task").expect("it did not panic");
    assert!(!lives(envoy));
}

#[tokio::test]
async fn drain_time_bounds_a_client_that_stays() {
    let home = home();
    let spec = home.spec("edge", "hello");
    let supervisor = start(&home, vec![spec.clone()]).await;
    let envoy = running(&supervisor, "edge").await;
    let mut idle = request(listener(&spec), "/");
    assert!(idle.read(&mut [0; 4096]).unwrap() > 0, "answered, and kept open");
    timeout(PATIENCE, supervisor.shutdown(Duration::from_secs(1))).await.expect("bounded");
    assert!(!lives(envoy));
    assert_eq!(idle.read(&mut [0; 4096]).unwrap_or(0), 0, "closed with Envoy");
}

#[tokio::test]
async fn another_bootstrap_replaces_what_was_left() {
    let home = home();
    let old = home.spec("edge", "old");
    let supervisor = start(&home, vec![old]).await;
    let first = running(&supervisor, "edge").await;
    supervisor.detach().await;
    let new = home.spec("edge", "new");
    let supervisor = start(&home, vec![new.clone()]).await;
    let second = running(&supervisor, "edge").await;
    assert!(second != first && !lives(first));
    assert!(get(listener(&new)).ends_with("new"));

    home.spec("edge", "newest");
    supervisor.restart("edge", DRAIN).await;
    let third = until(&supervisor, "edge", |engine| {
        engine.state == EngineState::Running && engine.pid != Some(second.as_raw_nonzero().get() as u32)
    });
    let third = third.await;
    assert_eq!((third.restarts, third.last_error), (0, None), "a replacement is no crash");
    assert!(get(listener(&new)).ends_with("newest"));
    supervisor.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_stopped() {
    let home = home();
    let specs = vec![home.spec("edge-0", "0"), home.spec("edge-1", "1")];
    let supervisor = start(&home, specs.clone()).await;
    let keep = running(&supervisor, "edge-0").await;
    let gone = running(&supervisor, "edge-1").await;
    supervisor.detach().await;
    let supervisor = start(&home, specs[..1].to_vec()).await;
    until(&supervisor, "edge-1", |engine| engine.state == EngineState::Stopped).await;
    let kept = until(&supervisor, "edge-0", |engine| engine.state == EngineState::Adopted).await;
    assert!(pid(&kept) == keep && lives(keep) && !lives(gone));
    supervisor.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn an_unrecorded_envoy_of_the_dead_is_found_by_its_admin_socket() {
    let home = home();
    let spec = home.spec("edge", "hello");
    let folder = directory(&home.path(), "edge");
    let AdminAddress::Unix(admin) = &spec.admin else { unreachable!("raw_spec says unix") };
    // As if we had been killed between the launch and its record: its parent is gone.
    let script = r#""$0" --config-path "$1" --disable-hot-restart >/dev/null 2>&1 </dev/null & echo $!"#;
    let shell =
        Command::new("sh").args(["-c", script]).arg(&spec.envoy).arg(&spec.bootstrap).output().unwrap();
    let first = Pid::from_raw(String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap()).unwrap();
    // For `Home`, should this test fail.
    std::fs::write(folder.join("process.json"), format!(r#"{{"pid":{}}}"#, first.as_raw_nonzero())).unwrap();
    let listens = async {
        while std::os::unix::net::UnixStream::connect(admin).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, listens).await.expect("Envoy starts");
    let supervisor = start(&home, vec![spec]).await;
    let second = running(&supervisor, "edge").await;
    assert!(second != first && !lives(first), "what cannot be vouched for is replaced, not doubled");
    supervisor.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_stranger_at_the_admin_socket_is_left_alone() {
    let home = home();
    let spec = home.spec("edge", "hello");
    let AdminAddress::Unix(admin) = &spec.admin else { unreachable!("raw_spec says unix") };
    // This very process: were it taken for the Envoy, the test would be terminated.
    let stranger = std::os::unix::net::UnixListener::bind(admin).unwrap();
    let asked = in_thread(move || {
        let (mut stream, _) = stranger.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0, "a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nLIVE\n").unwrap();
    });
    let supervisor = start(&home, vec![spec.clone()]).await;
    running(&supervisor, "edge").await;
    asked.join().expect("it was asked");
    assert!(get(listener(&spec)).ends_with("hello"));
    supervisor.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_reused_pid_is_nobody_we_know() {
    let home = home();
    let spec = home.spec("edge", "hello");
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    let record = serde_json::json!({
        "pid": bystander.id(), "startTime": 1, "content": "", "spec": spec,
    });
    std::fs::write(directory(&home.path(), "edge").join("process.json"), record.to_string()).unwrap();
    let supervisor = start(&home, vec![spec]).await;
    running(&supervisor, "edge").await;
    supervisor.shutdown(Duration::ZERO).await;
    assert!(bystander.try_wait().unwrap().is_none(), "a stranger was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_bad_bootstrap_is_told_in_envoys_words_and_mended() {
    let home = home();
    let spec = home.raw_spec("edge", "static_resources: {listenerz: []}");
    let supervisor = start(&home, vec![spec]).await;
    let looping =
        until(&supervisor, "edge", |engine| matches!(engine.state, EngineState::CrashLoop { .. })).await;
    let words = looping.last_error.unwrap();
    assert!(words.starts_with("exit status 1: ") && words.contains("listenerz"), "{words}");

    home.spec("edge", "mended");
    let mended = until(&supervisor, "edge", |engine| engine.state == EngineState::Running).await;
    assert!(mended.restarts >= 2, "{mended:?}");
    supervisor.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_missing_envoy_is_told() {
    let home = home();
    let spec = EngineSpec { envoy: "/nowhere/envoy".into(), ..home.spec("edge", "hello") };
    let supervisor = start(&home, vec![spec]).await;
    let failed = until(&supervisor, "edge", |engine| engine.last_error.is_some()).await;
    let why = failed.last_error.unwrap();
    assert!(why.contains("/nowhere/envoy") && why.contains("check that both exist"), "{why}");
    supervisor.shutdown(DRAIN).await;
}
