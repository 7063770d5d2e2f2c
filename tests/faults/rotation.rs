//! Certificates of the xDS channel: renewed while streams live, from two authorities
//! for a time, over, and not yet begun.

use super::engine::{self, Engine, Holds, authority, client, issue, now};
use crate::support::live::{
    Ingress, Live, Request, Service, backend::runtime, load::Load, manifest::class, tenant::http,
};
use arc_swap::ArcSwap;
use serde_json::json;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tidegate::{
    base::Version,
    server::{
        Authority, Door, Handle, Identity, Server,
        authority::{CERTIFICATE_FILE, Issued, KEY_FILE},
    },
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

/// Another authority takes the place of a site's own, with both believed for a time.
/// `told` hears what is believed from the next start on, before that start. Every step
/// is followed by a change of the site, and clients are answered all the while.
fn change_authority(live: &mut Live, to_services: [&str; 4], mut told: impl FnMut(&Live, &str)) {
    let ingress = |to: &str| Ingress::new("shop", "one", "live").prefix("one.test", "/", to);
    let request = Request::get("one.test", "/");
    live.apply("one", &[ingress(to_services[0]).into()]);
    let vip = live.programmed("Ingress/shop/one");
    let envoys = live.envoys();
    assert_eq!(envoys.len(), 1);
    let trust = live.state().join("trust");
    let (old, old_key) = (engine::certificate(&trust), fs::read(trust.join(KEY_FILE)).expect("a key"));
    let (new_home, new_authority) = new_authority();
    let new = new_authority.certificate_pem();
    let new_key = fs::read(new_home.path().join(KEY_FILE)).expect("a key");
    let load = Load::plain(http(vip), request.clone());
    load.more(20);
    let steps =
        [(format!("{old}{new}"), &old_key), (format!("{new}{old}"), &new_key), (new.to_owned(), &new_key)];
    for ((believed, key), to) in steps.into_iter().zip(&to_services[1..]) {
        live.kill_control_plane();
        fs::write(trust.join(CERTIFICATE_FILE), &believed).expect("ours");
        fs::write(trust.join(KEY_FILE), key).expect("ours");
        told(live, &believed);
        live.start_again();
        live.apply("one", &[ingress(to).into()]);
        live.answered(http(vip), &request, |answer| answer.service().as_deref() == Some(*to));
        assert_eq!(live.programmed("Ingress/shop/one"), vip);
        load.more(20);
    }
    assert_eq!(live.envoys(), envoys, "the same Envoy");
    load.end().all_good();
    // Now, and only now, the old one counts for nothing.
    let old_home = tempfile::tempdir().expect("a folder");
    fs::write(old_home.path().join(CERTIFICATE_FILE), old).expect("ours");
    fs::write(old_home.path().join(KEY_FILE), old_key).expect("ours");
    let old = Authority::load(old_home.path()).expect("an authority");
    let late = client(&issue(&old, "late"), &[new]);
    runtime().block_on(connect_and_take("late", late, live.xds())).expect_err("signed by the old one");
}

fn two_services() -> ([Service; 2], Vec<serde_json::Value>) {
    let services = ["any", "other"].map(|name| Service::new("shop", name));
    let mut objects = class("live", &json!({})).to_vec();
    services.iter().for_each(|service| objects.extend(service.manifests()));
    (services, objects)
}

/// Engines of `tidegate up` are told by it.
#[test]
fn an_authority_is_changed_under_engines_of_our_own() {
    let (_services, objects) = two_services();
    let mut live = Live::start(&objects);
    change_authority(&mut live, ["any", "other", "any", "other"], |_, _| {});
}

/// Engines elsewhere are told by hand whom to believe, and show a certificate of the
/// old authority until they are given another.
#[test]
fn an_authority_is_changed_under_engines_elsewhere() {
    let (_services, objects) = two_services();
    let mut live = Live::with_engines(0, &objects);
    let files = live.state().join("trust/engines/engine-0");
    let old = authority(&live);
    let write = |name: &str, text: &str| {
        // As a whole: the engine may read at any time.
        fs::write(files.join("new"), text).expect("ours");
        fs::rename(files.join("new"), files.join(name)).expect("ours");
    };
    let give = |authority: &Authority| {
        let Issued { certificate_pem, key_pem } = issue(authority, "engine-0");
        write("engine.key", key_pem.expose());
        write("engine.crt", &certificate_pem);
    };
    fs::create_dir_all(&files).expect("ours");
    give(&old);
    write("ca.crt", old.certificate_pem());
    let shown = || fs::read_to_string(files.join("engine.crt")).expect("a certificate");
    let first = shown();
    let mut running = live.run_engine_by_hand();
    let mut step = 0;
    change_authority(&mut live, ["any", "other", "any", "other"], |live, believed| {
        step += 1;
        write("ca.crt", believed);
        if step == 3 {
            assert_eq!(shown(), first, "with the certificate of the old one until now");
            give(&authority(live));
        }
    });
    running.end();
}
