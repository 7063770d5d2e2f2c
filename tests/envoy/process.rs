//! The process itself: many hosts, crashes, endings. Each test has its own product.

use crate::support::live::{
    Ingress, Live, Request, Service, client,
    load::Load,
    manifest::{class, issued_secret},
    tenant::{self, http, https},
    tls::{self, Authority},
};
use serde_json::{Value, json};

/// A class and a Service `any`, and what else a test names.
fn world(service: &Service, more: impl IntoIterator<Item = Ingress>) -> Vec<Value> {
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.extend(more.into_iter().map(Value::from));
    objects
}

fn ingress(name: &str) -> Ingress {
    Ingress::new("shop", name, "live")
}

/// The control plane dies: engines go on. The next one takes them over, and they
/// follow it.
#[test]
fn engines_outlive_the_control_plane() {
    let service = Service::new("shop", "any");
    let other = Service::new("shop", "other");
    let names = ["plain.live.test", "warm.live.test", "cold.live.test"];
    let all = names.iter().fold(ingress("all"), |all, name| all.prefix(name, "/", "any"));
    let all = all.tls(&names[1..], "all");
    let mut live = Live::with_engines(2, &world(&service, [all.clone()]));
    let issued = Authority::shared().issue(&names[1..]);
    live.apply("secret", &[issued_secret("shop", "all", &issued)]);
    live.apply("other", &other.manifests());
    let vip = live.programmed("Ingress/shop/all");
    let ask = |name: &str| tls::send(https(vip), &Request::get(name, "/"));
    live.eventually("the certificate is served", || {
        ask("warm.live.test").map(|answer| answer.served_by("any").status).map_err(|why| why.to_string())
    });
    // Both Envoys listen on the VIP and the kernel chooses: each must have been asked.
    for _ in 0..64 {
        ask("warm.live.test").expect("it is served").served_by("any");
    }
    let envoys = live.envoys();
    assert_eq!(envoys.len(), 2, "one an engine");
    let load = Load::plain(http(vip), Request::get("plain.live.test", "/"));
    load.more(20);
    live.kill_control_plane();
    load.more(200);
    for name in &names[1..] {
        for _ in 0..10 {
            ask(name).expect("both engines have its certificate").served_by("any");
        }
    }
    assert_eq!(live.envoys(), envoys);
    live.start_again();
    assert_eq!(live.programmed("Ingress/shop/all"), vip);
    assert_eq!(live.envoys(), envoys, "the same processes");
    load.more(20);
    let moved = names.iter().fold(ingress("all"), |all, name| all.prefix(name, "/", "other"));
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.push(moved.tls(&names[1..], "all").into());
    live.apply("start", &objects);
    live.answered(http(vip), &Request::get("plain.live.test", "/"), |answer| {
        answer.service().as_deref() == Some("other")
    });
    load.more(20);
    load.end().all_good();
    live.stop();
    live.ended();
}

/// An Envoy dies: another stands in its place, with all that it served.
#[test]
fn a_dead_envoy_is_replaced() {
    let service = Service::new("shop", "any");
    let live = Live::start(&world(&service, [ingress("one").prefix("one.live.test", "/", "any")]));
    let vip = live.programmed("Ingress/shop/one");
    tenant::get(vip, "one.live.test", "/").served_by("any");
    let before = live.envoys();
    live.kill(before[0]);
    live.eventually("another Envoy runs", || {
        let now = live.envoys();
        if now.len() == 1 && now != before { Ok(()) } else { Err(format!("{now:?}")) }
    });
    live.answered(http(vip), &Request::get("one.live.test", "/"), |answer| answer.status == 200);
    assert_eq!(live.programmed("Ingress/shop/one"), vip);
}

/// Two of them would give the same addresses twice.
#[test]
fn one_state_is_for_one_process() {
    let service = Service::new("shop", "any");
    let live = Live::start(&world(&service, [ingress("one").prefix("one.live.test", "/", "any")]));
    let vip = live.programmed("Ingress/shop/one");
    let load = Load::plain(http(vip), Request::get("one.live.test", "/"));
    let (code, said) = live.second();
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("state"), "{said}");
    load.more(20);
    load.end().all_good();
}

/// What is under way is finished, what comes then is refused, and nothing is left.
#[test]
fn stopping_loses_nothing_under_way() {
    let service = Service::new("shop", "any");
    let mut live = Live::start(&world(&service, [ingress("one").prefix("one.live.test", "/", "any")]));
    let vip = live.programmed("Ingress/shop/one");
    tenant::get(vip, "one.live.test", "/").served_by("any");
    let slow = std::thread::spawn(move || {
        client::send(http(vip), &Request::get("one.live.test", "/?delay=3000")).expect("it is answered")
    });
    live.eventually("the slow request is under way", || {
        let busy = service.backends[0].0.in_flight();
        if busy == 1 { Ok(()) } else { Err(busy.to_string()) }
    });
    live.stop();
    slow.join().expect("it was answered").served_by("any");
    live.ended();
    assert!(client::send(http(vip), &Request::get("one.live.test", "/")).is_err(), "nobody listens");
}

/// VIPs are kept: those of the last run are those of the next.
#[test]
fn a_restart_keeps_the_vips() {
    let service = Service::new("shop", "any");
    let shared = ingress("one").prefix("one.live.test", "/", "any");
    let mut objects = world(&service, [shared]);
    for n in 0..3 {
        let name = format!("own{n}");
        objects.extend(class(&name, &json!({})));
        let host = format!("{name}.live.test");
        objects.push(Ingress::new("shop", &name, &name).prefix(&host, "/", "any").into());
    }
    let mut live = Live::start(&objects);
    let names = ["one", "own0", "own1", "own2"];
    let vips = |live: &Live| names.map(|name| live.programmed(&format!("Ingress/shop/{name}")));
    let before = vips(&live);
    live.stop();
    live.ended();
    live.start_again();
    assert_eq!(vips(&live), before);
    for (name, vip) in names.iter().zip(before) {
        tenant::get(vip, &format!("{name}.live.test"), "/").served_by("any");
    }
}

const HOSTS: usize = 10_000;
const HOSTS_AN_INGRESS: usize = 250;

fn host(n: usize) -> String {
    format!("h{n}.many.test")
}

#[test]
fn ten_thousand_hosts() {
    let service = Service::new("shop", "any");
    let ingresses = (0..HOSTS / HOSTS_AN_INGRESS).map(|i| {
        let hosts = (0..HOSTS_AN_INGRESS).map(|n| host(i * HOSTS_AN_INGRESS + n));
        hosts.fold(ingress(&format!("i{i}")), |ingress, host| ingress.prefix(&host, "/", "any"))
    });
    let live = Live::start(&world(&service, ingresses));
    let last = HOSTS / HOSTS_AN_INGRESS - 1;
    let vip = live.programmed(&format!("Ingress/shop/i{last}"));
    let sample = || (0..HOSTS).step_by(199).chain([HOSTS - 1]);
    for n in sample() {
        tenant::get(vip, &host(n), "/").served_by("any");
    }
    let load = Load::plain(http(vip), Request::get(&host(0), "/"));
    live.apply("one-more", &[ingress("more").prefix(&host(HOSTS), "/", "any").into()]);
    live.programmed("Ingress/shop/more");
    tenant::get(vip, &host(HOSTS), "/").served_by("any");
    tenant::get(vip, &host(HOSTS + 1), "/").refused_with(404);
    live.delete("one-more");
    live.answered(http(vip), &Request::get(&host(HOSTS), "/"), |answer| answer.status == 404);
    for n in sample() {
        tenant::get(vip, &host(n), "/").served_by("any");
    }
    load.end().all_good();
}
