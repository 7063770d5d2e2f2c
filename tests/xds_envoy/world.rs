//! Values of the IR to build from: boring, unless a test says otherwise.

use rcgen::{CertificateParams, KeyPair};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tidegate::{
    base::{HostPattern, Hostname, ObjectKey, ObjectKind, Secret, Text},
    ir::{
        Action, Certificate, DedicatedChain, Edge, Endpoint, Endpoints, EscapedSlashes, GatewayKey,
        GatewayName, GatewayScope, Host, HostKey, HostTls, Limits, Listener, ListenerKey, PathMatch,
        PathRules, Protocol, Redirect, Route, SniCertificate, Timeouts, Underscores, Upstream, UpstreamKey,
        UpstreamPolicy, UpstreamProtocol,
    },
};

pub fn gateway() -> GatewayKey {
    GatewayKey::new(GatewayName {
        class: "public".into(),
        setting: None,
        scope: GatewayScope::Shared { shard: 0 },
    })
}

pub fn edge() -> Edge {
    Edge {
        trusted_hops: 0,
        proxy_protocol: false,
        paths: PathRules { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep },
        underscores: Underscores::Reject,
        timeouts: Timeouts {
            route: None,
            stream_idle: Some(Duration::from_secs(300)),
            request_headers: Some(Duration::from_secs(10)),
            connection_idle: Some(Duration::from_secs(3600)),
            drain: Duration::from_secs(30),
        },
        limits: Limits {
            concurrent_streams: 100,
            headers_kib: 60,
            headers: 100,
            connections: 100_000,
            buffer_bytes: 32_768,
        },
        access_log: true,
    }
}

/// On a port that was free a moment ago.
pub fn listener(protocol: Protocol) -> Listener {
    Listener {
        key: ListenerKey { address: Ipv4Addr::LOCALHOST.into(), port: free_port() },
        gateway: gateway(),
        protocol,
        edge: Arc::new(edge()),
        dedicated: Vec::new(),
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub fn address(listener: &Listener) -> SocketAddr {
    SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), listener.key.port)
}

pub fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

/// `h.test`, `+.h.test` for one label, `*.h.test` for any number, `*` for the default.
pub fn pattern(text: &str) -> HostPattern {
    match text.split_at_checked(2) {
        _ if text == "*" => HostPattern::Default,
        Some(("+.", rest)) => HostPattern::OneLabel(name(rest)),
        Some(("*.", rest)) => HostPattern::AnyLabels(name(rest)),
        _ => HostPattern::Exact(name(text)),
    }
}

/// Answers every path with its own name.
pub fn host(text: &str) -> Host {
    Host {
        key: HostKey { gateway: gateway(), host: pattern(text) },
        tls: None,
        routes: [says("all", prefix("/"), text)].into(),
        origins: [ObjectKey::new(ObjectKind::Ingress, "shop", "web")].into(),
    }
}

pub fn with_routes(host: Host, routes: impl Into<Box<[Route]>>) -> Host {
    Host { routes: routes.into(), ..host }
}

pub fn with_tls(host: Host, covered: &[&str], redirect: Option<(u16, u16)>) -> Host {
    let covered = covered.iter().map(|name| pattern(name)).collect();
    let redirect = redirect.map(|(port, status)| Redirect { port, status });
    Host { tls: Some(HostTls { covered, redirect }), ..host }
}

pub fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

pub fn says(name: &str, path: PathMatch, body: &str) -> Route {
    Route { name: name.into(), path, action: Action::Status { status: 200, body: body.into() } }
}

pub fn forwards(name: &str, path: PathMatch, to: &Upstream) -> Route {
    let action = Action::Forward { upstream: to.key.clone(), timeout: None, sticky_source: to.sticky_source };
    Route { name: name.into(), path, action }
}

pub fn upstream(service: &str) -> Upstream {
    Upstream {
        key: UpstreamKey {
            namespace: "shop".into(),
            service: service.into(),
            port: "80".into(),
            policy: Arc::new(UpstreamPolicy::default()),
        },
        protocol: UpstreamProtocol::Http1,
        tls: None,
        sticky_source: false,
        external: None,
        connect_timeout: Duration::from_secs(5),
    }
}

pub fn endpoints(of: &Upstream, endpoints: &[(SocketAddr, bool)]) -> Endpoints {
    let endpoint = |&(address, draining): &(SocketAddr, bool)| Endpoint { address, draining };
    Endpoints { key: of.key.clone(), endpoints: endpoints.iter().map(endpoint).collect() }
}

/// Signed by itself; `names` as a certificate has them.
pub fn certificate(names: &[&str]) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let params =
        CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Certificate {
        origin: ObjectKey::new(ObjectKind::Secret, "shop", names[0]),
        chain: pem.into_bytes().into(),
        key: Secret::new(key.serialize_pem().into_bytes().into()),
        names: names.iter().map(|name| HostPattern::parse_ingress(name).unwrap()).collect(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

pub fn sni(name: &str, certificate: &Arc<Certificate>) -> SniCertificate {
    SniCertificate { name: name.into(), certificate: certificate.clone() }
}

pub fn dedicated(host: &str, shadowed: &[&str]) -> DedicatedChain {
    DedicatedChain {
        host: pattern(host),
        shadowed: shadowed.iter().map(|text| name(text)).collect(),
        certificate: Text::from(format!("chain/public/{host}")),
    }
}
