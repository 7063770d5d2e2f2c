//! Envoys that die, and Envoys that are replaced.

#![expect(clippy::disallowed_methods, reason = "a real process is held to real time")]

use super::rounds;
use crate::support::live::{
    How, Ingress, Live, Request, Service,
    load::Load,
    manifest::class,
    tenant::{self, http},
};
use serde_json::json;
use std::{net::IpAddr, time::Instant};

const CRASHES: usize = 6;

fn start(engines: usize) -> (Live, Service, IpAddr) {
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.push(Ingress::new("shop", "one", "live").prefix("one.test", "/", "any").into());
    let live = Live::with_engines(engines, &objects);
    let vip = live.programmed("Ingress/shop/one");
    (live, service, vip)
}

/// Waits until so many Envoys run and none of them is `gone`.
fn back(live: &Live, count: usize, gone: u32) {
    live.eventually("another Envoy runs", || {
        let now = live.envoys();
        if now.len() == count && !now.contains(&gone) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    live.wait("all engines are in sync", |status| {
        let engines = status["engines"].as_array().map_or(&[][..], Vec::as_slice);
        engines.len() == count && engines.iter().all(|engine| engine["synced"] == true)
    });
}

/// One Envoy alone: nobody answers while it is away. What can be promised is when it
/// is back, with everything.
#[test]
fn a_single_envoy_that_dies_comes_back() {
    let (live, _service, vip) = start(1);
    for n in 0..rounds(CRASHES) {
        let envoy = live.envoys()[0];
        let begin = Instant::now();
        if n % 2 == 0 {
            live.kill(envoy)
        } else {
            live.crash_envoy(envoy)
        }
        live.eventually("another runs", || match live.envoys()[..] {
            [now] if now != envoy => Ok(()),
            ref now => Err(format!("{now:?}")),
        });
        live.answered(http(vip), &Request::get("one.test", "/"), |answer| answer.status == 200);
        println!("back in service after {:?}", begin.elapsed());
        back(&live, 1, envoy);
        let load = Load::plain(http(vip), Request::get("one.test", "/"));
        load.more(50);
        load.end().all_good();
    }
}

/// With two Envoys on a VIP a death costs each client the request on its connection,
/// and at most one that went to the dying one's listener before that was closed too.
#[test]
fn of_two_envoys_one_may_die() {
    let (live, _service, vip) = start(2);
    for n in 0..rounds(CRASHES) {
        let loads = [0; 4].map(|_| Load::plain(http(vip), Request::get("one.test", "/")));
        loads.iter().for_each(|load| load.more(10));
        let envoy = live.envoys()[n % 2];
        if n % 4 < 2 {
            live.kill(envoy)
        } else {
            live.crash_envoy(envoy)
        }
        back(&live, 2, envoy);
        loads.iter().for_each(|load| load.more(10));
        let lost: usize = loads.map(|load| load.end().failures.values().sum()).iter().sum();
        println!("{lost} requests were under way on the Envoy that died");
        assert!(lost <= 8, "{lost}: clients lost more than what went to one process");
    }
}

/// Another configuration of the process needs another process: one after the other,
/// each drained, so that somebody is always there.
#[test]
fn two_envoys_are_replaced_and_nothing_is_lost() {
    let (mut live, _service, vip) = start(2);
    for concurrency in ["1", "2"] {
        let loads = [0; 4].map(|_| Load::plain(http(vip), Request::get("one.test", "/")));
        loads.iter().for_each(|load| load.more(10));
        let before = live.envoys();
        live.kill_control_plane();
        let arguments = vec!["--concurrency".to_owned(), concurrency.to_owned()];
        live.start_again_as(How { arguments, ..How::engines(2) });
        live.eventually("both are others", || {
            let now = live.envoys();
            let others = now.len() == 2 && now.iter().all(|envoy| !before.contains(envoy));
            if others { Ok(()) } else { Err(format!("{now:?}, before {before:?}")) }
        });
        back(&live, 2, before[0]);
        loads.iter().for_each(|load| load.more(50));
        for load in loads {
            load.end().all_good();
        }
    }
    tenant::get(vip, "one.test", "/").served_by("any");
}
