//! Which VIP a host stands on, and that engines listen there and nowhere else.

use crate::support::live::{
    Ingress, Live, Request, Service, Tenant, client,
    manifest::class,
    tenant::{self, http},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr};

fn addresses(live: &Live, ingress: &str) -> BTreeSet<IpAddr> {
    live.programmed(ingress);
    let object = live.object(ingress).expect("it is known");
    let all = object["addresses"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|address| address.as_str().and_then(|text| text.parse().ok()).expect("an address"))
        .collect()
}

fn only(addresses: BTreeSet<IpAddr>) -> IpAddr {
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    *addresses.first().expect("one")
}

#[test]
fn a_vip_for_each_ingress() {
    let tenant = Tenant::with("own", &json!({"vip": {"sharing": "Ingress"}}));
    let _service = tenant.service("any");
    let vips = ["one", "two"].map(|name| {
        let host = tenant.host(name);
        tenant.apply(name, &[tenant.ingress(name).prefix(&host, "/", "any").into()]);
        only(addresses(&tenant.live, &tenant.key(name)))
    });
    assert_ne!(vips[0], vips[1]);
    tenant::get(vips[0], &tenant.host("one"), "/").served_by("any");
    tenant::get(vips[0], &tenant.host("two"), "/").refused_with(404);
    tenant::get(vips[1], &tenant.host("two"), "/").served_by("any");
    // The last host goes, and the listener with it.
    tenant.delete("one");
    tenant.live.eventually("nobody listens", || {
        match client::send(http(vips[0]), &Request::get(&tenant.host("one"), "/")) {
            Ok(answer) => Err(answer.show()),
            Err(_) => Ok(()),
        }
    });
    tenant::get(vips[1], &tenant.host("two"), "/").served_by("any");
}

#[test]
fn a_vip_for_each_host() {
    let tenant = Tenant::with("perhost", &json!({"vip": {"sharing": "Host"}}));
    let _service = tenant.service("any");
    let hosts = ["one", "two", "three"].map(|label| tenant.host(label));
    let ingress = hosts.iter().fold(tenant.ingress("all"), |ingress, host| ingress.prefix(host, "/", "any"));
    tenant.apply("all", &[ingress.into()]);
    let vips = addresses(&tenant.live, &tenant.key("all"));
    assert_eq!(vips.len(), hosts.len());
    for host in &hosts {
        let serving = vips.iter().filter(|vip| tenant::get(**vip, host, "/").status == 200);
        assert_eq!(serving.count(), 1, "{host}");
    }
}

#[test]
fn shards_spread_hosts() {
    let tenant = Tenant::with("sharded", &json!({"vip": {"shards": 3}}));
    let _service = tenant.service("any");
    let hosts: Vec<_> = (0..30).map(|n| tenant.host(&format!("h{n}"))).collect();
    let ingress = hosts.iter().fold(tenant.ingress("all"), |ingress, host| ingress.prefix(host, "/", "any"));
    tenant.apply("all", &[ingress.into()]);
    let vips = addresses(&tenant.live, &tenant.key("all"));
    assert_eq!(vips.len(), 3);
    let mut used: BTreeSet<&IpAddr> = BTreeSet::new();
    for host in &hosts {
        let serving: Vec<_> = vips.iter().filter(|vip| tenant::get(**vip, host, "/").status == 200).collect();
        assert_eq!(serving.len(), 1, "{host}: {serving:?}");
        used.extend(serving);
    }
    assert_eq!(used.len(), 3);
}

fn small_pool(name: &str, addresses: &[String]) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "VipPool",
        "metadata": {"name": name},
        // Nobody else's claims: a setting has to name it, and so has its namespace.
        "spec": {"addresses": addresses, "priority": -1, "quarantineSeconds": 0, "namespaces": {"names": [name]}},
    })
}

/// Exhaustion is told on the object that waits; it is served when the pool grows.
#[test]
fn a_pool_that_is_too_small() {
    let tenant = Tenant::with("small", &json!({"vip": {"sharing": "Ingress", "pool": "small"}}));
    let _service = tenant.service("any");
    let free = ["1", "2"].map(|last| format!("127.99.{}.{last}", std::process::id() % 250));
    tenant.apply("pool", &[small_pool("small", &free[..1])]);
    for (name, year) in [("first", 2020), ("second", 2021)] {
        let ingress = tenant.ingress(name).since(year).prefix(&tenant.host(name), "/", "any");
        tenant.apply(name, &[ingress.into()]);
        if name == "first" {
            assert_eq!(only(addresses(&tenant.live, &tenant.key(name))).to_string(), free[0]);
        }
    }
    tenant.live.finding(&tenant.key("second"), "PoolExhausted");
    tenant.apply("pool", &[small_pool("small", &free)]);
    let vip = only(addresses(&tenant.live, &tenant.key("second")));
    assert_eq!(vip.to_string(), free[1]);
    tenant::get(vip, &tenant.host("second"), "/").served_by("any");
    let told = tenant.live.object(&tenant.key("second")).expect("it is known").to_string();
    assert!(!told.contains("PoolExhausted"), "{told}");
}

/// The ports of a VIP are edited while it serves.
#[test]
fn listeners_move_to_another_port() {
    let tenant = Tenant::new("ports");
    let _service = tenant.service("any");
    let host = tenant.host("one");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&host, "/", "any"));
    tenant::get(vip, &host, "/").served_by("any");
    tenant.apply("class", &class("ports", &json!({"listeners": {"http": 18_081, "https": 0}})));
    let moved = std::net::SocketAddr::new(vip, 18_081);
    tenant.live.answered(moved, &Request::get(&host, "/"), |answer| answer.status == 200);
    tenant.live.eventually("the old port is closed", || match client::connect(http(vip)) {
        Ok(_) => Err("it is open".to_owned()),
        Err(_) => Ok(()),
    });
}

fn class_object(name: &str, default: bool) -> Value {
    let mut object = class(name, &json!({}))[0].clone();
    object["metadata"]["annotations"] =
        json!({"ingressclass.kubernetes.io/is-default-class": default.to_string()});
    object
}

/// `ingressClassName` first, the old annotation second, the default class for
/// neither; a class of somebody else never. Its own product: a default class is
/// for everybody.
#[test]
fn classes() {
    let service = Service::new("shop", "any");
    let without = |name: &str| {
        let mut object =
            Value::from(Ingress::new("shop", name, "x").prefix(&format!("{name}.live.test"), "/", "any"));
        object["spec"].as_object_mut().expect("an object").remove("ingressClassName");
        object
    };
    let mut legacy = without("legacy");
    legacy["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "plain"});
    let mut foreign = class_object("foreign", false);
    foreign["spec"]["controller"] = "example.com/another".into();
    let theirs = Ingress::new("shop", "theirs", "foreign").prefix("theirs.live.test", "/", "any");
    let [_, plain_setting] = class("plain", &json!({}));
    let [_, usual_setting] = class("usual", &json!({}));
    let mut objects = service.manifests();
    objects.extend([class_object("plain", false), class_object("usual", true), foreign]);
    objects.extend([plain_setting, usual_setting, legacy, without("defaulted"), theirs.into()]);
    let live = Live::start(&objects);
    let vips = [("legacy", "plain"), ("defaulted", "usual")].map(|(name, class)| {
        let key = format!("Ingress/shop/{name}");
        let vip = only(addresses(&live, &key));
        assert_eq!(live.object(&key).expect("it is known")["class"], class);
        tenant::get(vip, &format!("{name}.live.test"), "/").served_by("any");
        vip
    });
    assert_ne!(vips[0], vips[1]);
    let object = live.object("Ingress/shop/theirs").expect("it is known");
    assert_eq!((&object["served"], &object["programmed"]), (&json!(false), &json!(false)), "{object}");
    vips.iter().for_each(|vip| {
        tenant::get(*vip, "theirs.live.test", "/").refused_with(404);
    });
}
