//! Traps of the protocol, with stock Envoy as the judge.

use crate::{
    control::{ControlPlane, now},
    control::{Site, connect_tls, engine, get_tls, serves, start_envoy, start_envoy_with},
    stock_envoy::{DEADLINE, Extra, eventually, free_port, get, get_over},
    world::*,
};
use envoy_types::pb::envoy::config::core::v3::{Metadata, TrafficDirection};
use serde_json::json;
use std::{collections::HashMap, time::Duration};
use tidegate::{
    server::Authority,
    xds::{Resource, ResourceKey, ResourceKind, Update},
};
use tokio::net::TcpStream;

/// Below the 15 s after which Envoy gives up waiting for a fetch.
const BEFORE_FETCH_TIMEOUT: Duration = Duration::from_secs(10);

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    ResourceKey { kind, name: name.into() }
}

fn remove(removed: &[(ResourceKind, &str)]) -> Update {
    Update { set: vec![], removed: removed.iter().map(|(kind, name)| key(*kind, name)).collect() }
}

/// A host that one upstream serves.
fn forwarded(host: &str, to: &str, port: u16) -> [Resource; 4] {
    [scope(host), proxy(host, to), upstream(to, 5), endpoints(to, &[port])]
}

/// Publishes, and waits until the engine has accepted it: sooner than Envoy
/// would by waiting for a fetch that is never answered.
async fn accepted(site: &Site, update: Update) {
    let keys: Vec<_> = update.set.iter().map(|resource| resource.key.clone()).collect();
    let begin = tokio::time::Instant::now();
    site.control.handle.publish(update);
    site.held(&keys).await;
    assert!(begin.elapsed() < BEFORE_FETCH_TIMEOUT, "{keys:?} waited for the fetch timeout");
}

/// A signer of certificates, and the roots that know it.
fn signer() -> (rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, rustls::RootCertStore) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let signer = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signer.as_ref().der().clone()).expect("a root");
    (signer, roots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_11_what_vanished_while_away_is_gone() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let port = free_port();
    let listener = listener(port, false);
    let [a, b] = ["a.test", "b.test"].map(|host| [scope(host), table(host, host, None)]);
    site.control.handle.publish(set(a.clone().into_iter().chain(b).chain([listener.clone()])));
    serves(port, "b.test", "b.test").await;
    site.control.synced().await;
    let site = site.restart().await;
    site.control.handle.publish(set(a.into_iter().chain([listener])));
    eventually("b.test is gone", || async { (get(port, "b.test", "/").await?.0 == 404).then_some(()) }).await;
    serves(port, "a.test", "a.test").await;
    assert_eq!(site.refusals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_17_a_world_published_at_once_is_taken_without_a_refusal() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let (port, backend) = (free_port(), backend("x").await);
    // The worst order to have them in.
    let mut all: Vec<_> =
        (0..100).flat_map(|n| forwarded(&format!("h{n}.test"), &format!("u{n}"), backend)).collect();
    all.reverse();
    all.insert(0, listener(port, false));
    site.control.handle.publish(set(all));
    for n in [0, 50, 99] {
        serves(port, &format!("h{n}.test"), "x").await;
    }
    site.control.synced().await;
    assert_eq!(site.refusals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_19_a_changed_upstream_warms_at_once() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let (port, backend) = (free_port(), backend("x").await);
    site.control
        .handle
        .publish(set(forwarded("a.test", "x", backend).into_iter().chain([listener(port, false)])));
    serves(port, "a.test", "x").await;
    for seconds in 6..9 {
        accepted(&site, set([upstream("x", seconds)])).await;
        serves(port, "a.test", "x").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_21_an_upstream_that_comes_back_has_its_endpoints() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let (port, backend) = (free_port(), backend("x").await);
    site.control
        .handle
        .publish(set(forwarded("a.test", "x", backend).into_iter().chain([listener(port, false)])));
    serves(port, "a.test", "x").await;
    for _ in 0..2 {
        // Its endpoints stay published, unchanged.
        let gone = remove(&[(ResourceKind::Cluster, "x")]);
        site.control.handle.publish(Update { set: vec![table("a.test", "none", None)], ..gone });
        serves(port, "a.test", "none").await;
        let cluster = key(ResourceKind::Cluster, "x");
        site.held(std::slice::from_ref(&cluster)).await;
        accepted(&site, set([upstream("x", 5)])).await;
        accepted(&site, set([proxy("a.test", "x")])).await;
        serves(port, "a.test", "x").await;
    }
    assert_eq!(site.refusals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_23_a_missing_secret_breaks_its_chain_alone() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let (signer, roots) = signer();
    let port = free_port();
    let chains = vec![chain("shared", Some(on_demand())), chain_for("there.test"), chain_for("missing.test")];
    let there = {
        let resource = certificate("there.test", &signer);
        Resource { key: key(ResourceKind::Secret, "chain/there.test"), ..resource }
    };
    site.control.handle.publish(set([
        listener_of(&bare_listener(port, chains, true)),
        scope("a.test"),
        table("a.test", "one", None),
        there,
        certificate("a.test", &signer),
    ]));
    let served = |sni: &'static str| {
        let roots = roots.clone();
        async move { get_tls(port, sni, &roots).await.filter(|(status, _)| *status == 200).map(|_| ()) }
    };
    let begin = tokio::time::Instant::now();
    eventually("a chain with its secret serves", || served("there.test")).await;
    eventually("the shared chain serves", || served("a.test")).await;
    assert!(begin.elapsed() < BEFORE_FETCH_TIMEOUT, "something waited for the fetch timeout");
    assert_eq!(served("missing.test").await, None);
    let late = Resource {
        key: key(ResourceKind::Secret, "chain/missing.test"),
        ..certificate("missing.test", &signer)
    };
    site.control.handle.publish(set([late]));
    eventually("it came later", || served("missing.test")).await;
    assert_eq!(site.refusals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_23_a_missing_table_breaks_its_scope_alone() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let port = free_port();
    let begin = tokio::time::Instant::now();
    site.control.handle.publish(set([
        listener(port, false),
        scope("nowhere.test"),
        scope("a.test"),
        table("a.test", "one", None),
        // Without endpoints.
        upstream("bare", 5),
    ]));
    serves(port, "a.test", "one").await;
    site.held(&[key(ResourceKind::Cluster, "bare")]).await;
    assert!(begin.elapsed() < BEFORE_FETCH_TIMEOUT, "something waited for the fetch timeout");
    assert_eq!(get(port, "nowhere.test", "/").await.expect("an answer").0, 404);
    site.control.handle.publish(set([table("nowhere.test", "late", None)]));
    serves(port, "nowhere.test", "late").await;
    assert_eq!(site.refusals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_24_an_engine_that_boots_before_the_control_plane_serves_when_it_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let ads = ([127, 0, 0, 1], free_port()).into();
    let envoy = start_envoy(dir.path(), ads, &authority);
    eventually("it has tried in vain", || async {
        envoy.log().contains("cm init: initializing cds").then_some(())
    })
    .await;
    // Past its first retries.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (control, _) = ControlPlane::start(&authority, ads).await;
    let port = free_port();
    // Connected, and yet nothing to say: it waits, and drops nothing.
    eventually("it is back", || async { (!control.handle.engines().is_empty()).then_some(()) }).await;
    control.handle.publish(set([listener(port, false), scope("a.test"), table("a.test", "one", None)]));
    serves(port, "a.test", "one").await;
    control.synced().await;
}

/// One connection, and whether it is still the same one.
struct Kept(TcpStream);

impl Kept {
    async fn new(port: u16) -> Self {
        let mut kept = Self(TcpStream::connect(("127.0.0.1", port)).await.expect("a connection"));
        assert!(kept.serves().await);
        kept
    }

    /// Twice: the first answer may be the last one.
    async fn serves(&mut self) -> bool {
        for _ in 0..2 {
            if get_over(&mut self.0, "a.test", "/").await.is_none() {
                return false;
            }
        }
        true
    }
}

/// What an edit of a listener costs its connections: nothing where only other
/// chains change, all of them where anything of the socket changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_32_only_an_edit_of_chains_keeps_connections() {
    type Edit = fn(&mut envoy_types::pb::envoy::config::listener::v3::Listener);
    let site = Site::new().await;
    let _envoy = site.envoy();
    let port = free_port();
    let plain = || chain("plain", None);
    let bare = bare_listener(port, vec![plain()], true);
    site.control.handle.publish(set([listener_of(&bare), scope("a.test"), table("a.test", "one", None)]));
    serves(port, "a.test", "one").await;

    let mut kept = Kept::new(port).await;
    accepted(&site, set([scope("b.test"), table("b.test", "b", None), table("a.test", "two", None)])).await;
    assert!(kept.serves().await, "hosts and routes are no matter of the listener");
    let more = bare_listener(port, vec![plain(), chain_for("own.test")], true);
    accepted(&site, set([listener_of(&more)])).await;
    assert!(kept.serves().await, "another chain is no matter of this one");

    let edits: [(&str, Edit); 4] = [
        ("metadata", |listener| {
            let fields = HashMap::from([("x".to_owned(), Default::default())]);
            listener.metadata = Some(Metadata { filter_metadata: fields, ..Default::default() });
        }),
        ("listener_filters", |listener| listener.listener_filters.clear()),
        ("buffer", |listener| {
            listener.per_connection_buffer_limit_bytes =
                Some(envoy_types::pb::google::protobuf::UInt32Value { value: 4_096 });
        }),
        ("direction", |listener| listener.traffic_direction = TrafficDirection::Inbound as i32),
    ];
    let mut edited = more;
    // A chain by server name needs the inspector.
    edited.filter_chains.truncate(1);
    accepted(&site, set([listener_of(&edited)])).await;
    for (field, edit) in edits {
        let mut kept = Kept::new(port).await;
        edit(&mut edited);
        accepted(&site, set([listener_of(&edited)])).await;
        let end = tokio::time::Instant::now() + DEADLINE;
        while kept.serves().await {
            assert!(tokio::time::Instant::now() < end, "an edit of {field} kept its connections");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        serves(port, "a.test", "two").await;
    }
    assert_eq!(site.refusals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_35_a_rotation_closes_no_connection() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let (signer, roots) = signer();
    let port = free_port();
    let chains = vec![chain("shared", Some(on_demand())), chain_for("own.test")];
    let own =
        || Resource { key: key(ResourceKind::Secret, "chain/own.test"), ..certificate("own.test", &signer) };
    site.control.handle.publish(set([
        listener_of(&bare_listener(port, chains, true)),
        scope("a.test"),
        table("a.test", "one", None),
        certificate("a.test", &signer),
        own(),
    ]));
    for sni in ["a.test", "own.test"] {
        let mut kept = eventually("a handshake", || async { connect_tls(port, sni, &roots).await }).await;
        let leaf = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
            stream.get_ref().1.peer_certificates().expect("a chain")[0].clone().into_owned()
        };
        assert!(get_over(&mut kept, "a.test", "/").await.is_some());
        let rotated = if sni == "a.test" { certificate("a.test", &signer) } else { own() };
        accepted(&site, set([rotated])).await;
        eventually("new connections have the new one", || async {
            let new = connect_tls(port, sni, &roots).await?;
            (leaf(&new) != leaf(&kept)).then_some(())
        })
        .await;
        for _ in 0..2 {
            assert!(get_over(&mut kept, "a.test", "/").await.is_some(), "{sni}: the old one lives on");
        }
    }
    assert_eq!(site.refusals(), 0);
}

/// A draining listener goes on asking for names that are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_36_a_name_that_is_gone_is_answered() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let (signer, roots) = signer();
    let port = free_port();
    let chains = vec![chain("shared", Some(on_demand())), chain_for("own.test")];
    let own =
        Resource { key: key(ResourceKind::Secret, "chain/own.test"), ..certificate("own.test", &signer) };
    site.control.handle.publish(set([
        listener_of(&bare_listener(port, chains, true)),
        scope("a.test"),
        table("a.test", "one", None),
        certificate("a.test", &signer),
        own,
    ]));
    eventually("its chain serves", || async { get_tls(port, "own.test", &roots).await.map(|_| ()) }).await;
    eventually("a name on demand", || async { get_tls(port, "a.test", &roots).await.map(|_| ()) }).await;
    // The chain goes, its secret with it, and a name on demand.
    let without = bare_listener(port, vec![chain("shared", Some(on_demand()))], true);
    let gone = remove(&[(ResourceKind::Secret, "chain/own.test"), (ResourceKind::Secret, "a.test")]);
    site.control.handle.publish(Update { set: vec![listener_of(&without)], ..gone });
    eventually("no handshake any more", || async {
        let none = get_tls(port, "a.test", &roots).await.is_none();
        none.then_some(())
    })
    .await;
    accepted(&site, set([certificate("a.test", &signer)])).await;
    eventually("and again one", || async { get_tls(port, "a.test", &roots).await.map(|_| ()) }).await;
    assert_eq!(site.refusals(), 0);
}

/// As in a hot restart: two processes, one name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_43_two_processes_of_one_engine_are_both_served() {
    let site = Site::new().await;
    let (port, home) = (free_port(), tempfile::tempdir().expect("a directory"));
    site.control.handle.publish(set([listener(port, false), scope("a.test"), table("a.test", "one", None)]));
    let old = site.envoy();
    serves(port, "a.test", "one").await;
    let new = start_envoy(home.path(), site.address, &site.authority);
    eventually("both are in sync", || async {
        let engines = site.control.handle.engines();
        (engines.len() == 2 && engines.iter().all(|engine| engine.synced)).then_some(())
    })
    .await;
    drop(old);
    accepted(&site, set([table("a.test", "two", None)])).await;
    serves(port, "a.test", "two").await;
    drop(new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_44_a_host_goes_with_all_that_was_its_own() {
    let site = Site::new().await;
    let _envoy = site.envoy();
    let (port, x) = (free_port(), backend("x").await);
    let whole = || forwarded("a.test", "x", x);
    let other = [scope("b.test"), table("b.test", "b", None)];
    site.control.handle.publish(set(whole().into_iter().chain(other).chain([listener(port, false)])));
    for _ in 0..2 {
        serves(port, "a.test", "x").await;
        let all = [
            (ResourceKind::Cluster, "x"),
            (ResourceKind::Endpoints, "x"),
            (ResourceKind::Route, "r/a.test"),
            (ResourceKind::ScopedRoute, "s/a.test"),
        ];
        site.control.handle.publish(remove(&all));
        eventually("a.test is gone", || async { (get(port, "a.test", "/").await?.0 == 404).then_some(()) })
            .await;
        site.held(&[key(ResourceKind::Cluster, "x")]).await;
        serves(port, "b.test", "b").await;
        site.control.handle.publish(set(whole()));
    }
    serves(port, "a.test", "x").await;
    assert_eq!(site.refusals(), 0);
}

/// A layer that nobody serves must not hold up the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_52_a_runtime_layer_does_not_hold_up_the_start() {
    let site = Site::new().await;
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let layer = json!({"name": "asked", "rtds_layer": {"name": "layer", "rtds_config": source}});
    let extra =
        Extra { bootstrap: Some(json!({"layered_runtime": {"layers": [layer]}})), ..Extra::default() };
    let port = free_port();
    site.control.handle.publish(set([listener(port, false), scope("a.test"), table("a.test", "one", None)]));
    let begin = tokio::time::Instant::now();
    let _envoy = start_envoy_with(site.dir.path(), site.address, &site.authority, &engine(), &extra);
    serves(port, "a.test", "one").await;
    assert!(begin.elapsed() < BEFORE_FETCH_TIMEOUT, "its start waited for the layer");
}
