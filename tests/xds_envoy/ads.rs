//! Resources as the server sends them. No server here: scopes and their tables
//! are put into the listener that would fetch them, and the module is real.

use crate::{
    client::{get, get_tls},
    envoy::{Envoy, validate},
    world::*,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};
use tidegate::{
    base::Secret,
    ir::{
        Edge, EscapedSlashes, GatewayKey, GatewayName, Host, Listener, Protocol, Underscores, Upstream,
        UpstreamProtocol, UpstreamTls,
    },
    xds::{
        Admin, Bootstrap, ControlPlane, Share, build_bootstrap, build_endpoints, build_host, build_listener,
        build_upstream, print_resource,
    },
};

fn bootstrap(control_plane: ControlPlane) -> Value {
    build_bootstrap(&Bootstrap {
        node: "engine-0".to_owned(),
        fleet: "edge".to_owned(),
        control_plane,
        admin: Admin::Address(SocketAddr::from(([127, 0, 0, 1], 0))),
        share: Share { heap_bytes: Some(1 << 30), connections: 50_000 },
    })
}

fn local() -> ControlPlane {
    ControlPlane::Local { socket: "/run/tidegate/xds.sock".to_owned() }
}

/// A bootstrap that has these resources already.
fn holding(listeners: &[Value], clusters: impl IntoIterator<Item = Value>) -> Value {
    let mut config = bootstrap(local());
    config["static_resources"]["listeners"] = listeners.into();
    config["static_resources"]["clusters"].as_array_mut().unwrap().extend(clusters);
    config
}

#[test]
fn bootstraps_are_valid() {
    validate(&bootstrap(local()));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let identity = certificate(&["engine-0.test"]);
    for server_name in ["control.test", "10.0.0.1"] {
        validate(&bootstrap(ControlPlane::Remote {
            addresses: vec![("control.test".to_owned(), 18_000), ("10.0.0.1".to_owned(), 18_000)],
            server_name: server_name.to_owned(),
            certificate_file: file("crt.pem", &identity.chain),
            key_file: file("key.pem", identity.key.expose()),
            authorities_file: file("ca.pem", &identity.chain),
        }));
    }
}

#[test]
fn listeners_are_valid() {
    let strict = Edge {
        proxy_protocol: true,
        trusted_hops: 2,
        underscores: Underscores::Drop,
        access_log: false,
        ..edge()
    };
    let mut odd = edge();
    odd.paths.escaped_slashes = EscapedSlashes::Redirect;
    odd.timeouts.stream_idle = None;
    odd.timeouts.request_headers = None;
    odd.timeouts.connection_idle = None;
    odd.limits.concurrent_streams = 0;
    odd.limits.headers_kib = 1 << 20;
    odd.limits.connections = 0;
    odd.limits.buffer_bytes = 0;
    let mut all: Vec<Listener> = Vec::new();
    for edge in [edge(), strict, odd].map(Arc::new) {
        for protocol in [Protocol::Http, Protocol::Https] {
            all.push(Listener { edge: edge.clone(), ..listener(protocol) });
        }
    }
    let chains = [
        dedicated("a.test", &[]),
        dedicated("+.wild.test", &["a.wild.test", "b.wild.test", "own.wild.test"]),
        dedicated("own.wild.test", &[]),
        dedicated("*.wild.test", &["a.wild.test"]),
    ];
    all.push(Listener { dedicated: chains.into(), ..listener(Protocol::Https) });
    let built: Vec<Value> = all.iter().map(|listener| print_resource(&build_listener(listener))).collect();
    validate(&holding(&built, []));
}

/// Two chains of one match reject the whole listener.
#[test]
fn trap_29_chains_differ_in_their_match() {
    let hosts = ["a.test", "+.a.test", "*.a.test", "b.a.test", "+.b.a.test", "*.b.a.test", "*"];
    let shadowed = ["a.test", "b.a.test", "c.b.a.test", "d.a.test"];
    let mut built = Vec::new();
    // Every set of hosts that have chains of their own, with all or none below them shadowed.
    for set in 1..1_u32 << hosts.len() {
        let of: Vec<_> = hosts.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1).collect();
        let shadowed = if set.is_multiple_of(3) { &shadowed[..] } else { &[] };
        let dedicated = of.iter().map(|(_, host)| dedicated(host, shadowed)).collect();
        let listener = print_resource(&build_listener(&Listener { dedicated, ..listener(Protocol::Https) }));
        let mut seen = std::collections::BTreeSet::new();
        for chain in listener["filter_chains"].as_array().unwrap() {
            let names = chain.pointer("/filter_chain_match/server_names").cloned().unwrap_or_default();
            let names = names.as_array().cloned().unwrap_or_default();
            assert!(names.is_empty() == chain["filter_chain_match"].is_null(), "{chain}");
            for name in names.into_iter().chain(chain["filter_chain_match"].is_null().then(Value::default)) {
                assert!(seen.insert(name.to_string()), "{name} twice: {of:?} {listener:#}");
            }
        }
        if set % 8 == 7 {
            built.push(listener);
        }
    }
    validate(&holding(&built, []));
}

/// Envoy knows `*.suffix` alone, and asks the inspector for the name.
#[test]
fn trap_30_wildcards_of_a_match_are_suffixes() {
    let chains = vec![dedicated("*.a.test", &[]), dedicated("+.b.test", &["x.b.test"]), dedicated("*", &[])];
    let listener = Listener { dedicated: chains, ..listener(Protocol::Https) };
    let built = print_resource(&build_listener(&listener));
    for chain in built["filter_chains"].as_array().unwrap() {
        let names = chain.pointer("/filter_chain_match/server_names").cloned().unwrap_or(json!([]));
        for name in names.as_array().unwrap() {
            let name = name.as_str().unwrap();
            let rest = name.strip_prefix("*.").unwrap_or(name);
            assert!(!rest.contains('*') && !rest.is_empty(), "{name}");
        }
    }
    let inspects = built["listener_filters"].to_string().contains("tls_inspector");
    assert!(inspects, "{built:#}");
    validate(&holding(&[built], []));
}

#[test]
fn clusters_are_valid() {
    let tls = |server_name: Option<&str>, ca: bool| {
        let ca = ca.then(|| Secret::new(certificate(&["ca.test"]).chain));
        Some(UpstreamTls { server_name: server_name.map(Into::into), ca })
    };
    let mut all = Vec::new();
    for (service, change) in [
        ("plain", Upstream { ..upstream("") }),
        ("grpc", Upstream { protocol: UpstreamProtocol::Http2, ..upstream("") }),
        ("sticky", Upstream { sticky_source: true, ..upstream("") }),
        ("unverified", Upstream { tls: tls(None, false), ..upstream("") }),
        ("verified", Upstream { tls: tls(Some("api.test"), true), ..upstream("") }),
        ("nameless", Upstream { tls: tls(None, true), protocol: UpstreamProtocol::Http2, ..upstream("") }),
        ("outside", Upstream { external: Some(("api.test".into(), 443)), ..upstream("") }),
        (
            "outside-sticky",
            Upstream { external: Some(("api.test".into(), 80)), sticky_source: true, ..upstream("") },
        ),
    ] {
        all.push(Upstream { key: upstream(service).key, ..change });
    }
    let built: Vec<Value> = all.iter().map(|upstream| print_resource(&build_upstream(upstream).0)).collect();
    validate(&holding(&[], built));
    // Assignments travel apart; a cluster of the same name shows that Envoy takes one.
    let web = upstream("web");
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let assignment = print_resource(&build_endpoints(&endpoints(&web, &[(address, true)])));
    let cluster = json!({"name": "shop/web/80", "type": "STATIC", "load_assignment": assignment});
    validate(&holding(&[], [cluster]));
}

/// Runs a listener with the tables it would fetch.
fn run(listener: &Listener, hosts: &[Host]) -> Envoy {
    let scopes: Vec<Value> = hosts.iter().map(whole_scope).collect();
    let mut value = print_resource(&build_listener(listener));
    let chain = &mut value["filter_chains"][0];
    let routes = &mut chain["filters"][1]["typed_config"]["scoped_routes"];
    assert!(routes["scoped_rds"].is_object(), "{value:#}");
    routes.as_object_mut().unwrap().remove("scoped_rds");
    routes["scoped_route_configurations_list"] = json!({"scoped_route_configurations": scopes});
    if listener.protocol == Protocol::Https {
        let certificate = certificate(&["shop.test"]);
        let text = |bytes: &[u8]| json!({"inline_string": String::from_utf8(bytes.to_vec()).unwrap()});
        let tls = &mut chain["transport_socket"]["typed_config"]["common_tls_context"];
        assert!(tls["custom_tls_certificate_selector"].is_object(), "{tls:#}");
        tls.as_object_mut().unwrap().remove("custom_tls_certificate_selector");
        tls["tls_certificates"] = json!([{
            "certificate_chain": text(&certificate.chain),
            "private_key": text(certificate.key.expose()),
        }]);
    }
    let mut config = holding(&[value], []);
    // It would wait for a control plane before it listens.
    config.as_object_mut().unwrap().remove("dynamic_resources");
    Envoy::start(&config, &[address(listener)])
}

fn whole_scope(host: &Host) -> Value {
    let [mut scope, table] = build_host(host).map(|resource| print_resource(&resource));
    assert_eq!(scope["route_configuration_name"], table["name"]);
    scope.as_object_mut().unwrap().remove("route_configuration_name");
    scope["route_configuration"] = table;
    scope
}

fn hosts() -> Vec<Host> {
    let mut other = host("shop.test");
    let private = GatewayName { class: "private".into(), ..GatewayName::clone(&other.key.gateway) };
    other.key.gateway = GatewayKey::new(private);
    vec![
        with_tls(host("shop.test"), &["shop.test", "+.wild.test"], None),
        with_routes(host("plain.test"), [says("a", prefix("/a"), "plain.test")]),
        with_tls(host("+.one.test"), &["+.one.test"], Some((443, 308))),
        host("*.test"),
        with_tls(host("*"), &["shop.test"], None),
        with_routes(other, [says("all", prefix("/"), "another gateway")]),
    ]
}

#[test]
fn scopes_are_found_through_the_module() {
    let listener = listener(Protocol::Http);
    let _envoy = run(&listener, &hosts());
    for (host, path, headers, status, body) in [
        ("shop.test", "/", "", 200, "shop.test"),
        ("SHOP.Test.:8080", "/", "", 200, "shop.test"),
        ("shop.test", "/", "x-vip: private\r\nx-scope: *\r\nx-sni: a\r\nx-tls: on\r\n", 200, "shop.test"),
        ("shop.test", "/", "x-vip: private\r\nX-Vip: private\r\n", 200, "shop.test"),
        ("plain.test", "/a/b", "", 200, "plain.test"),
        ("plain.test", "/b", "", 200, "*"),
        ("a.one.test", "/", "", 308, ""),
        ("a.b.one.test", "/", "", 200, "*.test"),
        ("nobody.example", "/", "", 200, "*"),
    ] {
        let reply = get(address(&listener), host, path, headers);
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "Host {host}, {path}, {headers}");
    }
}

#[test]
fn the_server_name_comes_from_the_handshake() {
    let listener = listener(Protocol::Https);
    let _envoy = run(&listener, &hosts());
    for (sni, host, headers, status) in [
        (Some("shop.test"), "shop.test", "", 200),
        (Some("SHOP.test"), "shop.test", "", 200),
        (Some("a.wild.test"), "shop.test", "", 200),
        (Some("a.b.wild.test"), "shop.test", "", 421),
        (Some("a.one.test"), "shop.test", "x-sni: shop.test\r\n", 421),
        (None, "shop.test", "", 200),
        (None, "shop.test", "x-sni: other.test\r\nx-sni: other.test\r\n", 200),
        (Some("a.one.test"), "b.one.test", "", 200),
        (Some("shop.test"), "plain.test", "x-tls: off\r\n", 404),
        (None, "plain.test", "", 404),
        (Some("shop.test"), "nobody.example", "", 200),
        (Some("a.one.test"), "nobody.example", "", 421),
    ] {
        let reply = get_tls(address(&listener), sni, host, "/", headers).expect("a handshake");
        assert_eq!(reply.status, status, "SNI {sni:?}, Host {host}, {headers}");
    }
}
