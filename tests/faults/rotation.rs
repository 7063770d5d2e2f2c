//! Certificates of the xDS channel: renewed while streams live, from two authorities
//! for a time, over, and not yet begun.

use super::engine::{self, Engine, Holds, authority, client, issue, now};
use crate::support::live::{Ingress, Live, Service, backend::runtime, manifest::class};
use arc_swap::ArcSwap;
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tidegate::{
    base::Version,
    server::{Authority, Door, Handle, Identity, Server, authority::Issued},
    xds::{Resource, ResourceKey, ResourceKind, Update},
};
use tokio::net::TcpListener;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn new_authority() -> (tempfile::TempDir, Authority) {
    let home = tempfile::tempdir().expect("a folder");
    let authority = Authority::create(home.path(), now()).expect("an authority");
    (home, authority)
}

fn of_server(authority: &Authority) -> Issued {
    let address = Ipv4Addr::LOCALHOST.into();
    authority.issue_server(&["localhost"], &[address], HOUR, now()).expect("a certificate")
}

/// One cluster, of so many.
fn update(n: u128) -> Update {
    let key = ResourceKey { kind: ResourceKind::Listener, name: "l".into() };
    let resource =
        Resource { key, version: Version(n), body: Vec::new().into(), needs: [].into(), origins: [].into() };
    Update { set: vec![resource], removed: Vec::new() }
}

/// A server whose certificate can be changed, on a port of its own.
fn serve(config: Arc<rustls::ServerConfig>) -> (Arc<ArcSwap<rustls::ServerConfig>>, Handle, SocketAddr) {
    let (server, handle, _events) = Server::new("default".into());
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let at = listener.local_addr().expect("an address");
    let config = Arc::new(ArcSwap::from(config));
    runtime().spawn(server.serve(listener, Door::Mutual(Arc::clone(&config))));
    handle.publish(update(1));
    (config, handle, at)
}

/// The version of the one listener after the next response.
async fn next(engine: &mut Engine) -> String {
    while engine.take().await.expect("the stream lives") {
        if let Some(version) = engine.holds[ResourceKind::Listener as usize].get("l") {
            return version.clone();
        }
    }
    panic!("the stream ended");
}

#[test]
fn a_server_certificate_is_renewed_under_living_streams() {
    let (_home, authority) = new_authority();
    let ca = authority.certificate_pem();
    let first = of_server(&authority);
    let (config, handle, at) = serve(authority.server_config(&first).expect("a configuration"));
    let engine = |name: &str| {
        let client = client(&issue(&authority, name), &[ca]);
        let name = name.to_owned();
        async move { Engine::connect(&name, client, at, Holds::default(), None).await.expect("it is let in") }
    };
    runtime().block_on(async {
        let mut old = engine("old").await;
        assert_eq!(next(&mut old).await, Version(1).to_string());
        config.store(authority.server_config(&of_server(&authority)).expect("a configuration"));
        let mut new = engine("new").await;
        next(&mut new).await;
        handle.publish(update(2));
        // Neither stream was touched.
        for engine in [&mut old, &mut new] {
            while next(engine).await != Version(2).to_string() {}
        }
    });
}

/// Engines of another authority, also of one with the same name, are not let in.
#[test]
fn an_engine_of_another_authority_is_refused() {
    let [(_one, ours), (_two, theirs)] = [new_authority(), new_authority()];
    let (_config, handle, at) = serve(ours.server_config(&of_server(&ours)).expect("a configuration"));
    let stranger = client(&issue(&theirs, "engine"), &[ours.certificate_pem()]);
    let came = runtime().block_on(connect_and_take("engine", stranger, at));
    assert!(came.is_err());
    assert!(handle.engines().is_empty());
}

/// TLS 1.3 tells a client that it is refused only after it is done: with the first read.
async fn connect_and_take(
    name: &str,
    client: Arc<rustls::ClientConfig>,
    at: SocketAddr,
) -> Result<(), String> {
    let engine = Engine::connect(name, client, at, Holds::default(), None).await;
    let mut engine = engine.map_err(|why| why.to_string())?;
    engine.take().await.map(drop).map_err(|why| why.to_string())
}

/// A certificate that is over, or has not begun, is refused, and the log of the product
/// says which; others come in all the while.
#[test]
fn certificates_out_of_their_time_are_refused_and_told() {
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.push(Ingress::new("shop", "one", "live").prefix("one.test", "/", "any").into());
    let live = Live::with_engines(0, &objects);
    let authority = authority(&live);
    let ca = engine::certificate(&live.state().join("trust"));
    let identity = Identity::new("default", "late").expect("a name");
    let issued_at = |at: SystemTime| authority.issue_engine(&identity, HOUR, at).expect("a certificate");
    let came =
        |issued: &Issued| runtime().block_on(connect_and_take("late", client(issued, &[&ca]), live.xds()));
    came(&issued_at(now())).expect("it is in its time");
    came(&issued_at(now() - DAY)).expect_err("it is over");
    came(&issued_at(now() + DAY)).expect_err("it has not begun");
    let told = |words: &str| {
        live.eventually(&format!("the log says '{words}'"), || {
            let log = live.log();
            let line =
                log.lines().find(|line| line.contains("certificate was refused") && line.contains(words));
            line.map(str::to_owned).ok_or_else(|| log.clone())
        })
    };
    for line in [told("expired"), told("not valid yet")] {
        assert!(line.contains("WARN") && line.contains("peer"), "{line}");
    }
    came(&issued_at(now())).expect("others come in");
}
