//! A whole fleet comes at once, and once more: thousands of mTLS streams.

#![expect(clippy::disallowed_methods, reason = "a real process is held to real time")]

use super::engine::{self, Engine, Holds, authority, client};
use crate::support::live::{Ingress, Live, Service, backend::runtime, client as http, manifest::class};
use rustls::ClientConfig;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const ENGINES: usize = 2_000;
const HOSTS: usize = 20;
/// Until a whole fleet is in sync.
const DEADLINE: Duration = Duration::from_secs(60);
/// A stream, with its TLS and HTTP/2 state and its session, in an unoptimised build.
const BYTES_PER_ENGINE_MAX: u64 = 160 << 10;
/// Answers of the admin API that must come amid all that.
const ANSWERS_MIN: usize = 4;

#[test]
fn two_thousand_engines_come_at_once() {
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    let all = (0..HOSTS).fold(Ingress::new("shop", "all", "live"), |all, n| {
        all.prefix(&format!("h{n}.storm.test"), "/", "any")
    });
    objects.push(all.into());
    let live = Live::with_engines(0, &objects);
    let authority = authority(&live);
    let fleet: Vec<(String, Arc<ClientConfig>)> = (0..ENGINES)
        .map(|n| {
            let name = format!("engine-{n}");
            let issued = engine::issue(&authority, &name);
            (name, client(&issued, &[authority.certificate_pem()]))
        })
        .collect();
    let before = live.resident();
    let begin = Instant::now();
    let (engines, slowest) = come(&live, &fleet, vec![Holds::default(); ENGINES]);
    println!("{ENGINES} engines in sync after {:?}; slowest admin answer {slowest:?}", begin.elapsed());
    live.eventually("all are in sync", || in_sync(&live, ENGINES));
    let grown = live.resident().saturating_sub(before);
    println!("{} KiB an engine", grown / ENGINES as u64 / 1024);
    assert!(grown < BYTES_PER_ENGINE_MAX * ENGINES as u64, "{grown} bytes");
    assert!(engines.iter().all(|engine| engine.received > HOSTS));

    // All connections break at once; everybody comes back with what it holds.
    let holds = engines.into_iter().map(|engine| engine.holds).collect();
    live.eventually("they are gone", || in_sync(&live, 0));
    let begin = Instant::now();
    let (engines, slowest) = come(&live, &fleet, holds);
    live.eventually("all are in sync again", || in_sync(&live, ENGINES));
    println!("again after {:?}; slowest admin answer {slowest:?}", begin.elapsed());
    let sent: usize = engines.iter().map(|engine| engine.received).sum();
    assert_eq!(sent, 0, "what an engine holds is not sent again");
    let again = live.resident().saturating_sub(before);
    assert!(again < BYTES_PER_ENGINE_MAX * ENGINES as u64, "{again} bytes");
}

fn in_sync(live: &Live, count: usize) -> Result<(), String> {
    let count = Some(count as u64);
    let now = ["tidegate_engines_connected", "tidegate_engines_synced"].map(|name| live.metric(name));
    if now == [count, count] { Ok(()) } else { Err(format!("{now:?}")) }
}

/// Connects all at once, and waits until each holds everything; meanwhile asks the
/// admin API, and gives its slowest answer.
fn come(live: &Live, fleet: &[(String, Arc<ClientConfig>)], holds: Vec<Holds>) -> (Vec<Engine>, Duration) {
    let (done, to) = (Arc::new(AtomicBool::new(false)), live.xds());
    let admin = live.admin();
    let asking = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            let (mut slowest, mut answers) = (Duration::ZERO, 0);
            while !done.load(Ordering::Relaxed) {
                for path in ["/healthz", "/api/v1/vips"] {
                    let begin = Instant::now();
                    assert_eq!(http::get(admin, "admin", path).status, 200);
                    slowest = slowest.max(begin.elapsed());
                    answers += 1;
                }
                thread::sleep(Duration::from_millis(50));
            }
            assert!(answers >= ANSWERS_MIN, "{answers} answers");
            slowest
        })
    };
    let synced = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&synced);
    let engines = runtime().block_on(async move {
        let mut tasks = JoinSet::new();
        for ((name, client), holds) in fleet.iter().cloned().zip(holds) {
            let count = Arc::clone(&count);
            tasks.spawn(async move {
                let mut engine = Engine::connect(&name, client, to, holds, None).await.expect("it is let in");
                engine.take_tables(HOSTS).await.expect("it is served");
                count.fetch_add(1, Ordering::Relaxed);
                engine
            });
        }
        tokio::time::timeout(DEADLINE, tasks.join_all()).await
    });
    done.store(true, Ordering::Relaxed);
    let slowest = asking.join().expect("the admin API answers");
    let engines =
        engines.unwrap_or_else(|_| panic!("{} of {ENGINES} are in sync", synced.load(Ordering::Relaxed)));
    (engines, slowest)
}
