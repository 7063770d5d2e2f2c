//! An Envoy that somebody else runs joins a control plane by `tidegate bootstrap`.

use crate::support::live::{Ingress, Live, Request, Service, joined::Joined, manifest::class, tenant::http};
use serde_json::json;

#[test]
fn an_envoy_from_elsewhere_joins() {
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.push(Ingress::new("shop", "one", "live").prefix("one.live.test", "/", "any").into());
    let live = Live::with_engines(0, &objects);
    let _envoy = Joined::start(&live, "edge-1", live.xds());
    let vip = live.programmed("Ingress/shop/one");
    live.answered(http(vip), &Request::get("one.live.test", "/"), |answer| answer.status == 200)
        .served_by("any");
    let engine = live.status()["engines"][0].clone();
    assert_eq!((&engine["name"], &engine["state"]), (&json!("edge-1"), &json!("Remote")));
}
