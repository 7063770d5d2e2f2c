//! An Envoy that somebody else runs joins a control plane by `tidegate bootstrap`.

#![expect(clippy::disallowed_methods, reason = "real processes are held to real time")]

use crate::support::live::{Ingress, Request, Service, client, documents, manifest::class, parts};
use serde_json::{Value, json};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Ends with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tidegate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
}

fn port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("bound").port()
}

/// Writes manifests that serve `one.live.test` on 127.98.0.1 and a free port.
fn manifests(folder: &Path, service: &Service, http: u16) {
    let mut objects = class("live", &json!({"listeners": {"http": http, "https": 0}})).to_vec();
    objects.extend(service.manifests());
    objects.push(Ingress::new("shop", "one", "live").prefix("one.live.test", "/", "any").into());
    objects.push(json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "VipPool",
        "metadata": {"name": "live"}, "spec": {"addresses": ["127.98.0.1"]},
    }));
    fs::write(folder.join("all.yaml"), documents(&objects)).expect("written");
}

#[test]
fn an_envoy_from_elsewhere_joins() {
    let home = tempfile::tempdir().expect("a folder");
    let [folder, state, modules, files] =
        ["objects", "state", "modules", "files"].map(|name| home.path().join(name));
    for made in [&folder, &state, &modules] {
        fs::create_dir(made).expect("a folder");
    }
    let (service, http) = (Service::new("shop", "any"), port());
    manifests(&folder, &service, http);
    let serve = tidegate()
        .arg("serve")
        .arg(&folder)
        .arg("--state")
        .arg(&state)
        .args(["--admin", "127.0.0.1:0", "--allow-loopback-endpoints"])
        .stderr(Stdio::null())
        .spawn();
    let _serve = Ended(serve.expect("it was built with this test"));
    let up: Value = wait("the control plane is up", || {
        serde_json::from_slice(&fs::read(state.join("up.json")).ok()?).ok()
    });

    let envoy_admin = format!("127.0.0.1:{}", port());
    let bootstrap = tidegate()
        .args(["bootstrap", "--engine", "edge-1", "--envoy-admin", &envoy_admin])
        .args(["--server", up["xds"].as_str().expect("an address")])
        .arg("--state")
        .arg(&state)
        .arg("--files")
        .arg(&files)
        .output()
        .expect("it ends");
    assert!(bootstrap.status.success(), "{}", String::from_utf8_lossy(&bootstrap.stderr));
    let config = home.path().join("bootstrap.json");
    fs::write(&config, bootstrap.stdout).expect("written");
    fs::copy(parts::module(), modules.join("libtidegate_module.so")).expect("the module is there");
    let envoy = Command::new(parts::envoy())
        .arg("--config-path")
        .arg(&config)
        .arg("--disable-hot-restart")
        .env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", &modules)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let _envoy = Ended(envoy.expect("it runs"));

    let vip = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 98, 0, 1)), http);
    let request = Request::get("one.live.test", "/");
    wait("it serves", || client::send(vip, &request).ok().filter(|answer| answer.status == 200))
        .served_by("any");
    let admin: SocketAddr = up["admin"].as_str().expect("an address").parse().expect("an address");
    let status = client::get(admin, "admin", "/api/v1/status").json();
    assert_eq!(
        (&status["engines"][0]["name"], &status["engines"][0]["state"]),
        (&json!("edge-1"), &json!("Remote"))
    );
}
