//! What Envoy refuses: told to its object in Envoy's words, and nobody else's loss.

#![expect(clippy::disallowed_methods, reason = "a real process is held to real time")]

use crate::support::live::{
    Live, Request, Service, client,
    manifest::class,
    parts,
    tenant::{self, http},
};
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Of more instructions than the Envoy of this test takes: we know of nothing that
/// our own checks let through and Envoy refuses, so this Envoy takes less.
const TOO_LARGE: &str = "/o[a-z]{200}";

fn takes_less() -> Value {
    let limit = json!({"name": "less", "static_layer": {"re2.max_program_size.error_level": 100}});
    json!({"layered_runtime": {"layers": [limit]}})
}

fn by_regex(name: &str, host: &str, path: &str, service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"name": "http"}}});
    let path = json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ingressClassName": "live", "rules": [{"host": host, "http": {"paths": [path]}}]},
    })
}

#[test]
fn trap_26_a_refused_table_costs_its_own_host_alone() {
    let services = ["left", "right"].map(|name| Service::new("shop", name));
    let mut objects = class("live", &json!({"paths": {"implementationSpecific": "Regex"}})).to_vec();
    objects.extend(services.iter().flat_map(Service::manifests));
    let mut live = Live::with_bootstrap(1, &takes_less(), &objects);
    let bad = |path: &str| [by_regex("bad", "bad.live.test", path, "left")];
    let fine = |service: &str| [by_regex("fine", "fine.live.test", "/.*", service)];
    live.apply("bad", &bad("/o.*"));
    live.apply("fine", &fine("left"));
    let vip = live.programmed("Ingress/shop/bad");
    live.programmed("Ingress/shop/fine");
    tenant::get(vip, "bad.live.test", "/okay").served_by("left");

    live.apply("bad", &bad(TOO_LARGE));
    let finding = live.finding("Ingress/shop/bad", "RefusedByEnvoy");
    let words = finding["message"].as_str().expect("a message");
    assert!(words.contains("RE2 program size of 2"), "Envoy's own words: {words}");
    tenant::get(vip, "bad.live.test", "/okay").served_by("left");
    live.apply("fine", &fine("right"));
    let request = Request::get("fine.live.test", "/");
    live.answered(http(vip), &request, |answer| answer.service().as_deref() == Some("right"));

    // Neither a new control plane nor a new Envoy forgets what was good.
    live.kill_control_plane();
    for envoy in live.envoys() {
        live.kill(envoy);
    }
    live.start_again();
    live.answered(http(vip), &Request::get("bad.live.test", "/okay"), |answer| answer.status == 200);
    live.answered(http(vip), &request, |answer| answer.service().as_deref() == Some("right"));

    live.apply("bad", &bad("/new.*"));
    live.answered(http(vip), &Request::get("bad.live.test", "/new"), |answer| answer.status == 200);
    live.wait("the finding is gone", |status| !status.to_string().contains("RefusedByEnvoy"));
    live.stop();
    live.ended();
}

/// An Envoy that cannot load our module is shown as such, with its words, and the
/// site does not call itself ready.
#[test]
fn an_engine_without_the_module_is_unusable() {
    let home = tempfile::tempdir().expect("a folder");
    let [folder, state] = ["objects", "state"].map(|name| home.path().join(name));
    fs::create_dir(&folder).expect("a folder");
    fs::create_dir(&state).expect("a folder");
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.push(by_regex("one", "one.live.test", "/", "any"));
    objects.push(json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "VipPool",
        "metadata": {"name": "live"}, "spec": {"addresses": ["127.99.0.0/28"]},
    }));
    let text = crate::support::live::documents(&objects);
    fs::write(folder.join("all.yaml"), text).expect("written");
    let module = home.path().join("no-module.so");
    fs::write(&module, "no shared object").expect("written");
    let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("up")
        .arg(&folder)
        .arg("--state")
        .arg(&state)
        .args(["--admin", "127.0.0.1:0", "--allow-loopback-endpoints"])
        .env("TIDEGATE_ENVOY", parts::envoy())
        .env("TIDEGATE_MODULE", &module)
        .stderr(Stdio::null())
        .spawn()
        .expect("it was built with this test");
    let until = Instant::now() + Duration::from_secs(60);
    let said = loop {
        let said = fs::read_to_string(state.join("up.json")).ok().and_then(|text| unready(&text));
        match said {
            Some(said) if said.contains("UNUSABLE") => break Ok(said),
            other if Instant::now() > until => break Err(other),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let ended = Command::new("kill").arg(process.id().to_string()).status().expect("kill runs");
    assert!(ended.success() && process.wait().expect("our child").success());
    let said = said.expect("it is told within a minute");
    assert!(said.contains("engine-0") && said.contains("dynamic module"), "{said}");
}

/// What `/readyz` says while it is not 200.
fn unready(up: &str) -> Option<String> {
    let up: Value = serde_json::from_str(up).ok()?;
    let admin: SocketAddr = up["admin"].as_str()?.parse().ok()?;
    let answer = client::send(admin, &Request::get("admin", "/readyz")).ok()?;
    (answer.status == 503).then(|| answer.show())
}
