//! Which host's routes answer, and that nothing which Envoy decides before its
//! HTTP filters run (upgrades, timeouts) is lost on hosts the walker found.

use crate::support::live::{
    Connection, HTTP, Request, Tenant, client,
    tenant::{self, http},
};
use serde_json::json;
use std::net::IpAddr;

/// An exact host, one with a single path, a wildcard host and a default backend.
fn matrix(tenant: &Tenant) -> IpAddr {
    let ingress = tenant
        .ingress("hosts")
        .prefix(&tenant.host("exact"), "/", "exact")
        .prefix(&tenant.host("partial"), "/only", "partial")
        .prefix(&tenant.host("*"), "/", "wild")
        .default_backend("default");
    tenant.serve("hosts", ingress)
}

#[test]
fn finds_the_host() {
    let tenant = Tenant::new("walker");
    let _services = ["exact", "partial", "wild", "default"].map(|name| tenant.service(name));
    let vip = matrix(&tenant);
    let rows = [
        ("exact.walker.test", "/", "exact"),
        ("EXACT.Walker.TEST", "/", "exact"),
        ("exact.walker.test:18080", "/", "exact"),
        ("exact.walker.test:1", "/", "exact"),
        ("exact.walker.test.", "/", "exact"),
        ("Exact.walker.test.:18080", "/", "exact"),
        ("any.walker.test", "/", "wild"),
        ("ANY.walker.TEST:18080", "/", "wild"),
        ("any.walker.test.", "/", "wild"),
        ("a.b.walker.test", "/", "default"),
        ("b.exact.walker.test", "/", "default"),
        ("walker.test", "/", "default"),
        ("elsewhere.org", "/", "default"),
        ("localhost", "/", "default"),
        ("partial.walker.test", "/only/this", "partial"),
        // A host of its own is nobody's wildcard, also where it has no such path.
        ("partial.walker.test", "/else", "default"),
        ("PARTIAL.walker.test:18080", "/else", "default"),
    ];
    for (host, path, service) in rows {
        tenant::get(vip, host, path).served_by(service);
    }
    tenant::get(vip, &vip.to_string(), "/").served_by("default");
}

#[test]
fn without_a_default_backend_it_is_404() {
    let tenant = Tenant::new("nodefault");
    let _services = ["exact", "wild"].map(|name| tenant.service(name));
    let ingress = tenant.ingress("hosts").exact(&tenant.host("exact"), "/here", "exact").prefix(
        &tenant.host("*"),
        "/",
        "wild",
    );
    let vip = tenant.serve("hosts", ingress);
    tenant::get(vip, &tenant.host("exact"), "/here").served_by("exact");
    tenant::get(vip, &tenant.host("other"), "/").served_by("wild");
    for (host, path) in [("exact", "/"), ("exact", "/here/"), ("a.b", "/"), ("a.exact", "/here")] {
        tenant::get(vip, &tenant.host(host), path).refused_with(404);
    }
    tenant::get(vip, "nodefault.test", "/").refused_with(404);
    tenant::get(vip, "elsewhere.org", "/").refused_with(404);
}

/// The headers that routes are found by are ours: what a client writes there
/// decides nothing, and no backend sees any of it.
#[test]
fn a_client_cannot_say_where_it_belongs() {
    let tenant = Tenant::new("spoofed");
    let _services = ["exact", "partial", "wild", "default"].map(|name| tenant.service(name));
    let vip = matrix(&tenant);
    let spoof = |host: &str| {
        Request::get(host, "/")
            .header("x-scope", "exact.spoofed.test")
            .header("x-scope", "*")
            .header("x-vip", "another")
            .header("x-sni", "exact.spoofed.test")
            .header("x-tls", "on")
    };
    for (host, service) in
        [("exact.spoofed.test", "exact"), ("any.spoofed.test", "wild"), ("a.b.spoofed.test", "default")]
    {
        let answer = client::must(http(vip), &spoof(host));
        answer.served_by(service);
        for header in ["x-scope", "x-vip", "x-sni", "x-tls"] {
            assert_eq!(answer.seen(header), None, "{}", answer.show());
        }
    }
}

/// Two gateways of one engine: the same host, other backends.
#[test]
fn vips_are_apart() {
    let (left, right) = (Tenant::new("left"), Tenant::new("right"));
    let vips = [&left, &right].map(|tenant| {
        let service = tenant.service(&tenant.name);
        let ingress = tenant.ingress("one").prefix(&tenant.host("one"), "/", &tenant.name);
        let ingress = ingress.prefix(&format!("*.{}.wild.test", tenant.name), "/", &tenant.name);
        (tenant.serve("one", ingress), service)
    });
    let [(left, _left), (right, _right)] = &vips;
    assert_ne!(left, right);
    tenant::get(*left, "one.left.test", "/").served_by("left");
    tenant::get(*left, "one.right.test", "/").refused_with(404);
    tenant::get(*right, "one.right.test", "/").served_by("right");
    tenant::get(*right, "a.right.wild.test", "/").served_by("right");
    tenant::get(*right, "a.left.wild.test", "/").refused_with(404);
}

const FOUND_BY_ALL_WAYS: [(&str, &str); 3] = [("exact", "exact"), ("any", "wild"), ("a.b", "default")];

#[test]
fn websockets() {
    let tenant = Tenant::new("websocket");
    let _services = ["exact", "partial", "wild", "default"].map(|name| tenant.service(name));
    let vip = matrix(&tenant);
    for (label, service) in FOUND_BY_ALL_WAYS {
        let mut connection = Connection::new(client::connect(http(vip)).expect("the VIP listens"));
        let request = Request::get(&tenant.host(label), "/chat")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let answer = connection.send(&request).expect("an answer");
        assert_eq!((answer.status, answer.header("x-service")), (101, Some(service)), "{}", answer.show());
        for word in [b"ping-one", b"ping-two"] {
            connection.write(word).expect("it is open");
            let mut back = [0; 8];
            connection.read_exact(&mut back).expect("it comes back");
            assert_eq!(&back, word);
        }
    }
}

#[test]
fn route_timeouts() {
    let tenant = Tenant::with("timeout", &json!({"timeouts": {"routeMs": 400}}));
    let _services = ["exact", "partial", "wild", "default"].map(|name| tenant.service(name));
    let vip = matrix(&tenant);
    for (label, service) in FOUND_BY_ALL_WAYS {
        tenant::get(vip, &tenant.host(label), "/?delay=10").served_by(service);
        tenant::get(vip, &tenant.host(label), "/?delay=20000").refused_with(504);
    }
}

/// Envoy's own default would end it after 15 s.
#[test]
fn no_route_timeout_unless_asked_for() {
    let tenant = Tenant::new("patient");
    let _services = ["exact", "partial", "wild", "default"].map(|name| tenant.service(name));
    let vip = matrix(&tenant);
    let slow = FOUND_BY_ALL_WAYS.map(|(label, service)| {
        let host = tenant.host(label);
        std::thread::spawn(move || tenant::get(vip, &host, "/?delay=16000").served_by(service).status)
    });
    for thread in slow {
        assert_eq!(thread.join().expect("it was answered"), 200);
    }
}

#[test]
fn ports_of_the_host_header_do_not_matter_to_the_backend() {
    let tenant = Tenant::new("asis");
    let _service = tenant.service("asis");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&tenant.host("one"), "/", "asis"));
    let host = format!("One.asis.test:{HTTP}");
    let answer = tenant::get(vip, &host, "/");
    assert_eq!(answer.served_by("asis").json()["host"], host, "{}", answer.show());
}
