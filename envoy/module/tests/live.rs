//! The module in the pinned stock Envoy, over raw HTTP: no control plane, no mock of Envoy.
//!
//! Envoy is `TIDEGATE_ENVOY`, else what `envoy/install.sh` installs. Each test has its own Envoy on
//! ephemeral loopback ports, killed when the test ends.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test program: its environment, its clock, its panics, nobody outside it"
)]

#[path = "live/bootstrap.rs"]
mod bootstrap;
#[path = "live/envoy.rs"]
mod envoy;
#[path = "live/http.rs"]
mod http;
#[path = "live/upstream.rs"]
mod upstream;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bootstrap::{Bootstrap, answer, scope};
use envoy::Envoy;
use http::{get, send};
use upstream::Upstream;

#[track_caller]
fn check(envoy: &Envoy, listener: &str, rows: &[(&str, u16, &str)]) {
    for (host, status, body) in rows {
        let reply = get(envoy.port(listener), host, "/", "");
        assert_eq!((reply.status, reply.body.as_str()), (*status, *body), "Host: {host}");
    }
}

#[test]
fn a_host_finds_its_nearest_scope() {
    let envoy = Bootstrap::new()
        .listener("vip0")
        .answers("vip0", &["shop.test", "xn--bcher-kva.test", "[::1]", "10.0.0.1"])
        .answers("vip0", &["+.one.test", "*.deep.test", "+.both.test", "*.both.test", "*"])
        .start();
    let ten = "1.2.3.4.5.6.7.8.9.10.deep.test";
    check(
        &envoy,
        "vip0",
        &[
            ("shop.test", 200, "vip0 shop.test"),
            ("Shop.TEST", 200, "vip0 shop.test"),
            ("shop.test:8443", 200, "vip0 shop.test"),
            ("shop.test.", 200, "vip0 shop.test"),
            ("SHOP.test.:80", 200, "vip0 shop.test"),
            ("XN--Bcher-kva.test", 200, "vip0 xn--bcher-kva.test"),
            ("[::1]", 200, "vip0 [::1]"),
            ("[::1]:80", 200, "vip0 [::1]"),
            ("10.0.0.1:80", 200, "vip0 10.0.0.1"),
            ("a.one.test", 200, "vip0 +.one.test"),
            ("A.One.Test:80", 200, "vip0 +.one.test"),
            ("a.b.one.test", 200, "vip0 *"),
            ("one.test", 200, "vip0 *"),
            ("a.deep.test", 200, "vip0 *.deep.test"),
            ("a.b.c.deep.test", 200, "vip0 *.deep.test"),
            (ten, 200, "vip0 *.deep.test"),
            ("a.both.test", 200, "vip0 +.both.test"),
            ("a.b.both.test", 200, "vip0 *.both.test"),
            ("unknown.org", 200, "vip0 *"),
            ("10.0.0.2", 200, "vip0 *"),
            ("[::2]:80", 200, "vip0 *"),
            ("localhost", 200, "vip0 *"),
        ],
    );
}

#[test]
fn odd_hosts_are_answered_and_reach_nothing_of_their_own() {
    let envoy =
        Bootstrap::new().listener("vip0").answers("vip0", &["+.both.test", "*.both.test", "*"]).start();
    // Host names a client made up: the wildcard's own name is found in the walk's order.
    let long = format!("{}.both.test", "a".repeat(300));
    check(
        &envoy,
        "vip0",
        &[
            ("*.both.test", 200, "vip0 +.both.test"),
            ("+.both.test", 200, "vip0 +.both.test"),
            ("*", 200, "vip0 *"),
            ("", 200, "vip0 *"),
            (&long, 200, "vip0 *"),
        ],
    );
}

#[test]
fn an_unknown_host_is_not_found_and_a_vip_sees_only_its_own() {
    let envoy = Bootstrap::new()
        .listener("vip0")
        .listener("vip1")
        .answers("vip0", &["only0.test", "both.test", "*"])
        .answers("vip1", &["both.test"])
        .start();
    check(&envoy, "vip0", &[("both.test", 200, "vip0 both.test"), ("only0.test", 200, "vip0 only0.test")]);
    check(
        &envoy,
        "vip1",
        &[
            ("both.test", 200, "vip1 both.test"),
            ("only0.test", 404, ""),
            ("a.b.c.d.e.f.g.h.i.j.test", 404, ""),
            ("", 404, ""),
            ("*", 404, ""),
        ],
    );
}

#[test]
fn what_the_client_says_about_scopes_is_overwritten() {
    let upstream = Upstream::start();
    let seen = "{name: r, match: {prefix: /}, route: {cluster: upstream}}";
    let envoy = Bootstrap::new()
        .upstream(&upstream)
        .listener("vip0")
        .listener("vip1")
        .answers("vip0", &["shop.test", "secret.test"])
        .answers("vip1", &["shop.test"])
        .scope(scope("vip0", "seen.test", &[seen]).keep_keys())
        .scope(scope("vip0", "*.seen.test", &[seen]).keep_keys())
        .scope(scope("vip0", "clean.test", &[seen]))
        .start();
    let port = envoy.port("vip0");
    let spoof = "x-scope: secret.test\r\nX-Scope: other\r\nx-vip: vip1\r\nX-VIP: vip2\r\nx-sni: a\r\n";

    assert_eq!(get(port, "shop.test", "/", spoof).body, "vip0 shop.test");
    assert_eq!(get(envoy.port("vip1"), "secret.test", "/", spoof).status, 404);

    // Exactly one value of ours goes on, also after the walker has rewritten it.
    for (host, key) in [("seen.test", "seen.test"), ("a.b.seen.test", "*.seen.test")] {
        let head = get(port, host, "/", spoof).body.to_ascii_lowercase();
        let keys: Vec<_> =
            head.lines().filter(|line| line.starts_with("x-s") || line.starts_with("x-v")).collect();
        let want = [format!("x-scope: {key}"), "x-vip: vip0".into()];
        assert!(keys.len() == 2 && want.iter().all(|line| keys.contains(&line.as_str())), "{head}");
    }
    let head = get(port, "clean.test", "/", spoof).body.to_ascii_lowercase();
    assert!(!head.contains("x-scope") && !head.contains("x-vip"), "{head}");
}

#[test]
fn a_route_named_to_default_asks_the_default_scope_once() {
    let own = answer("a", "/a", 200, "own");
    let catch_all = answer("->default", "/", 404, "own 404");
    let default = answer("d", "/d", 200, "default");
    let envoy = Bootstrap::new()
        .listener("vip0")
        .listener("vip1")
        .scope(scope("vip0", "shop.test", &[&own, &catch_all]))
        .scope(scope("vip0", "+.wild.test", &[&own, &catch_all]))
        .scope(scope("vip0", "*", &[&default]))
        .scope(scope("vip1", "shop.test", &[&own, &catch_all]))
        .scope(scope("vip1", "+.wild.test", &[&own, &catch_all]))
        .start();
    for host in ["shop.test", "x.wild.test"] {
        for (vip, path, status, body) in [
            ("vip0", "/a", 200, "own"),
            ("vip0", "/d", 200, "default"),
            // The default backend has no route for it either.
            ("vip0", "/x", 404, "own 404"),
            // No default backend.
            ("vip1", "/a", 200, "own"),
            ("vip1", "/d", 404, "own 404"),
        ] {
            let reply = get(envoy.port(vip), host, path, "");
            assert_eq!((reply.status, reply.body.as_str()), (status, body), "{vip} {host}{path}");
        }
    }
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_websocket_opens_on_a_host_the_walker_found() {
    let upstream = Upstream::start();
    let open = "{name: r, match: {prefix: /}, route: {cluster: upstream, timeout: 0.3s}}";
    let refused = answer("no", "/", 403, "no upgrade").replace(
        "prefix: /",
        "prefix: /, headers: [{name: upgrade, string_match: {exact: websocket, ignore_case: true}}]",
    );
    let envoy = Bootstrap::new()
        .upstream(&upstream)
        .listener("vip0")
        .connection("upgrade_configs: [{upgrade_type: websocket}]")
        .walk("upgrade=websocket")
        .scope(scope("vip0", "exact.test", &[open]))
        .scope(scope("vip0", "*.wild.test", &[open]))
        .scope(scope("vip0", "*.closed.test", &[&refused, open]))
        .scope(scope("vip0", "*", &[open]))
        .start();
    for host in ["exact.test", "a.b.wild.test", "unknown.org"] {
        let (reply, mut stream) = send(envoy.port("vip0"), host, "/", UPGRADE);
        assert_eq!(reply.status, 101, "{host}");
        // Longer than the route's timeout: an open upgrade is not under it.
        std::thread::sleep(Duration::from_millis(600));
        stream.get_mut().write_all(b"ping").unwrap();
        let mut pong = [0; 4];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"ping", "{host}");
    }
    let (reply, _) = send(envoy.port("vip0"), "a.closed.test", "/", UPGRADE);
    assert_eq!(reply.status, 403, "a route can still refuse");
}

#[test]
fn timeouts_of_a_route_hold_on_a_host_the_walker_found() {
    let upstream = Upstream::start();
    let route =
        |limit: &str| format!("{{name: r, match: {{prefix: /}}, route: {{cluster: upstream, {limit}}}}}");
    let envoy = Bootstrap::new()
        .upstream(&upstream)
        .listener("vip0")
        .scope(scope("vip0", "exact.test", &[&route("timeout: 0.3s")]))
        .scope(scope("vip0", "+.timeout.test", &[&route("timeout: 0.3s")]))
        .scope(scope("vip0", "*.idle.test", &[&route("timeout: 0s, idle_timeout: 0.3s")]))
        .scope(scope(
            "vip0",
            "*.longest.test",
            &[&route("timeout: 0s, max_stream_duration: {max_stream_duration: 0.3s}")],
        ))
        .start();
    for (host, status) in
        [("exact.test", 504), ("a.timeout.test", 504), ("a.b.idle.test", 504), ("a.b.longest.test", 504)]
    {
        let start = Instant::now();
        let reply = get(envoy.port("vip0"), host, "/silent", "");
        assert_eq!(reply.status, status, "{host}");
        // Without the route's limit it would be Envoy's 15 s, or 5 min idle.
        assert!(start.elapsed() < Duration::from_secs(10), "{host} took {:?}", start.elapsed());
    }
}

/// Envoy chooses by the route whether and how to upgrade before any filter runs, so before the
/// walk, and lets a request without a route pass. The walker repeats the listener's part; a route's
/// `upgrade_configs` are not seen, which is why a refusal must be a route that matches the header.
#[test]
fn upgrades_on_a_walked_host_are_allowed_by_the_listener_alone() {
    let upstream = Upstream::start();
    let route = |enabled: bool| {
        format!(
            "{{name: r, match: {{prefix: /}}, route: {{cluster: upstream, \
             upgrade_configs: [{{upgrade_type: websocket, enabled: {enabled}}}]}}}}"
        )
    };
    for (listener, walk, walked) in [
        ("upgrade_configs: [{upgrade_type: websocket}]", "upgrade=websocket", 101),
        ("upgrade_configs: [{upgrade_type: websocket, enabled: false}]", "", 403),
    ] {
        let envoy = Bootstrap::new()
            .upstream(&upstream)
            .listener("vip0")
            .connection(listener)
            .walk(walk)
            .scope(scope("vip0", "on.test", &[&route(true)]))
            .scope(scope("vip0", "off.test", &[&route(false)]))
            .scope(scope("vip0", "*.on.test", &[&route(true)]))
            .scope(scope("vip0", "*.off.test", &[&route(false)]))
            .start();
        for (host, status) in
            [("on.test", 101), ("off.test", 403), ("a.on.test", walked), ("a.off.test", walked)]
        {
            let (reply, mut stream) = send(envoy.port("vip0"), host, "/", UPGRADE);
            assert_eq!(reply.status, status, "{listener} {host}");
            if status == 403 {
                // Refused bytes must never be read as a next request: Envoy closes.
                assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "{host}");
            }
        }
        let other = UPGRADE.replace("websocket", "other");
        for host in ["on.test", "a.on.test"] {
            assert_eq!(send(envoy.port("vip0"), host, "/", &other).0.status, 403, "{host}");
        }
        // Not an upgrade without the Connection header that says so.
        assert_eq!(get(envoy.port("vip0"), "a.on.test", "/", "Upgrade: other\r\n").status, 200);
    }
}

/// A trace is decided on before the walk as well, by the listener, and again when the route is
/// found. The second time may only add (`pack_trace_reason`, on by default), so the listener's own
/// sampling must be the lowest of its routes.
#[test]
fn trace_sampling_of_a_route_holds_on_a_host_the_walker_found() {
    let upstream = Upstream::start();
    let route = |percent: u8| {
        format!(
            "{{name: r, match: {{prefix: /}}, route: {{cluster: upstream}}, \
             tracing: {{random_sampling: {{numerator: {percent}}}}}}}"
        )
    };
    let envoy = Bootstrap::new()
        .upstream(&upstream)
        .listener("vip0")
        .connection(
            "tracing: {random_sampling: {value: 0}, provider: {name: zipkin, typed_config: {\"@type\": \
             type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, collector_cluster: upstream, \
             collector_endpoint: /spans, collector_endpoint_version: HTTP_JSON}}}",
        )
        .scope(scope("vip0", "all.test", &[&route(100)]))
        .scope(scope("vip0", "none.test", &[&route(0)]))
        .scope(scope("vip0", "*.all.test", &[&route(100)]))
        .scope(scope("vip0", "*.none.test", &[&route(0)]))
        .start();
    for (host, sampled) in [("all.test", "1"), ("none.test", "0"), ("a.all.test", "1"), ("a.none.test", "0")]
    {
        let head = get(envoy.port("vip0"), host, "/", "").body.to_ascii_lowercase();
        assert!(head.contains(&format!("x-b3-sampled: {sampled}")), "{host}: {head}");
    }
}

#[test]
fn filters_after_the_walker_see_the_route_it_found() {
    let denied = "{name: r, match: {prefix: /}, direct_response: {status: 200}, typed_per_filter_config: \
                  {rbac: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, \
                  rbac: {rules: {action: ALLOW, policies: {}}}}}}";
    let envoy = Bootstrap::new()
        .listener("vip0")
        .scope(scope("vip0", "*.denied.test", &[denied]))
        .answers("vip0", &["*.open.test"])
        .start();
    assert_eq!(get(envoy.port("vip0"), "a.denied.test", "/", "").status, 403);
    assert_eq!(get(envoy.port("vip0"), "a.open.test", "/", "").status, 200);
}

/// A trap for whoever builds filter chains: whether a filter is on for a route is also chosen before
/// the walk. `disabled: true` on the listener with a per-route config to switch it on, and
/// `FilterConfig.disabled` on a route, work on exact hosts only. The next test has the way out.
#[test]
fn filters_are_switched_on_and_off_by_exact_hosts_alone() {
    let deny = "\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, \
                rbac: {rules: {action: ALLOW, policies: {}}}";
    let off = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true";
    let route = |name: &str, config: &str| {
        format!(
            "{{name: r, match: {{prefix: /}}, direct_response: {{status: 200}}, \
             typed_per_filter_config: {{{name}: {{{config}}}}}}}"
        )
    };
    let envoy = Bootstrap::new()
        .listener("vip0")
        .scope(scope("vip0", "on.test", &[&route("rbac_off", deny)]))
        .scope(scope("vip0", "*.on.test", &[&route("rbac_off", deny)]))
        .scope(scope("vip0", "off.test", &[&route("rbac_deny", off)]))
        .scope(scope("vip0", "*.off.test", &[&route("rbac_deny", off)]))
        .start();
    let got = [("on.test", "/"), ("a.on.test", "/"), ("off.test", "/deny"), ("a.off.test", "/deny")]
        .map(|(host, path)| get(envoy.port("vip0"), host, path, "").status);
    assert_eq!(got, [403, 200, 200, 403]);
}

/// A slot (`composite` in a matcher that skips) runs the filter that the route names. It looks at
/// the route when the request passes, so it works on every host, and the listener never changes.
#[test]
fn a_filter_slot_runs_what_the_route_names_on_every_host() {
    let any = |kind: &str, fields: &str| {
        format!("{{\"@type\": type.googleapis.com/envoy.extensions.{kind}, {fields}}}")
    };
    let auth = any(
        "filters.http.basic_auth.v3.BasicAuth",
        "users: {inline_string: \"u:{SHA}2kuSN7rMzfGcB2DKt67EqDWQELA=\"}",
    );
    let run = format!("typed_config: {{name: auth, typed_config: {auth}}}");
    let run = any("filters.http.composite.v3.ExecuteFilterAction", &run);
    let matcher = format!("xds_matcher: {{on_no_match: {{action: {{name: run, typed_config: {run}}}}}}}");
    let slot = any("common.matching.v3.ExtensionWithMatcherPerRoute", &matcher);
    let guarded = format!(
        "{{name: r, match: {{prefix: /}}, direct_response: {{status: 200}}, typed_per_filter_config: {{slot: {slot}}}}}"
    );
    let envoy = Bootstrap::new()
        .listener("vip0")
        .scope(scope("vip0", "auth.test", &[&guarded]))
        .scope(scope("vip0", "*.auth.test", &[&guarded]))
        .answers("vip0", &["open.test", "*.open.test"])
        .start();
    let got = ["auth.test", "a.auth.test", "open.test", "a.open.test"]
        .map(|host| get(envoy.port("vip0"), host, "/", "").status);
    assert_eq!(got, [401, 401, 200, 200]);
}

#[test]
fn the_server_name_of_the_handshake_becomes_a_header() {
    let upstream = Upstream::start();
    let seen = "{name: r, match: {prefix: /}, route: {cluster: upstream}}";
    let envoy = Bootstrap::new()
        .upstream(&upstream)
        .tls_listener("vip0")
        .scope(scope("vip0", "shop.test", &[seen]).keep_keys())
        .start();
    let spoof = "x-sni: spoofed.test\r\n";
    let named = http::get_tls(envoy.port("vip0"), Some("Shop.TEST"), "shop.test", spoof);
    assert!(named.contains("x-sni: shop.test") && !named.contains("spoofed"), "{named}");
    let unnamed = http::get_tls(envoy.port("vip0"), None, "shop.test", spoof);
    assert!(unnamed.contains("x-scope: shop.test") && !unnamed.contains("x-sni"), "{unnamed}");
}

#[test]
fn mistakes_in_the_config_are_refused_with_a_reason() {
    let good = Bootstrap::new().listener("vip0").yaml();
    for (from, to, reason) in [
        ("x-vip=vip0", "x-vip", "`x-vip` is not name=value"),
        ("early_header_mutation_name: scope", "early_header_mutation_name: other", "named `scope`"),
        ("filter_name: walk", "filter_name: other", "named `walk`"),
        ("value: \"\"", "value: websocket", "`websocket` is not upgrade=name"),
    ] {
        let log = envoy::refused(&good.replace(from, to));
        assert!(log.contains(reason), "{log}");
    }
}

#[test]
fn the_version_can_be_read_from_the_file() {
    let marker = format!("TIDEGATE_MODULE={}+abi.{}\0", env!("CARGO_PKG_VERSION"), tidegate_module::ABI);
    let file = std::fs::read(envoy::module()).unwrap();
    assert!(file.windows(marker.len()).any(|window| window == marker.as_bytes()));
}
