//! Engines that read a byte a second, or nothing, or accept nothing: they cost little,
//! they hold up nobody, and those that take nothing are let go.

use super::{
    engine::{self, Engine, Holds, authority, client},
    proxy::Proxy,
};
use crate::support::live::{Ingress, Live, Service, backend::runtime, manifest::class};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

const EACH: usize = 10;
const HOSTS: usize = 100;
/// Edits of every host, while they do not read.
const EDITS: usize = 40;
/// A response is at most a MiB, a few of them wait: what all of them may cost
/// together, the edits of the site itself included.
const GROWTH_MAX: u64 = 48 << 20;

fn hosts(service: &str) -> [serde_json::Value; 1] {
    let all = (0..HOSTS).fold(Ingress::new("shop", "all", "live"), |all, n| {
        all.prefix(&format!("h{n}.slow.test"), "/", service)
    });
    [all.into()]
}

#[test]
fn slow_and_silent_readers_cost_nobody_else() {
    let services = ["left", "right"].map(|name| Service::new("shop", name));
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(services.iter().flat_map(Service::manifests));
    // Both upstreams are there at all times: an edit of a host is one response.
    let both = Ingress::new("shop", "both", "live").prefix("left.slow.test", "/", "left");
    objects.push(both.prefix("right.slow.test", "/", "right").into());
    let live = Live::with_engines(0, &objects);
    live.apply("all", &hosts("left"));
    let authority = authority(&live);
    let proxy = Proxy::narrow(live.xds());
    let connect = |name: String, to, window| {
        let issued = engine::issue(&authority, &name);
        let client = client(&issued, &[authority.certificate_pem()]);
        runtime().block_on(async move {
            let mut engine =
                Engine::connect(&name, client, to, Holds::default(), window).await.expect("it is let in");
            engine.take_tables(HOSTS).await.expect("it is served");
            engine
        })
    };
    // In sync first, each: then they stop.
    let slow: Vec<_> = (0..EACH).map(|n| connect(format!("slow-{n}"), proxy.address, None)).collect();
    let silent: Vec<_> = (0..EACH).map(|n| connect(format!("silent-{n}"), live.xds(), Some(1_024))).collect();
    let mut good = connect("good".to_owned(), live.xds(), None);
    proxy.slow_down();
    let before = live.resident();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let follower = runtime().spawn(async move {
        while good.take().await.unwrap_or(false) {
            count.store(good.received, Ordering::Relaxed);
        }
    });
    let slow: Vec<_> = slow
        .into_iter()
        .map(|mut engine| runtime().spawn(async move { while engine.take().await.unwrap_or(false) {} }))
        .collect();
    let mut grown = 0;
    for n in 1..=EDITS {
        let so_far = taken.load(Ordering::Relaxed);
        live.apply("all", &hosts(["left", "right"][n % 2]));
        // The good one has each edit of each host.
        live.eventually("the good engine has the edit", || {
            let now = taken.load(Ordering::Relaxed);
            if now >= so_far + HOSTS { Ok(()) } else { Err(format!("{now} after {so_far}")) }
        });
        grown = grown.max(live.resident().saturating_sub(before));
    }
    println!("{} KiB more at the most, with {} that do not read", grown / 1024, 2 * EACH);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    let gone = |name: &str, words: &str| {
        live.eventually(&format!("all of {name} are let go"), || {
            let log = live.log();
            let gone = log.lines().filter(|line| line.contains(name) && line.contains(words)).count();
            if gone == EACH { Ok(()) } else { Err(format!("{gone} told")) }
        });
    };
    gone("silent-", "An engine took nothing for 10 s and was let go");
    gone("slow-", "An engine's connection ended");
    live.eventually("the good one is left", || {
        let connected = live.metric("tidegate_engines_connected");
        if connected == Some(1) { Ok(()) } else { Err(format!("{connected:?}")) }
    });
    follower.abort();
    slow.iter().for_each(tokio::task::JoinHandle::abort);
    drop(silent);
}
