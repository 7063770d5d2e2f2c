//! Stock Envoy follows what is published, change by change.

use crate::{
    control::{ControlPlane, DAY, anywhere, engine, get_tls, now, serves, start_envoy},
    stock_envoy::{Envoy, eventually, free_port, get, get_over},
    world::*,
};
use std::sync::Arc;
use tidegate::{
    server::{Authority, Identity},
    xds::{ResourceKey, ResourceKind, Update},
};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boots_follows_changes_and_survives_a_refusal() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (mut control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let port = free_port();
    let hosts = ["a.test", "b.test", "c.test"];
    let tables = hosts.iter().flat_map(|host| [scope(host), table(host, "one", None)]);
    control.handle.publish(set(tables.chain([listener(port, false)])));
    for host in hosts {
        serves(port, host, "one").await;
    }
    control.synced().await;

    // A change, alone.
    control.handle.publish(set([table("a.test", "two", None)]));
    serves(port, "a.test", "two").await;

    // Several at once, one of them refused: the others are served, it keeps its last good.
    let bad = table("b.test", "three", Some("("));
    let (key, version) = (bad.key.clone(), bad.version);
    control.handle.publish(set([table("a.test", "three", None), bad, table("c.test", "three", None)]));
    let refused = control.refusal().await;
    assert_eq!((&refused.key, refused.version, refused.own), (&key, version, false));
    assert!(refused.message.contains("missing )"), "Envoy's own words: {}", refused.message);
    serves(port, "a.test", "three").await;
    serves(port, "c.test", "three").await;
    serves(port, "b.test", "one").await;
    assert_eq!(control.handle.held(&key).by, 0);

    // Mended.
    control.handle.publish(set([table("b.test", "four", None)]));
    serves(port, "b.test", "four").await;
    eventually("all engines hold it", || async {
        let held = control.handle.held(&key);
        (held.by == 1 && held.of == 1).then_some(())
    })
    .await;
    let refusals: u64 = control.handle.engines().iter().map(|engine| engine.refusals).sum();
    assert_eq!(refusals, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_12_a_batch_with_a_bad_route_boots_and_a_restart_sends_nothing_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (mut control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let port = free_port();
    let hosts: Vec<String> = (0..150).map(|n| format!("h{n}.test")).collect();
    let world = |bad: bool| {
        let tables = hosts.iter().enumerate().flat_map(move |(n, host)| {
            let regex = (bad && n == 70).then_some("(");
            [scope(host), table(host, host, regex)]
        });
        set(tables.chain([listener(port, false)]))
    };
    control.handle.publish(world(true));
    let refused = control.refusal().await;
    assert_eq!(&*refused.key.name, "r/h70.test");
    for host in hosts.iter().filter(|host| *host != "h70.test") {
        serves(port, host, host).await;
    }
    // It never had a good version: 503 of ours.
    eventually("h70.test answers 503", || async {
        (get(port, "h70.test", "/").await?.0 == 503).then_some(())
    })
    .await;
    control.handle.publish(set([table("h70.test", "h70.test", None)]));
    serves(port, "h70.test", "h70.test").await;
    control.synced().await;

    // Another process with the same world, not yet published: nothing may vanish.
    drop(control);
    let (control, _) = ControlPlane::start(&authority, address).await;
    eventually("the engine is back", || async { (!control.handle.engines().is_empty()).then_some(()) }).await;
    serves(port, "h0.test", "h0.test").await;
    control.handle.publish(world(false));
    eventually("it is synced", || async {
        control.handle.engines().iter().any(|engine| engine.synced).then_some(())
    })
    .await;
    let key = world(false).set[1].key.clone();
    eventually("it asked for its routes", || async {
        let held = control.handle.held(&key);
        (held.by == 1).then_some(())
    })
    .await;
    assert_eq!(control.handle.engines()[0].sent, 0, "resources sent again: {:?}", control.handle.engines());
    control.handle.publish(set([table("h1.test", "again", None)]));
    serves(port, "h1.test", "again").await;
    assert_eq!(control.handle.engines()[0].sent, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_18_moves_between_upstreams_lose_no_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let (port, x, y) = (free_port(), backend("x").await, backend("y").await);
    control.handle.publish(set([
        listener(port, false),
        scope("a.test"),
        proxy("a.test", "x"),
        upstream("x", 5),
        endpoints("x", &[x]),
    ]));
    serves(port, "a.test", "x").await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = {
        let done = done.clone();
        async move {
            let mut answers = 0;
            // One connection: a new one a request would use up the ports.
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let answer = get_over(&mut stream, "a.test", "/").await;
                assert!(matches!(&answer, Some((200, _))), "{answer:?} after {answers} good ones");
                answers += 1;
            }
            answers
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the load beside the moves")]
    let load = tokio::spawn(load);
    // The old upstream goes in the very update that moves the host.
    for _ in 0..5 {
        for (new, old, at) in [("y", "x", y), ("x", "y", x)] {
            let key = |kind| ResourceKey { kind, name: old.into() };
            let set = vec![upstream(new, 5), endpoints(new, &[at]), proxy("a.test", new)];
            let removed = vec![key(ResourceKind::Cluster), key(ResourceKind::Endpoints)];
            control.handle.publish(Update { set, removed });
            serves(port, "a.test", new).await;
        }
    }
    // In the end nothing of the old one is left.
    let gone = ResourceKey { kind: ResourceKind::Cluster, name: "y".into() };
    eventually("the old upstream is removed", || async {
        (control.handle.held(&gone).by == 1).then_some(())
    })
    .await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let answers = load.await.expect("no request was lost");
    assert!(answers > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_10_certificates_come_on_demand() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let signer = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signer.as_ref().der().clone()).expect("a root");

    let (control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let port = free_port();
    let wildcard = certificate("*.wild.test", &signer);
    control.handle.publish(set([
        listener(port, true),
        scope("a.test"),
        table("a.test", "one", None),
        certificate("a.test", &signer),
        wildcard,
    ]));
    let served = |sni: &'static str| {
        let roots = roots.clone();
        async move { get_tls(port, sni, &roots).await.filter(|(status, _)| *status == 200).map(|_| ()) }
    };
    eventually("its own certificate", || served("a.test")).await;
    eventually("a wildcard's", || served("x.wild.test")).await;
    assert_eq!(served("unknown.test").await, None);
    assert_eq!(served("two.deep.wild.test").await, None);
    // There is no negative cache: once it is there, it is served.
    control.handle.publish(set([certificate("unknown.test", &signer)]));
    eventually("one that came later", || served("unknown.test")).await;
    // Rotation reaches a name served by a wildcard.
    let before = control.handle.engines()[0].sent;
    control.handle.publish(set([certificate("*.wild.test", &signer)]));
    eventually("it was pushed", || async { (control.handle.engines()[0].sent > before).then_some(()) }).await;
    eventually("the new one is served", || served("x.wild.test")).await;
    assert_eq!(control.handle.engines()[0].refusals, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_42_only_engines_of_the_fleet_come_in() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (control, address) = ControlPlane::start(&authority, anywhere()).await;
    control.handle.publish(set([]));
    let other = Identity::new("other", "e1").expect("a name");
    let issued = authority.issue_engine(&other, DAY, now()).expect("a certificate");
    let _stranger = Envoy::start(dir.path(), address, authority.certificate_pem(), &other, &issued);
    eventually("an engine of another fleet is refused", || async {
        (control.handle.impostors() > 0).then_some(())
    })
    .await;
    // A node id that is not the certificate's engine.
    let before = control.handle.impostors();
    let issued = authority.issue_engine(&engine(), DAY, now()).expect("a certificate");
    let liar = Identity::new("edge", "e2").expect("a name");
    let home = tempfile::tempdir().expect("a directory");
    drop(_stranger);
    let _liar = Envoy::start(home.path(), address, authority.certificate_pem(), &liar, &issued);
    eventually("a node that claims another engine is refused", || async {
        (control.handle.impostors() > before).then_some(())
    })
    .await;
    assert!(control.handle.engines().iter().all(|engine| engine.sent == 0));
}
