//! What clients may say, and what is made of it.

use crate::support::live::{
    Answer, Connection, Request, Tenant, client,
    tenant::{self, http},
};
use serde_json::{Value, json};
use std::net::IpAddr;

/// One host, one service, with these fields of the setting.
fn serve(tenant: &Tenant) -> (IpAddr, String, crate::support::live::Service) {
    let service = tenant.service("any");
    let host = tenant.host("one");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&host, "/", "any"));
    (vip, host, service)
}

fn with(name: &str, setting: Value) -> Tenant {
    Tenant::with(name, &setting)
}

/// A request behind a PROXY protocol header: loopback clients are a case of their
/// own for Envoy, so tests about addresses come from elsewhere.
fn from(address: &str, vip: IpAddr, request: &Request) -> Answer {
    let mut connection = Connection::new(client::connect(http(vip)).expect("the VIP listens"));
    let header = format!("PROXY TCP4 {address} 127.0.0.1 40000 80\r\n");
    connection.write(header.as_bytes()).expect("it is open");
    connection.send(request).expect("an answer")
}

#[test]
fn proxy_protocol() {
    let tenant = with("proxied", json!({"clientAddress": {"proxyProtocol": true}}));
    let (vip, host, _service) = serve(&tenant);
    for address in ["203.0.113.9", "10.0.0.9"] {
        let answer = from(address, vip, &Request::get(&host, "/").header("x-envoy-internal", "true"));
        assert_eq!(answer.served_by("any").seen("x-forwarded-for").as_deref(), Some(address));
        // A private address is nobody Envoy may trust.
        assert_eq!(answer.seen("x-envoy-internal"), None, "{}", answer.show());
    }
    let refused = client::send(http(vip), &Request::get(&host, "/"));
    assert!(refused.is_err(), "{refused:?}");
}

/// What a client says of itself counts where a setting says that a proxy of
/// ours stands in front, and nowhere else.
#[test]
fn trusted_hops() {
    for (name, hops, proto, client_address) in
        [("hopless", 0, "http", "10.0.0.9"), ("hop", 1, "https", "198.51.100.7")]
    {
        let tenant = with(name, json!({"clientAddress": {"trustedHops": hops, "proxyProtocol": true}}));
        let (vip, host, _service) = serve(&tenant);
        let request = Request::get(&host, "/")
            .header("x-forwarded-for", "198.51.100.7")
            .header("x-forwarded-proto", "https");
        let answer = from("10.0.0.9", vip, &request);
        let seen = |header: &str| answer.seen(header).unwrap_or_default();
        answer.served_by("any");
        assert_eq!(seen("x-forwarded-for"), "198.51.100.7,10.0.0.9");
        assert_eq!(seen("x-forwarded-proto"), proto, "{name}");
        assert_eq!(seen("x-envoy-external-address"), client_address, "{name}");
    }
}

#[test]
fn underscores_in_header_names() {
    let rows = [("score-default", json!({})), ("score-drop", json!({"headers": {"underscores": "Drop"}}))];
    for (name, setting) in rows {
        let tenant = with(name, setting);
        let (vip, host, _service) = serve(&tenant);
        let answer = client::must(http(vip), &Request::get(&host, "/").header("x_user", "root"));
        match name {
            "score-default" => assert_eq!(answer.status, 400, "{}", answer.show()),
            _ => assert_eq!(answer.served_by("any").seen("x_user"), None),
        }
    }
}

/// Clients cannot speak to Envoy itself.
#[test]
fn envoy_headers_of_clients() {
    let tenant = Tenant::new("envoyish");
    let (vip, host, _service) = serve(&tenant);
    let headers = [
        "x-envoy-internal",
        "x-envoy-original-path",
        "x-envoy-original-host",
        "x-envoy-decorator-operation",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-attempt-count",
        "x-envoy-force-trace",
        "x-envoy-retry-on",
        "x-envoy-peer-metadata",
    ];
    let mut request = Request::get(&host, "/?delay=300")
        .header("x-envoy-upstream-rq-timeout-ms", "1")
        .header("x-envoy-upstream-alt-stat-name", "mine");
    for name in headers {
        request = request.header(name, "spoofed");
    }
    let answer = client::must(http(vip), &request);
    let saw = answer.served_by("any").json();
    assert!(!saw.to_string().contains("spoofed"), "{saw}");
    let to_client: Vec<_> = answer.headers.iter().filter(|(name, _)| name.starts_with("x-envoy-")).collect();
    assert!(to_client.is_empty(), "{to_client:?}");
}

/// A path is read before a route is chosen, not after.
#[test]
fn paths() {
    let tenant = Tenant::new("dots");
    let _services = ["open", "closed"].map(|name| tenant.service(name));
    let host = tenant.host("one");
    let ingress = tenant.ingress("one").prefix(&host, "/open", "open").prefix(&host, "/closed", "closed");
    let vip = tenant.serve("one", ingress);
    for (path, service, seen) in [
        ("/open/../closed", "closed", "/closed"),
        ("/open/./x", "open", "/open/x"),
        ("/closed/%2e%2e/open", "open", "/open"),
        ("/open/a%2Fb?c=../d", "open", "/open/a%2Fb?c=../d"),
    ] {
        let answer = tenant::get(vip, &host, path);
        assert_eq!(answer.served_by(service).json()["path"], seen, "{path}: {}", answer.show());
    }
}

#[test]
fn escaped_slashes() {
    let tenant = with("slashes", json!({"paths": {"escapedSlashes": "Reject", "mergeSlashes": true}}));
    let (vip, host, _service) = serve(&tenant);
    tenant::get(vip, &host, "/a%2Fb").refused_with(400);
    tenant::get(vip, &host, "/a%5cb").refused_with(400);
    assert_eq!(tenant::get(vip, &host, "//a///b").served_by("any").json()["path"], "/a/b");
}

#[test]
fn header_limits() {
    let tenant = with("headers", json!({"headers": {"maxKib": 4, "maxCount": 20}}));
    let (vip, host, _service) = serve(&tenant);
    tenant::get(vip, &host, "/").served_by("any");
    let long = Request::get(&host, "/").header("x-long", &"x".repeat(8_000));
    client::must(http(vip), &long).refused_with(431);
    let many = (0..30).fold(Request::get(&host, "/"), |request, n| request.header(&format!("x-{n}"), "y"));
    client::must(http(vip), &many).refused_with(431);
}
