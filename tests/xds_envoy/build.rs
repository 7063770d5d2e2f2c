//! The load-bearing fields of what is built, and what keeps its bytes and versions still.

use crate::world::*;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret as EnvoySecret;
use prost::Message;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tidegate::{
    base::{ObjectKey, ObjectKind, Secret},
    ir::{
        Action, Host, Listener, Protocol, Route, SniCertificate, Upstream, UpstreamKey, UpstreamPolicy,
        UpstreamProtocol, UpstreamTls,
    },
    xds::{
        Resource, Standalone, build_dedicated, build_endpoints, build_host, build_listener, build_sni,
        build_standalone, build_upstream, print_resource,
    },
};

/// Fields by JSON pointer; `null` where there must be none.
#[track_caller]
fn check(resource: &Resource, rows: &[(&str, Value)]) {
    let value = print_resource(resource);
    for (pointer, want) in rows {
        assert_eq!(value.pointer(pointer).unwrap_or(&Value::Null), want, "{pointer} of {value:#}");
    }
}

fn secured() -> Upstream {
    let policy =
        UpstreamPolicy { verify: Some(("ca".into(), "api.test".into())), ..UpstreamPolicy::default() };
    Upstream {
        key: UpstreamKey { policy: Arc::new(policy), ..upstream("api").key },
        protocol: UpstreamProtocol::Http2,
        tls: Some(UpstreamTls {
            server_name: Some("api.test".into()),
            ca: Some(Secret::new(b"PEM of the authorities".as_slice().into())),
        }),
        ..upstream("api")
    }
}

fn web_host() -> Host {
    let web = Upstream { sticky_source: true, ..upstream("web") };
    let api = upstream("api");
    let mut timed = forwards("timed", prefix("/api"), &api);
    if let Action::Forward { timeout, .. } = &mut timed.action {
        *timeout = Some(Duration::from_millis(1500));
    }
    let routes = [forwards("all", prefix("/"), &web), timed, forwards("again", prefix("/x"), &web)];
    with_routes(with_tls(host("shop.test"), &["shop.test", "+.w.test"], Some((8443, 307))), routes)
}

#[test]
fn names_and_needs() {
    let names = |resources: &[Resource]| -> Vec<(String, Vec<String>)> {
        let text = |resource: &Resource| resource.needs.iter().map(ToString::to_string).collect();
        resources.iter().map(|resource| (resource.key.to_string(), text(resource))).collect()
    };
    let row =
        |name: &str, needs: &[&str]| (name.to_owned(), needs.iter().map(|&need| need.to_owned()).collect());
    let [scope, table] = build_host(&web_host());
    let secured = secured();
    let (cluster, authorities) = build_upstream(&secured);
    let key = secured.key.to_string();
    let listener = Listener { dedicated: vec![dedicated("a.test", &[])], ..listener(Protocol::Https) };
    let port = listener.key.port;
    let pem = certificate(&["a.test"]);
    let built = [
        scope,
        table,
        cluster,
        authorities.unwrap(),
        build_endpoints(&endpoints(&secured, &[])),
        build_listener(&listener),
        build_sni(&sni("a.test", &Arc::new(pem.clone()))),
        build_dedicated("chain/public/a.test", &pem),
    ];
    assert_eq!(
        names(&built),
        [
            row("ScopedRoute s/public/shop.test", &["Route r/public/shop.test"]),
            row("Route r/public/shop.test", &["Cluster shop/api/80", "Cluster shop/web/80"]),
            row(&format!("Cluster {key}"), &[&format!("Secret upstream/{key}")]),
            row(&format!("Secret upstream/{key}"), &[]),
            row(&format!("Endpoints {key}"), &[]),
            row(&format!("Listener l/127.0.0.1:{port}"), &["Secret chain/public/a.test"]),
            row("Secret a.test", &[]),
            row("Secret chain/public/a.test", &[]),
        ]
    );
    let origins: Vec<String> =
        built.iter().flat_map(|built| built.origins.iter()).map(ToString::to_string).collect();
    assert!(origins.contains(&"Secret/shop/ca".to_owned()), "{origins:?}");
}

#[test]
fn tables_guard_then_serve_then_end() {
    let [scope, table] = build_host(&web_host());
    check(&scope, &[("/key/fragments", json!([{"string_key": "shop.test"}, {"string_key": "public"}]))]);
    let name = |n: usize| format!("/virtual_hosts/0/routes/{n}/name");
    check(
        &table,
        &[
            ("/request_headers_to_remove", json!(["x-scope", "x-vip", "x-sni", "x-tls"])),
            (&name(0), json!("-misdirected")),
            (&name(1), json!("-redirect")),
            (&name(2), json!("all")),
            (&name(3), json!("timed")),
            (&name(4), json!("again")),
            (&name(5), json!("->default")),
            (&name(6), json!(null)),
            ("/virtual_hosts/0/routes/0/direct_response/status", json!(421)),
            ("/virtual_hosts/0/routes/1/redirect/port_redirect", json!(8443)),
            ("/virtual_hosts/0/routes/1/redirect/response_code", json!("TEMPORARY_REDIRECT")),
            ("/virtual_hosts/0/routes/2/match/prefix", json!("/")),
            // Said, since unsaid it is 15 s.
            ("/virtual_hosts/0/routes/2/route/timeout", json!("0s")),
            ("/virtual_hosts/0/routes/2/route/hash_policy/0/connection_properties/source_ip", json!(true)),
            ("/virtual_hosts/0/routes/2/route/retry_policy", json!(null)),
            ("/virtual_hosts/0/routes/3/match/path_separated_prefix", json!("/api")),
            ("/virtual_hosts/0/routes/3/route/timeout", json!("1.500s")),
            ("/virtual_hosts/0/routes/3/route/hash_policy", json!(null)),
        ],
    );
    let [_, table] = build_host(&with_routes(host("*"), []));
    check(&table, &[(&name(0), json!("-plain-only")), (&name(1), json!("-404")), (&name(2), json!(null))]);
}

#[test]
fn trap_20_endpoints_bear_the_name_of_their_cluster_alone() {
    for (upstream, sticky) in [(upstream("web"), false), (secured(), true)] {
        let upstream = Upstream { sticky_source: sticky, ..upstream };
        let cluster = print_resource(&build_upstream(&upstream).0);
        let endpoints = build_endpoints(&endpoints(&upstream, &[]));
        assert_eq!(cluster["eds_cluster_config"]["service_name"], cluster["name"]);
        assert_eq!(cluster["name"], *endpoints.key.name);
    }
}

#[test]
fn trap_45_changes_of_endpoints_are_not_held_back() {
    let window = "/common_lb_config/update_merge_window";
    check(&build_upstream(&upstream("web")).0, &[(window, json!("0s"))]);
    check(&build_upstream(&secured()).0, &[(window, json!("0s"))]);
}

#[test]
fn clusters_hold_what_was_decided() {
    let options = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\
                   /explicit_http_config";
    check(
        &build_upstream(&upstream("web")).0,
        &[
            ("/name", json!("shop/web/80")),
            ("/alt_stat_name", json!("upstream/shop/web/80")),
            ("/eds_cluster_config/service_name", json!("shop/web/80")),
            ("/common_lb_config/healthy_panic_threshold/value", json!(1.0)),
            ("/ignore_health_on_host_removal", json!(true)),
            ("/connect_timeout", json!("5s")),
            ("/transport_socket", json!(null)),
            (options, json!({"http_protocol_options": {}})),
        ],
    );
    let secured = secured();
    let validation = "/transport_socket/typed_config/common_tls_context/combined_validation_context";
    check(
        &build_upstream(&secured).0,
        &[
            ("/transport_socket/typed_config/sni", json!("api.test")),
            ("/transport_socket/typed_config/common_tls_context/alpn_protocols", json!(["h2"])),
            (
                &format!("{validation}/default_validation_context/match_typed_subject_alt_names"),
                json!([{"san_type": "DNS", "matcher": {"exact": "api.test"}}]),
            ),
            (
                &format!("{validation}/validation_context_sds_secret_config/name"),
                json!(format!("upstream/{}", secured.key)),
            ),
        ],
    );
    check(
        &build_upstream(&Upstream {
            external: Some(("api.test".into(), 81)),
            sticky_source: true,
            ..upstream("x")
        })
        .0,
        &[
            ("/lb_policy", json!("MAGLEV")),
            ("/cluster_type/name", json!("envoy.clusters.dns")),
            ("/cluster_type/typed_config/respect_dns_ttl", json!(true)),
            ("/wait_for_warm_on_init", json!(false)),
            ("/eds_cluster_config", json!(null)),
        ],
    );
}

#[test]
fn assignments_are_sorted() {
    let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
    let built =
        build_endpoints(&endpoints(&upstream("web"), &[(at(2), true), (at(1), false), (at(2), true)]));
    let endpoint =
        |n: usize| format!("/endpoints/0/lb_endpoints/{n}/endpoint/address/socket_address/address");
    check(
        &built,
        &[
            ("/cluster_name", json!("shop/web/80")),
            (&endpoint(0), json!("10.0.0.1")),
            (&endpoint(1), json!("10.0.0.2")),
            (&endpoint(2), json!(null)),
            ("/endpoints/0/lb_endpoints/0/health_status", json!(null)),
            ("/endpoints/0/lb_endpoints/1/health_status", json!("DRAINING")),
        ],
    );
    check(&build_endpoints(&endpoints(&upstream("web"), &[])), &[("/endpoints", json!(null))]);
}

#[test]
fn listeners_share_one_chain() {
    let chains = vec![
        dedicated("+.w.test", &["a.w.test", "own.w.test"]),
        dedicated("own.w.test", &[]),
        dedicated("*", &[]),
    ];
    let listener = Listener { dedicated: chains, ..listener(Protocol::Https) };
    let selector = "transport_socket/typed_config/common_tls_context/custom_tls_certificate_selector";
    let own = "transport_socket/typed_config/common_tls_context/tls_certificate_sds_secret_configs/0/name";
    let manager = "/filter_chains/0/filters/1/typed_config";
    check(
        &build_listener(&listener),
        &[
            ("/filter_chains/0/name", json!("shared")),
            ("/filter_chains/0/filter_chain_match", json!(null)),
            ("/filter_chains/0/transport_socket_connect_timeout", json!("2s")),
            (
                "/filter_chains/0/transport_socket/typed_config/disable_stateful_session_resumption",
                json!(true),
            ),
            (
                "/filter_chains/0/transport_socket/typed_config/disable_stateless_session_resumption",
                json!(true),
            ),
            (
                &format!(
                    "/filter_chains/0/{selector}/typed_config/certificate_mapper/typed_config/default_value"
                ),
                json!("default/public"),
            ),
            ("/filter_chains/1/filter_chain_match/server_names", json!(["*.w.test"])),
            (&format!("/filter_chains/1/{own}"), json!("chain/public/+.w.test")),
            ("/filter_chains/2/filter_chain_match/server_names", json!(["a.w.test"])),
            (&format!("/filter_chains/2/{selector}/name"), json!("on_demand")),
            ("/filter_chains/3/filter_chain_match/server_names", json!(["own.w.test"])),
            (&format!("/filter_chains/3/{own}"), json!("chain/public/own.w.test")),
            ("/filter_chains/4", json!(null)),
            (&format!("{manager}/http_filters/0/name"), json!("walk")),
            (&format!("{manager}/http_filters/1/name"), json!("envoy.filters.http.router")),
            (&format!("{manager}/http_filters/2"), json!(null)),
            (
                &format!(
                    "{manager}/early_header_mutation_extensions/1/typed_config/early_header_mutation_config/value"
                ),
                json!("x-vip=public x-sni=@sni x-tls=on"),
            ),
            (&format!("{manager}/upgrade_configs/0/upgrade_type"), json!("websocket")),
            (&format!("{manager}/stream_idle_timeout"), json!("300s")),
        ],
    );
}

/// Maps of protobuf have no order in the crate: an unstable one shows within a
/// few encodings, for each map is seeded anew.
#[test]
fn trap_33_bytes_are_the_same_each_time() {
    let https = Listener { dedicated: vec![dedicated("a.test", &["b.test"])], ..listener(Protocol::Https) };
    let secured = secured();
    let bytes = || {
        let [scope, table] = build_host(&web_host());
        let (cluster, authorities) = build_upstream(&secured);
        [scope, table, cluster, authorities.unwrap(), build_listener(&https)].map(|resource| resource.body)
    };
    let first = bytes();
    for _ in 0..20 {
        assert!(bytes() == first);
    }
}

#[test]
fn versions_change_with_what_is_sent() {
    let [scope, table] = build_host(&web_host());
    let mut edited = web_host();
    edited.routes = edited.routes[1..].into();
    let [same_scope, other_table] = build_host(&edited);
    assert_eq!(scope.version, same_scope.version);
    assert_ne!(table.version, other_table.version);

    let mut joined = web_host();
    let younger = ObjectKey::new(ObjectKind::Ingress, "shop", "younger");
    joined.origins = [&*joined.origins, &[younger]].concat().into();
    let [_, same_table] = build_host(&joined);
    assert_eq!((table.version, &table.body), (same_table.version, &same_table.body));

    let rotated = Upstream {
        tls: Some(UpstreamTls {
            server_name: Some("api.test".into()),
            ca: Some(Secret::new(b"others".as_slice().into())),
        }),
        ..secured()
    };
    let ((before, secret), (after, rotated)) = (build_upstream(&secured()), build_upstream(&rotated));
    assert_eq!((before.version, before.body), (after.version, after.body));
    assert_ne!(secret.unwrap().version, rotated.unwrap().version);
}

#[test]
fn secrets_leave_their_name_to_the_server_and_do_not_print() {
    let pem = certificate(&["*.w.test"]);
    let key = String::from_utf8(pem.key.expose().to_vec()).unwrap();
    let sni: SniCertificate = sni("*.w.test", &Arc::new(pem));
    let resource = build_sni(&sni);
    assert_eq!(EnvoySecret::decode(resource.body.clone()).unwrap().name, "");
    // Field 1, a text of 8 bytes.
    let named = [b"\x0a\x08a.w.test", resource.body.as_ref()].concat();
    let decoded = EnvoySecret::decode(named.as_slice()).unwrap();
    assert_eq!(decoded.name, "a.w.test");
    assert!(decoded.r#type.is_some());
    let printed = print_resource(&resource);
    assert_eq!(printed["name"], "*.w.test");
    assert!(!printed.to_string().contains(key.lines().nth(1).unwrap()));
    assert_eq!(printed.pointer("/tls_certificate/private_key/inline_string"), Some(&json!("[secret]")));
}

#[test]
fn a_standalone_config_has_one_order() {
    let (a, b) = (listener(Protocol::Http), listener(Protocol::Https));
    let route: Route = forwards("all", prefix("/"), &upstream("web"));
    let pem = Arc::new(certificate(&["a.test", "b.test"]));
    let tls = |text| with_routes(with_tls(host(text), &["a.test", "b.test"], None), [route.clone()]);
    let (x, y) = (tls("a.test"), tls("b.test"));
    let (web, api) = (upstream("web"), upstream("api"));
    let (s, t) = (sni("a.test", &pem), sni("b.test", &pem));
    let build = |turned: bool| {
        let mut all = Standalone {
            listeners: vec![&a, &b],
            hosts: vec![&x, &y],
            upstreams: vec![&web, &api],
            certificates: vec![&s, &t],
            ..Standalone::default()
        };
        if turned {
            all.listeners.reverse();
            all.hosts.reverse();
            all.upstreams.reverse();
            all.certificates.reverse();
        }
        build_standalone(&all).to_string()
    };
    assert_eq!(build(false), build(true));
}
