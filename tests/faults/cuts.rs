//! The stream between Envoy and the control plane is cut, at any message, again and
//! again, while edits go on.

use super::{Random, proxy::Proxy, rounds};
use crate::support::live::{
    Ingress, Live, Request, Service, client, joined::Joined, load::Load, manifest::class, tenant::http,
};
use serde_json::{Value, json};

const CUTS: usize = 200;
/// Besides those that are edited: what a full send would be made of.
const HOSTS: usize = 300;
/// A handshake, the first requests and their answers are about so many records.
const RECORDS_MAX: u64 = 40;

/// One host, in an Ingress of its name.
fn ingress(name: &str, service: &str) -> Value {
    Ingress::new("shop", name, "live").prefix(&format!("{name}.cut.test"), "/", service).into()
}

#[test]
fn a_stream_cut_at_any_message_converges() {
    let services = ["left", "right"].map(|name| Service::new("shop", name));
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(services.iter().flat_map(Service::manifests));
    let all = (0..HOSTS).fold(Ingress::new("shop", "steady", "live"), |all, n| {
        all.prefix(&format!("h{n}.cut.test"), "/", "left")
    });
    objects.push(all.into());
    let live = Live::with_engines(0, &objects);
    let proxy = Proxy::start(live.xds());
    let _envoy = Joined::start(&live, "edge-1", proxy.address);
    live.apply("edited", &[ingress("edited", "left")]);
    let vip = live.programmed("Ingress/shop/edited");
    let first = proxy.down();
    let loads = ["h0.cut.test", "h299.cut.test", "edited.cut.test"]
        .map(|host| Load::plain(http(vip), Request::get(host, "/")));

    let mut random = Random(1);
    for n in 1..=rounds(CUTS) {
        proxy.cut_after(1 + i64::try_from(random.below(RECORDS_MAX)).expect("small"), random.below(2) == 0);
        // Edits until it is cut, and one of which the Envoy hears only after it.
        let mut turn = n;
        live.eventually("the stream is cut", || {
            live.apply("edited", &[ingress("edited", ["left", "right"][turn % 2])]);
            turn += 1;
            let cuts = proxy.cuts();
            if cuts == n { Ok(()) } else { Err(format!("{cuts} of {n}")) }
        });
        let service = ["left", "right"][random.below(2) as usize];
        live.apply("edited", &[ingress("edited", service)]);
        live.answered(http(vip), &Request::get("edited.cut.test", "/"), |answer| {
            answer.service().as_deref() == Some(service)
        });
    }

    // With nothing new to say, next to nothing is said.
    live.wait("it is in sync", |status| status["engines"][0]["synced"] == true);
    let (before, connections) = (proxy.down(), proxy.connections());
    proxy.cut_after(1, true);
    live.apply("edited", &[ingress("edited", "left"), ingress("more", "left")]);
    live.eventually("it is back", || {
        let now = proxy.connections();
        if now > connections { Ok(()) } else { Err(now.to_string()) }
    });
    live.wait("it is in sync", |status| status["engines"][0]["synced"] == true);
    live.answered(http(vip), &Request::get("more.cut.test", "/"), |answer| answer.status == 200);
    let again = proxy.down() - before;
    println!("the first {HOSTS} hosts: {first} bytes; after a cut: {again} bytes");
    assert!(again < first / 8, "{again} bytes after a cut, {first} at first");
    assert_eq!(client::get(http(vip), "h7.cut.test", "/").status, 200);
    for load in loads {
        load.end().all_good();
    }
}
