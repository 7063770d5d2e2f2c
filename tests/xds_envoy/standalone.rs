//! `--to static`, validated and run: what it answers is what the routes say.

use crate::{
    client::{backend, get, get_tls},
    envoy::{Envoy, validate},
    world::*,
};
use std::{net::SocketAddr, sync::Arc};
use tidegate::{
    base::Secret,
    ir::{
        Action, Edge, Endpoints, Host, Listener, PathMatch, Protocol, SniCertificate, Upstream,
        UpstreamProtocol, UpstreamTls,
    },
    xds::{Admin, Standalone, build_standalone},
};

/// A gateway with a plain and a TLS listener, run.
struct Site {
    envoy: Envoy,
    plain: SocketAddr,
    tls: SocketAddr,
}

#[derive(Default)]
struct Served {
    hosts: Vec<Host>,
    upstreams: Vec<Upstream>,
    endpoints: Vec<Endpoints>,
    certificates: Vec<SniCertificate>,
}

impl Served {
    fn config(&self, listeners: &[Listener]) -> serde_json::Value {
        build_standalone(&Standalone {
            listeners: listeners.iter().collect(),
            hosts: self.hosts.iter().collect(),
            upstreams: self.upstreams.iter().collect(),
            endpoints: self.endpoints.iter().collect(),
            certificates: self.certificates.iter().collect(),
            ..Standalone::default()
        })
    }

    #[track_caller]
    fn run(&self, edge: Edge) -> Site {
        let edge = Arc::new(edge);
        let [plain, tls] = [Protocol::Http, Protocol::Https]
            .map(|protocol| Listener { edge: edge.clone(), ..listener(protocol) });
        let (at, at_tls) = (address(&plain), address(&tls));
        let ready: &[SocketAddr] = if self.certificates.is_empty() { &[at] } else { &[at, at_tls] };
        let envoy = Envoy::start(&self.config(&[plain, tls]), ready);
        Site { envoy, plain: at, tls: at_tls }
    }
}

/// Hosts with a certificate for two of them and for no SNI.
fn tls_site() -> Served {
    let shop = Arc::new(certificate(&["shop.test", "*.wild.test"]));
    let other = Arc::new(certificate(&["other.test"]));
    Served {
        hosts: vec![
            with_tls(host("shop.test"), &["shop.test", "+.wild.test"], None),
            with_tls(host("+.wild.test"), &["shop.test", "+.wild.test"], Some((443, 308))),
            with_tls(host("other.test"), &["other.test"], Some((8443, 301))),
            host("plain.test"),
            with_tls(host("bare.test"), &[], None),
        ],
        certificates: vec![
            sni("shop.test", &shop),
            sni("*.wild.test", &shop),
            sni("other.test", &other),
            sni("default/public", &other),
        ],
        ..Served::default()
    }
}

#[test]
fn a_connection_for_another_name_is_misdirected() {
    let site = tls_site().run(edge());
    let rows = [
        (Some("shop.test"), "shop.test", "", 200),
        (Some("shop.test"), "SHOP.Test:8443", "", 200),
        (Some("SHOP.TEST"), "shop.test", "", 200),
        // The same certificate: browsers reuse the connection, and may.
        (Some("a.wild.test"), "shop.test", "", 200),
        (Some("shop.test"), "a.wild.test", "", 200),
        (Some("a.wild.test"), "a.wild.test", "", 200),
        (Some("shop.test"), "other.test", "", 421),
        (Some("other.test"), "shop.test", "", 421),
        (Some("other.test"), "a.wild.test", "", 421),
        // A client without SNI claims no name.
        (None, "shop.test", "", 200),
        (None, "other.test", "", 200),
        // Nobody can claim one by a header.
        (None, "shop.test", "x-sni: other.test\r\n", 200),
        (Some("other.test"), "shop.test", "x-sni: shop.test\r\nx-sni: shop.test\r\n", 421),
        // Not offered over TLS.
        (Some("shop.test"), "plain.test", "", 404),
        (Some("shop.test"), "plain.test", "x-tls: off\r\nx-forwarded-proto: http\r\n", 404),
        (None, "plain.test", "", 404),
        // TLS, but without a certificate of its own.
        (Some("shop.test"), "bare.test", "", 421),
        (Some("shop.test"), "nobody.test", "", 404),
    ];
    for (sni, host, headers, status) in rows {
        let reply = get_tls(site.tls, sni, host, "/", headers).expect("a handshake");
        assert_eq!(reply.status, status, "SNI {sni:?}, Host {host}, {headers}");
    }
    for (host, headers, status) in [
        ("plain.test", "", 200),
        ("plain.test", "x-tls: on\r\n", 200),
        ("shop.test", "x-sni: other.test\r\n", 200),
        ("nobody.test", "", 404),
    ] {
        assert_eq!(get(site.plain, host, "/", headers).status, status, "plain, Host {host}, {headers}");
    }
}

#[test]
fn plain_requests_are_redirected() {
    let site = tls_site().run(edge());
    for (host, status, location) in [
        ("other.test", 301, "https://other.test:8443/a?b=c"),
        ("Other.Test:8080", 301, "https://other.test:8443/a?b=c"),
        ("a.wild.test", 308, "https://a.wild.test/a?b=c"),
        ("a.wild.test:80", 308, "https://a.wild.test:443/a?b=c"),
        ("a.wild.test:8080", 308, "https://a.wild.test:443/a?b=c"),
    ] {
        // What the client says of itself is not believed.
        let reply = get(site.plain, host, "/a?b=c", "x-forwarded-proto: https\r\n");
        assert_eq!((reply.status, reply.header("location")), (status, Some(location)), "Host {host}");
    }
    assert_eq!(get(site.plain, "shop.test", "/", "").status, 200);
    let reply = get_tls(site.tls, Some("other.test"), "other.test", "/", "").expect("a handshake");
    assert_eq!(reply.status, 200);
}

#[test]
fn a_trusted_proxy_tells_the_scheme() {
    let served = tls_site();
    let site = served.run(Edge { trusted_hops: 1, ..edge() });
    let https = "x-forwarded-proto: https\r\nx-forwarded-for: 203.0.113.9\r\n";
    assert_eq!(get(site.plain, "other.test", "/", https).status, 200);
    assert_eq!(get(site.plain, "plain.test", "/", https).status, 200);
    assert_eq!(get(site.plain, "other.test", "/", "x-forwarded-proto: http\r\n").status, 301);
}

#[test]
fn an_sni_without_certificate_gets_no_handshake() {
    let mut served = tls_site();
    served.certificates.retain(|sni| *sni.name != *"default/public");
    let site = served.run(edge());
    assert!(get_tls(site.tls, None, "shop.test", "/", "").is_none());
    assert!(get_tls(site.tls, Some("nobody.test"), "shop.test", "/", "").is_none());
    assert_eq!(
        get_tls(site.tls, Some("a.wild.test"), "shop.test", "/", "").map(|reply| reply.status),
        Some(200)
    );
}

#[track_caller]
fn check_hosts(hosts: Vec<Host>, rows: &[(&str, &str, u16, &str)]) {
    let site = Served { hosts, ..Served::default() }.run(edge());
    for (host, path, status, body) in rows {
        let reply = get(site.plain, host, path, "");
        assert_eq!((reply.status, reply.body.as_str()), (*status, *body), "Host {host}, path {path}");
    }
}

#[test]
fn hosts_are_found_as_the_walker_finds_them() {
    check_hosts(
        vec![
            host("shop.test"),
            host("+.one.test"),
            host("*.any.test"),
            host("+.any.test"),
            host("*.test"),
            host("*"),
        ],
        &[
            ("shop.test", "/", 200, "shop.test"),
            ("SHOP.test.:8080", "/", 200, "shop.test"),
            ("a.one.test", "/", 200, "+.one.test"),
            ("A.One.Test:80", "/", 200, "+.one.test"),
            ("a.b.one.test", "/", 200, "*.test"),
            ("a.any.test", "/", 200, "+.any.test"),
            ("a.b.any.test", "/", 200, "*.any.test"),
            ("other.test", "/", 200, "*.test"),
            ("nobody.example", "/", 200, "*"),
            ("10.0.0.1", "/", 200, "*"),
        ],
    );
}

#[test]
fn what_no_path_has_goes_to_the_default_host() {
    let on = |text, path| with_routes(host(text), [says("one", prefix(path), text)]);
    check_hosts(
        vec![on("shop.test", "/a"), on("+.test", "/b"), host("*")],
        &[
            ("shop.test", "/a", 200, "shop.test"),
            // Never to the wildcard: the host exists.
            ("shop.test", "/b", 200, "*"),
            ("x.test", "/b", 200, "+.test"),
            ("x.test", "/a", 200, "*"),
        ],
    );
    check_hosts(vec![on("shop.test", "/a")], &[("shop.test", "/b", 404, ""), ("x.test", "/a", 404, "")]);
}

#[test]
fn paths_match_as_ingress_says() {
    let routes = [
        says("exact", PathMatch::Exact("/foo".into()), "exact"),
        says("prefix", prefix("/foo"), "prefix"),
        says("regex", PathMatch::Regex("/r/[0-9]+".into()), "regex"),
        says("long", PathMatch::Regex("/(?:long|[\\pL\\pN_]{1,64})/x".into()), "long"),
    ];
    check_hosts(
        vec![with_routes(host("shop.test"), routes)],
        &[
            ("shop.test", "/foo", 200, "exact"),
            ("shop.test", "/foo?x", 200, "exact"),
            ("shop.test", "/foo/", 200, "prefix"),
            ("shop.test", "/foo/x", 200, "prefix"),
            ("shop.test", "/foobar", 404, ""),
            ("shop.test", "/Foo", 404, ""),
            ("shop.test", "/r/12?q", 200, "regex"),
            ("shop.test", "/r/12/3", 404, ""),
            ("shop.test", "/x/../foo", 200, "exact"),
            ("shop.test", "/word/x", 200, "long"),
        ],
    );
}

fn forwarding(to: &[(SocketAddr, bool)]) -> Served {
    let web = upstream("web");
    Served {
        hosts: vec![with_routes(host("shop.test"), [forwards("all", prefix("/"), &web)])],
        endpoints: vec![endpoints(&web, to)],
        upstreams: vec![web],
        ..Served::default()
    }
}

#[test]
fn backends_see_the_client_and_nothing_of_ours() {
    let site = forwarding(&[(backend("one"), false)]).run(edge());
    let headers = "x-envoy-original-path: /admin\r\nx-envoy-fault-abort-request: 503\r\nX-Envoy-Retry-On: 5xx\r\n\
                   x-sni: a\r\nx-vip: b\r\nx-scope: c\r\nx-scope: d\r\nx-tls: on\r\nx-kept: 1\r\n\
                   x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\n";
    let reply = get(site.plain, "Shop.test:8080", "/p%2Fq?x", headers);
    let seen = reply.body.to_ascii_lowercase();
    for gone in
        ["x-envoy-original", "x-envoy-fault", "x-envoy-retry", "x-sni", "x-vip", "x-scope", "x-tls", "mine"]
    {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert!(seen.starts_with("one\r\nget /p%2fq?x http/1.1\r\n"), "{seen}");
    for kept in [
        "host: shop.test:8080\r\n",
        "x-kept: 1\r\n",
        "x-forwarded-proto: http\r\n",
        // Envoy never writes a loopback peer, but its own address instead.
        "x-forwarded-for: 198.51.100.7,",
        // Envoy's own word, not the client's.
        "x-envoy-external-address: 127.0.0.1\r\n",
        &format!("x-forwarded-port: {}\r\n", site.plain.port()),
    ] {
        assert!(seen.contains(kept), "{kept} not in {seen}");
    }
    // The backend says none, so it is ours.
    assert_eq!(reply.header("server"), Some("tidegate"));
    assert!(!reply.head.to_ascii_lowercase().contains("x-envoy"), "{}", reply.head);
}

#[test]
fn the_access_log_tells_a_request() {
    let site = forwarding(&[(backend("one"), false)]).run(edge());
    get(site.plain, "shop.test", "/told?\"quoted\"", "user-agent: a\"b\\c\r\n");
    let line = site.envoy.access_log("/told");
    for (field, want) in [
        ("vip", site.plain.to_string().into()),
        ("client", "127.0.0.1".into()),
        ("method", "GET".into()),
        ("scheme", "http".into()),
        ("host", "shop.test".into()),
        ("path", "/told?\"quoted\"".into()),
        ("user_agent", "a\"b\\c".into()),
        ("route", "all".into()),
        ("upstream", "shop/web/80".into()),
        ("status", 200.into()),
        ("details", "via_upstream".into()),
        ("protocol", "HTTP/1.1".into()),
    ] {
        let want: serde_json::Value = want;
        assert_eq!(line[field], want, "{field} of {line}");
    }
    for number in ["duration_ms", "upstream_ms", "bytes_sent", "bytes_received"] {
        assert!(line[number].is_u64(), "{number} of {line}");
    }
    for absent in ["sni", "tls_version", "grpc_status"] {
        assert_eq!(line.get(absent), None, "{absent} of {line}");
    }
}

#[test]
fn draining_endpoints_serve_only_when_alone() {
    let (one, two) = (backend("ready"), backend("draining"));
    let three = backend("draining");
    let site = forwarding(&[(one, false), (two, true), (three, true)]).run(edge());
    for _ in 0..20 {
        assert!(get(site.plain, "shop.test", "/", "").body.starts_with("ready"));
    }
    let site = forwarding(&[(two, true), (three, true)]).run(edge());
    assert!(get(site.plain, "shop.test", "/", "").body.starts_with("draining"));
    let site = forwarding(&[]).run(edge());
    assert_eq!(get(site.plain, "shop.test", "/", "").status, 503);
}

#[test]
fn the_same_source_goes_to_the_same_endpoint() {
    let mut served =
        forwarding(&[(backend("one"), false), (backend("two"), false), (backend("three"), false)]);
    let web = Upstream { sticky_source: true, ..upstream("web") };
    served.hosts = vec![with_routes(host("shop.test"), [forwards("all", prefix("/"), &web)])];
    served.upstreams = vec![web];
    let site = served.run(edge());
    let ask = || get(site.plain, "shop.test", "/", "").body.lines().next().map(str::to_owned);
    let first = ask();
    assert!((0..20).all(|_| ask() == first));
}

#[test]
fn a_status_of_ours_needs_no_backend() {
    let mut served = Served { hosts: vec![host("shop.test")], ..Served::default() };
    served.hosts[0].routes[0].action = Action::Status { status: 503, body: "no endpoints\n".into() };
    let site = served.run(edge());
    let reply = get(site.plain, "shop.test", "/", "");
    assert_eq!((reply.status, reply.body.as_str()), (503, "no endpoints\n"));
}

#[test]
fn an_empty_world_is_valid() {
    validate(&Served::default().config(&[]));
    validate(&Served::default().config(&[listener(Protocol::Http), listener(Protocol::Https)]));
}

#[test]
fn everything_at_once_is_valid() {
    let own = Arc::new(certificate(&["own.test"]));
    let mut served = tls_site();
    let ca = Some(Secret::new(own.chain.clone()));
    let tls = Some(UpstreamTls { server_name: Some("api.test".into()), ca });
    let api = Upstream { tls, protocol: UpstreamProtocol::Http2, ..upstream("api") };
    let outside = Upstream { external: Some(("api.test".into(), 443)), ..upstream("outside") };
    served.hosts.push(with_tls(host("own.test"), &["own.test"], None));
    served.hosts.push(with_routes(
        host("*"),
        [forwards("a", prefix("/a"), &api), forwards("all", prefix("/"), &outside)],
    ));
    served.upstreams = vec![api, outside];
    let edge = Arc::new(Edge { proxy_protocol: true, ..edge() });
    let chain = dedicated("own.test", &[]);
    let name = chain.certificate.clone();
    let listener = Listener { edge, dedicated: vec![chain], ..listener(Protocol::Https) };
    let config = build_standalone(&Standalone {
        listeners: vec![&listener],
        hosts: served.hosts.iter().collect(),
        upstreams: served.upstreams.iter().collect(),
        certificates: served.certificates.iter().collect(),
        dedicated: [(name, own)].into(),
        admin: Some(Admin::Address(SocketAddr::from(([127, 0, 0, 1], 0)))),
        ..Standalone::default()
    });
    assert_eq!(
        config.pointer("/static_resources/listeners/0/filter_chains/1/name"),
        Some(&"own.test".into())
    );
    validate(&config);
}
