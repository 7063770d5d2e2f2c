//! The disk of a running site takes nothing any more, or nothing at all: what is served
//! is served on, no address is given that could not be written down, and everything is
//! mended when the disk is.
//!
//! A limit on the size of files stands in for the disk: with it at the size that files
//! have, none can grow; with it at zero, none can be written.

use crate::support::live::{
    How, Ingress, Live, Request, Service,
    load::Load,
    manifest::class,
    tenant::{self, http},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::net::IpAddr;

/// From now on no file of the control plane may be written beyond so many bytes.
fn limit(live: &Live, bytes: Option<u64>) {
    let pid = i32::try_from(live.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("it is our child");
}

/// A class of its own, and so a VIP.
fn claim(name: &str) -> Vec<Value> {
    let mut objects = class(name, &json!({})).to_vec();
    objects.push(Ingress::new("shop", name, name).prefix(&format!("{name}.test"), "/", "left").into());
    objects
}

fn route(service: &str) -> [Value; 1] {
    [Ingress::new("shop", "one", "live").prefix("one.test", "/", service).into()]
}

fn start() -> (Live, [Service; 2], IpAddr) {
    let services = ["left", "right"].map(|name| Service::new("shop", name));
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(services.iter().flat_map(Service::manifests));
    // With the signal ignored, such a write fails as on a full disk.
    let how = How { shell: "trap '' XFSZ".to_owned(), ..How::engines(1) };
    let live = Live::start_as(how, &objects);
    live.apply("one", &route("left"));
    let vip = live.programmed("Ingress/shop/one");
    (live, services, vip)
}

#[track_caller]
fn outlasts(live: &mut Live, vip: IpAddr, bytes: u64) {
    let load = Load::plain(http(vip), Request::get("one.test", "/"));
    load.more(20);
    limit(live, Some(bytes));
    // Enough that the file must grow.
    for n in 0..50 {
        live.apply(&format!("claim{n}"), &claim(&format!("claim{n}")));
    }
    live.finding("Ingress/shop/claim49", "LedgerUnwritable");
    let finding = live.finding("Ingress/shop/claim49", "LedgerUnwritable");
    let words = finding["message"].as_str().expect("a message");
    assert!(words.contains("no address is given") && words.contains("check free space"), "{words}");
    let object = live.object("Ingress/shop/claim49").expect("it is known");
    assert!(object["addresses"].is_null() && object["programmed"] == false, "{object}");
    // What needs no address is served as it is told.
    for service in ["right", "left", "right"] {
        live.apply("one", &route(service));
        live.answered(http(vip), &Request::get("one.test", "/"), |answer| {
            answer.service().as_deref() == Some(service)
        });
    }
    limit(live, None);
    let given: Vec<_> = (0..50).map(|n| live.programmed(&format!("Ingress/shop/claim{n}"))).collect();
    tenant::get(given[49], "claim49.test", "/").served_by("left");
    live.wait("nothing is told any more", |status| !status.to_string().contains("LedgerUnwritable"));
    // And it is on the disk.
    live.kill_control_plane();
    live.start_again();
    let after: Vec<_> = (0..50).map(|n| live.programmed(&format!("Ingress/shop/claim{n}"))).collect();
    assert_eq!(after, given);
    load.end().all_good();
}

#[test]
fn a_full_disk_refuses_addresses_and_serves_on() {
    let (mut live, _services, vip) = start();
    let files = std::fs::read_dir(live.state()).expect("a folder").flatten();
    let largest = files.filter_map(|file| Some(file.metadata().ok()?.len())).max().expect("a ledger");
    // The log is told so, too.
    outlasts(&mut live, vip, largest.min(64 << 10));
}

#[test]
fn a_read_only_disk_refuses_addresses_and_serves_on() {
    let (mut live, _services, vip) = start();
    outlasts(&mut live, vip, 0);
}
