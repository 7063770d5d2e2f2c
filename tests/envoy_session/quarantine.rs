//! One refused resource among 10,000, as stock Envoy refuses: it alone falls
//! back, over restarts of both sides, and its object is told.

use crate::{
    control::{ControlPlane, Site, engine, serves, start_envoy_with},
    ir_world,
    stock_envoy::{Extra, eventually, free_port, get},
    world::*,
};
use serde_json::json;
use std::{path::PathBuf, sync::Arc};
use tidegate::{
    base::{ObjectKey, ObjectKind},
    ir,
    server::{Identity, session::Refused},
    xds::{self, Resource, Update},
};

const HOSTS: usize = 5_000;
const BAD: usize = 2_517;
/// RE2 says what is missing, and not in which table.
const BROKEN: Option<&str> = Some("(");

fn host(n: usize) -> String {
    format!("h{n}.test")
}

fn object(n: usize) -> ObjectKey {
    ObjectKey::new(ObjectKind::Ingress, "shop", &format!("i{n}"))
}

/// A host's table, and the object it comes from.
fn of_object(n: usize, text: &str, regex: Option<&str>) -> Resource {
    Resource { origins: [object(n)].into(), ..table(&host(n), text, regex) }
}

/// 10,000 resources and a listener; the regex is of one host.
fn world(port: u16, text: &str, regex: Option<&str>) -> Update {
    let hosts = (0..HOSTS).flat_map(|n| [scope(&host(n)), of_object(n, text, regex.filter(|_| n == BAD))]);
    set(hosts.chain([listener(port, false)]))
}

async fn all_but_the_bad_one_serve(port: u16, text: &str) {
    for n in (0..HOSTS).step_by(97).chain([BAD - 1, BAD + 1, HOSTS - 1]) {
        serves(port, &host(n), text).await;
    }
}

fn told(refused: &Refused) {
    assert_eq!(&*refused.key.name, "r/h2517.test");
    assert_eq!(refused.origins[..], [object(BAD)]);
    assert!(refused.message.contains("missing )") && !refused.own, "{refused:?}");
}

/// Less of it, where thousands of statistics are of no use.
fn diet() -> Extra {
    let bootstrap = json!({
        "deferred_stat_options": {"enable_deferred_creation_stats": true},
        "stats_config": {"stats_matcher": {"reject_all": true}},
    });
    Extra { bootstrap: Some(bootstrap), ..Extra::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_26_and_27_one_of_ten_thousand() {
    let mut site = Site::new().await;
    let port = free_port();
    let start =
        |site: &Site| start_envoy_with(site.dir.path(), site.address, &site.authority, &engine(), &diet());
    let envoy = start(&site);

    // It is bad from the first: found by halving, answered 503, and the rest is there.
    site.control.handle.publish(world(port, "one", BROKEN));
    told(&site.control.refusal().await);
    site.control.synced().await;
    all_but_the_bad_one_serve(port, "one").await;
    eventually("503 in its place", || async { (get(port, &host(BAD), "/").await?.0 == 503).then_some(()) })
        .await;
    site.control.handle.publish(set([of_object(BAD, "one", None)]));
    serves(port, &host(BAD), "one").await;
    assert_eq!(site.refusals(), 1);

    // It was good before: that stays, while all others take the same update.
    site.control.handle.publish(world(port, "two", BROKEN));
    let refused = site.control.refusal().await;
    told(&refused);
    site.control.synced().await;
    all_but_the_bad_one_serve(port, "two").await;
    serves(port, &host(BAD), "one").await;
    assert_eq!(site.refusals(), 2);
    let by: Vec<_> = site.control.handle.refused_by(&refused.key).into_iter().collect();
    assert_eq!(by.iter().map(|engine| &**engine).collect::<Vec<_>>(), ["e1"]);

    // Neither side's restart forgets it, and nothing is refused again.
    let kept = site.control.handle.last_good();
    assert_eq!(kept.len(), 1);
    let site = site.restart().await;
    site.control.handle.restore(kept);
    site.control.handle.publish(world(port, "two", BROKEN));
    drop(envoy);
    let _envoy = start(&site);
    all_but_the_bad_one_serve(port, "two").await;
    serves(port, &host(BAD), "one").await;
    site.control.synced().await;
    assert_eq!(site.refusals(), 0);
    // Mended.
    site.control.handle.publish(set([of_object(BAD, "three", None)]));
    serves(port, &host(BAD), "three").await;
}

/// A port that another process has: only that listener is missing, on that engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_26_a_taken_port_holds_no_other_listener() {
    let mut site = Site::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let free = free_port();
    let _envoy = site.envoy();
    let tables = [scope("a.test"), table("a.test", "one", None)];
    site.control
        .handle
        .publish(set([listener(port, false), listener(free, false)].into_iter().chain(tables)));
    let refused = site.control.refusal().await;
    assert_eq!(*refused.key.name, *format!("l/{port}"));
    assert!(refused.own, "{refused:?}");
    assert!(site.control.handle.refused_by(&refused.key).is_empty(), "others would get it");
    serves(free, "a.test", "one").await;
    site.control.handle.publish(set([table("a.test", "two", None)]));
    serves(free, "a.test", "two").await;
}

#[expect(clippy::disallowed_methods, reason = "which module to test is the caller's choice")]
fn module() -> PathBuf {
    let built = || std::env::current_exe().expect("a path").with_file_name("libtidegate_module.so");
    let path = std::env::var_os("TIDEGATE_MODULE").map_or_else(built, PathBuf::from);
    assert!(path.exists(), "{} is missing: run cargo build --workspace", path.display());
    path
}

fn modules() -> PathBuf {
    module().parent().expect("a folder").to_owned()
}

/// Two engines, one without our module: it refuses the listener, and the other
/// is served, edits too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_26_a_missing_module_holds_no_other_engine() {
    let mut site = Site::new().await;
    let port = free_port();
    let listener = xds::build_listener(&ir::Listener {
        key: ir::ListenerKey { address: [127, 0, 0, 1].into(), port },
        gateway: ir_world::gateway(),
        protocol: ir::Protocol::Http,
        edge: Arc::new(ir_world::edge()),
        dedicated: Vec::new(),
    });
    let says = |text: &str| {
        let routes = [ir_world::says("all", ir_world::prefix("/"), text)];
        xds::build_host(&ir_world::with_routes(ir_world::host("a.test"), routes))
    };
    let key = listener.key.clone();
    let home = tempfile::tempdir().expect("a directory");
    let other = Identity::new("edge", "e2").expect("a name");
    let _without = site.envoy();
    site.control.handle.publish(set(says("one").into_iter().chain([listener])));
    let refused = site.control.refusal().await;
    assert!(refused.own && refused.key == key, "{refused:?}");
    let extra = Extra { modules: Some(modules()), ..Extra::default() };
    let _with = start_envoy_with(home.path(), site.address, &site.authority, &other, &extra);
    serves(port, "a.test", "one").await;
    site.control.handle.publish(set(says("two")));
    serves(port, "a.test", "two").await;
    eventually("one of two holds it", || async {
        let held = site.control.handle.held(&key);
        ((held.by, held.of) == (1, 2)).then_some(())
    })
    .await;
    assert!(site.control.handle.refused_by(&key).is_empty());
}

/// What never came to be a listener is tried by the next engine all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_26_the_identical_bytes_are_not_sent_twice() {
    let mut site = Site::new().await;
    let port = free_port();
    let _envoy = site.envoy();
    let good = [scope("a.test"), table("a.test", "one", None), listener(port, false)];
    site.control.handle.publish(set(good));
    serves(port, "a.test", "one").await;
    let bad = table("a.test", "two", BROKEN);
    site.control.handle.publish(set([bad.clone()]));
    site.control.refusal().await;
    let sent = site.control.handle.engines()[0].sent;
    // Published again, and the engine comes back: it has its last good one.
    site.control.handle.publish(set([bad.clone()]));
    site.control.handle.publish(set([scope("b.test"), table("b.test", "b", None)]));
    serves(port, "b.test", "b").await;
    assert_eq!(site.control.handle.engines()[0].sent, sent + 2);
    assert_eq!(site.refusals(), 1);
    let kept = site.control.handle.last_good();
    let (control, _) = {
        let Site { dir: _dir, authority, control, address } = site;
        drop(control);
        ControlPlane::start(&authority, address).await
    };
    control.handle.restore(kept);
    control.handle.publish(set([bad, scope("a.test"), listener(port, false)]));
    eventually("it is back", || async {
        control.handle.engines().iter().any(|engine| engine.synced).then_some(())
    })
    .await;
    serves(port, "a.test", "one").await;
    assert!(control.handle.engines().iter().all(|engine| engine.refusals == 0));
}
