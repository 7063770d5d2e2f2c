//! The engine around an Envoy: what was sent last is served whoever else is dead.

use crate::support::live::{
    Answer, Ingress, Live, Request, Service, client,
    load::Load,
    manifest::{class, issued_secret},
    tenant::{self, http, https},
    tls::{self, Authority},
};
use serde_json::{Value, json};
use std::{fs, net::IpAddr, path::Path};

/// More than one response of each kind holds.
const HOSTS: usize = 1_200;
const HOSTS_AN_INGRESS: usize = 100;

fn host(n: usize) -> String {
    format!("h{n}.engine.test")
}

/// [`HOSTS`] hosts, of which those of the first Ingress have TLS.
fn many(service: &Service) -> Vec<Value> {
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    for at in 0..HOSTS / HOSTS_AN_INGRESS {
        let names: Vec<_> = (0..HOSTS_AN_INGRESS).map(|n| host(at * HOSTS_AN_INGRESS + n)).collect();
        let mut ingress = Ingress::new("shop", &format!("i{at}"), "live");
        for name in &names {
            ingress = ingress.prefix(name, "/", "any");
        }
        if at == 0 {
            for (n, name) in names.iter().enumerate() {
                let secret = format!("tls-{n}");
                ingress = ingress.tls(&[name], &secret);
                objects.push(issued_secret("shop", &secret, &Authority::shared().issue(&[name])));
            }
        }
        objects.push(ingress.into());
    }
    objects
}

fn last() -> String {
    format!("Ingress/shop/i{}", HOSTS / HOSTS_AN_INGRESS - 1)
}

fn tls_get(vip: IpAddr, name: &str) -> Answer {
    tls::send(https(vip), &Request::get(name, "/"))
        .unwrap_or_else(|why| panic!("{name} is served over TLS: {why}"))
}

/// The longest road: nobody has ever asked for these names, the control plane is
/// dead, and so are the Envoy and the engine process that held everything.
#[test]
fn a_restarted_envoy_serves_all_hosts_without_the_control_plane() {
    let service = Service::new("shop", "any");
    let mut live = Live::start(&many(&service));
    let vip = live.programmed(&last());
    live.all_is_kept();
    live.kill_control_plane();
    for n in 0..10 {
        tls_get(vip, &host(n)).served_by("any");
    }
    let (envoys, engines) = (live.envoys(), live.engines());
    assert_eq!((envoys.len(), engines.len()), (1, 1));
    live.kill(envoys[0]);
    all_there_at_once(&live, vip, 10);

    // Nobody is left to start an engine but the next control plane: it is run by hand.
    for (round, id) in live.engines().into_iter().chain(live.envoys()).enumerate() {
        assert!(round < 2, "one of each");
        live.kill(id);
    }
    live.eventually("both are dead", || {
        if live.engines().is_empty() && live.envoys().is_empty() { Ok(()) } else { Err(String::new()) }
    });
    let mut engine = live.run_engine_by_hand();
    all_there_at_once(&live, vip, 50);
    engine.end();
    assert!(key_files(live.keys()).is_empty(), "an engine that stops for good leaves no keys");
}

/// From the first connection that is taken, no host is missing.
#[track_caller]
fn all_there_at_once(live: &Live, vip: IpAddr, cold: usize) {
    let first = live.eventually("it listens again", || {
        client::send(http(vip), &Request::get(&host(HOSTS - 1), "/")).map_err(|why| why.to_string())
    });
    first.served_by("any");
    for n in (0..HOSTS).step_by(7) {
        tenant::get(vip, &host(n), "/").served_by("any");
    }
    for n in cold..cold + 10 {
        tls_get(vip, &host(n)).served_by("any");
    }
}

/// Killed or asked to hand over, with the control plane there or not: its Envoy
/// serves on, is taken over, and follows.
#[test]
fn an_engine_process_that_dies_costs_nothing() {
    let (service, other) = (Service::new("shop", "any"), Service::new("shop", "other"));
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.extend(other.manifests());
    let mut live = Live::start(&objects);
    let ingress = |to: &str| Ingress::new("shop", "one", "live").prefix("one.engine.test", "/", to);
    live.apply("one", &[ingress("any").into()]);
    let vip = live.programmed("Ingress/shop/one");
    let envoys = live.envoys();
    let load = Load::plain(http(vip), Request::get("one.engine.test", "/"));
    load.more(20);
    for (round, to) in ["other", "any", "other", "any"].into_iter().enumerate() {
        let engine = live.engines()[0];
        if round % 2 == 0 {
            live.kill(engine)
        } else {
            live.hang_up(engine)
        }
        // What changes while it is away reaches Envoy all the same.
        live.apply("one", &[ingress(to).into()]);
        live.answered(http(vip), &Request::get("one.engine.test", "/"), |answer| {
            answer.service().as_deref() == Some(to)
        });
        live.programmed("Ingress/shop/one");
        assert_ne!(live.engines(), [engine], "another process");
        assert_eq!(live.envoys(), envoys, "the same Envoy");
    }
    live.kill_control_plane();
    live.kill(live.engines()[0]);
    load.more(200);
    live.start_again();
    assert_eq!(live.programmed("Ingress/shop/one"), vip);
    assert_eq!(live.envoys(), envoys, "the same Envoy");
    load.more(20);
    load.end().all_good();
}

/// A control plane that comes back finds everything in its place.
#[test]
fn nothing_is_sent_again() {
    let service = Service::new("shop", "any");
    let mut live = Live::start(&many(&service));
    let vip = live.programmed(&last());
    tls_get(vip, &host(1)).served_by("any");
    live.kill_control_plane();
    live.start_again();
    live.programmed(&last());
    let status = live.status();
    assert_eq!(status["engines"][0]["sync"], "SYNCED", "{status}");
    assert_eq!(status["engines"][0]["sent"], 0, "{status}");
    // The engine process is another as well: what it says comes from what Envoy holds.
    live.all_is_kept();
    live.kill(live.engines()[0]);
    live.wait("the engine is back, and in sync", |status| {
        let engine = &status["engines"][0];
        engine["sync"] == "SYNCED" && engine["sent"] == 0
    });
    tls_get(vip, &host(2)).served_by("any");
}

/// The keys of TLS hosts are in memory, in files of the owner alone, and nowhere else.
#[test]
fn private_keys_are_not_written_to_disks() {
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    let one = Ingress::new("shop", "one", "live").prefix("one.engine.test", "/", "any");
    objects.push(one.tls(&["one.engine.test"], "one").into());
    let issued = Authority::shared().issue(&["one.engine.test"]);
    objects.push(issued_secret("shop", "one", &issued));
    let live = Live::start(&objects);
    let vip = live.programmed("Ingress/shop/one");
    tls_get(vip, "one.engine.test").served_by("any");
    // A line of the key as PEM has it: how it travels to Envoy.
    let line = issued.key.lines().nth(1).expect("a key has lines").as_bytes();
    let holds = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(line.len()).any(|window| window == line)
    };
    let on_disk: Vec<_> = key_files(&live.state()).into_iter().filter(|path| holds(path)).collect();
    assert!(on_disk.is_empty(), "{on_disk:?}");
    assert!(key_files(live.keys()).iter().any(|path| holds(path)), "the test would see it");
}

/// All files under a folder.
fn key_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>());
    let paths = entries.unwrap_or_default().into_iter().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { key_files(&path) } else { vec![path] }).collect()
}
