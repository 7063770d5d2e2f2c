//! The control plane is dead for a time: hosts that were visited before are served, and
//! those that nobody has ever asked for, plain and over TLS.

use crate::support::live::{
    Ingress, Live, Request, Service, client,
    load::Load,
    manifest::{class, issued_secret},
    tenant::{http, https},
    tls::{self, Authority},
};
use serde_json::json;

const HOSTS: usize = 100;

#[test]
fn cold_and_warm_hosts_are_served_without_a_control_plane() {
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    let names: Vec<_> = (0..HOSTS).map(|n| format!("h{n}.away.test")).collect();
    let mut all = Ingress::new("shop", "all", "live");
    for (n, name) in names.iter().enumerate() {
        let secret = format!("tls-{n}");
        objects.push(issued_secret("shop", &secret, &Authority::shared().issue(&[name])));
        all = all.prefix(name, "/", "any").tls(&[name], &secret);
    }
    objects.push(all.into());
    let mut live = Live::start(&objects);
    let vip = live.programmed("Ingress/shop/all");
    let envoys = live.envoys();
    let over_tls = |name: &str| tls::send(https(vip), &Request::get(name, "/"));
    live.eventually("TLS is served", || over_tls(&names[0]).map(drop).map_err(|why| why.to_string()));
    let loads = [
        Load::plain(http(vip), Request::get(&names[0], "/")),
        Load::tls(https(vip), Request::get(&names[0], "/")),
    ];
    let (away, back) = names.split_at(HOSTS / 2);
    live.kill_control_plane();
    for name in away {
        over_tls(name).unwrap_or_else(|why| panic!("{name}: {why}")).served_by("any");
        client::must(http(vip), &Request::get(name, "/")).served_by("any");
    }
    // The next one comes and takes over, amid the visits of others.
    live.start_again();
    for name in back {
        over_tls(name).unwrap_or_else(|why| panic!("{name}: {why}")).served_by("any");
    }
    assert_eq!(live.envoys(), envoys, "the same Envoy");
    for load in loads {
        load.end().all_good();
    }
}
