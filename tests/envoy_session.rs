//! The delta ADS server against stock Envoy, over mTLS.

#[path = "support/stock_envoy.rs"]
mod stock_envoy;

use arc_swap::ArcSwap;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, cluster},
            core::v3::{
                AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, SocketAddress,
                TypedExtensionConfig, address, config_source, data_source, socket_address,
            },
            endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
            listener::v3::{Filter, FilterChain, Listener, ListenerFilter, filter, listener_filter},
            route::v3::{
                DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch,
                ScopedRouteConfiguration, VirtualHost, route, route_action, route_match,
                scoped_route_configuration,
            },
        },
        extensions::{
            filters::{
                http::router::v3::Router,
                listener::tls_inspector::v3::TlsInspector,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, ScopedRds, ScopedRoutes, http_connection_manager,
                    http_filter,
                    scoped_routes::{
                        ConfigSpecifier, ScopeKeyBuilder,
                        scope_key_builder::{
                            FragmentBuilder,
                            fragment_builder::{self, HeaderValueExtractor, header_value_extractor},
                        },
                    },
                },
            },
            transport_sockets::tls::{
                cert_mappers::sni::v3::Sni,
                cert_selectors::on_demand_secret::v3::Config as OnDemand,
                v3::{
                    CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate, downstream_tls_context,
                    secret,
                },
            },
        },
        r#type::matcher::v3::RegexMatcher,
    },
    google::protobuf::Any,
};
use prost::Message;
use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use stock_envoy::{Envoy, eventually, free_port, get, get_over};
use tidegate::{
    base::Version,
    server::{Authority, Door, EngineEvent, FleetEvent, Handle, Identity, Server},
    xds::{Resource, ResourceKey, ResourceKind, Update},
};
use tokio::{net::TcpListener, net::TcpStream, sync::mpsc, task::JoinHandle};
use tokio_rustls::TlsConnector;

const DAY: Duration = Duration::from_secs(24 * 3600);

// What is served: bodies by hand, as any builder would make them.

fn any(kind: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{kind}"), value: message.encode_to_vec() }
}

fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        ..Default::default()
    }
}

fn resource(
    kind: ResourceKind,
    name: &str,
    needs: &[(ResourceKind, &str)],
    message: &impl Message,
) -> Resource {
    let body = message.encode_to_vec();
    let key = |(kind, name): &(ResourceKind, &str)| ResourceKey { kind: *kind, name: (*name).into() };
    Resource {
        key: key(&(kind, name)),
        version: Version::of(&body),
        body: body.into(),
        needs: needs.iter().map(key).collect(),
        origins: [].into(),
    }
}

fn connection_manager() -> Any {
    let extractor = HeaderValueExtractor {
        name: ":authority".to_owned(),
        extract_type: Some(header_value_extractor::ExtractType::Index(0)),
        ..Default::default()
    };
    let fragment = FragmentBuilder { r#type: Some(fragment_builder::Type::HeaderValueExtractor(extractor)) };
    let scopes = ScopedRoutes {
        name: "scopes".to_owned(),
        scope_key_builder: Some(ScopeKeyBuilder { fragments: vec![fragment] }),
        rds_config_source: Some(ads()),
        config_specifier: Some(ConfigSpecifier::ScopedRds(ScopedRds {
            scoped_rds_config_source: Some(ads()),
            ..Default::default()
        })),
    };
    let router = any("envoy.extensions.filters.http.router.v3.Router", &Router::default());
    let manager = HttpConnectionManager {
        stat_prefix: "test".to_owned(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::ScopedRoutes(scopes)),
        http_filters: vec![HttpFilter {
            name: "router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(router)),
            ..Default::default()
        }],
        ..Default::default()
    };
    any("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", &manager)
}

fn listener(port: u16, tls: bool) -> Resource {
    let name = format!("l/{port}");
    let address = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    let chain = FilterChain {
        filters: vec![Filter {
            name: "http".to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(connection_manager())),
        }],
        transport_socket: tls.then(on_demand),
        ..Default::default()
    };
    let inspector =
        any("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", &TlsInspector::default());
    let inspector = ListenerFilter {
        name: "tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(inspector)),
        ..Default::default()
    };
    let listener = Listener {
        name: name.clone(),
        address: Some(envoy_types::pb::envoy::config::core::v3::Address {
            address: Some(address::Address::SocketAddress(address)),
        }),
        filter_chains: vec![chain],
        listener_filters: if tls { vec![inspector] } else { vec![] },
        ..Default::default()
    };
    resource(ResourceKind::Listener, &name, &[], &listener)
}

/// Certificates by SNI: exact, wildcard, unknown, later, rotated.
fn on_demand() -> envoy_types::pb::envoy::config::core::v3::TransportSocket {
    let mapper = Sni { default_value: "default/test".to_owned() };
    let mapper = any("envoy.extensions.transport_sockets.tls.cert_mappers.sni.v3.SNI", &mapper);
    let selector = OnDemand {
        config_source: Some(ads()),
        certificate_mapper: Some(TypedExtensionConfig { name: "sni".to_owned(), typed_config: Some(mapper) }),
        ..Default::default()
    };
    let selector =
        any("envoy.extensions.transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config", &selector);
    let context = DownstreamTlsContext {
        disable_stateful_session_resumption: true,
        session_ticket_keys_type: Some(
            downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(true),
        ),
        common_tls_context: Some(CommonTlsContext {
            custom_tls_certificate_selector: Some(TypedExtensionConfig {
                name: "on_demand".to_owned(),
                typed_config: Some(selector),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let context = any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", &context);
    envoy_types::pb::envoy::config::core::v3::TransportSocket {
        name: "tls".to_owned(),
        config_type: Some(
            envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(context),
        ),
    }
}

fn scope(host: &str) -> Resource {
    let fragment = scoped_route_configuration::key::Fragment {
        r#type: Some(scoped_route_configuration::key::fragment::Type::StringKey(host.to_owned())),
    };
    let (name, table) = (format!("s/{host}"), format!("r/{host}"));
    let scope = ScopedRouteConfiguration {
        name: name.clone(),
        route_configuration_name: table.clone(),
        key: Some(scoped_route_configuration::Key { fragments: vec![fragment] }),
        ..Default::default()
    };
    resource(ResourceKind::ScopedRoute, &name, &[(ResourceKind::Route, &table)], &scope)
}

/// Answers `text`; `regex` is matched first.
fn table(host: &str, text: &str, regex: Option<&str>) -> Resource {
    let matcher = |specifier| RouteMatch { path_specifier: Some(specifier), ..Default::default() };
    let answer = |text: &str, matcher| Route {
        name: "->".to_owned(),
        r#match: Some(matcher),
        action: Some(route::Action::DirectResponse(DirectResponseAction {
            status: 200,
            body: Some(DataSource {
                specifier: Some(data_source::Specifier::InlineString(text.to_owned())),
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    };
    let regex = regex.map(|regex| {
        let regex = RegexMatcher { regex: regex.to_owned(), ..Default::default() };
        answer("regex", matcher(route_match::PathSpecifier::SafeRegex(regex)))
    });
    let all = answer(text, matcher(route_match::PathSpecifier::Prefix("/".to_owned())));
    let name = format!("r/{host}");
    let table = RouteConfiguration {
        name: name.clone(),
        virtual_hosts: vec![VirtualHost {
            name: "host".to_owned(),
            domains: vec!["*".to_owned()],
            routes: regex.into_iter().chain([all]).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    resource(ResourceKind::Route, &name, &[], &table)
}

/// Sends everything to one cluster.
fn proxy(host: &str, to: &str) -> Resource {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(to.to_owned())),
        ..Default::default()
    };
    let route = Route {
        name: "->".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    let name = format!("r/{host}");
    let host = VirtualHost {
        name: "host".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    };
    let table = RouteConfiguration { name: name.clone(), virtual_hosts: vec![host], ..Default::default() };
    resource(ResourceKind::Route, &name, &[(ResourceKind::Cluster, to)], &table)
}

fn upstream(name: &str, connect_timeout_s: i64) -> Resource {
    let cluster = Cluster {
        name: name.to_owned(),
        connect_timeout: Some(envoy_types::pb::google::protobuf::Duration {
            seconds: connect_timeout_s,
            nanos: 0,
        }),
        eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds as i32)),
        ..Default::default()
    };
    resource(ResourceKind::Cluster, name, &[], &cluster)
}

fn endpoints(name: &str, ports: &[u16]) -> Resource {
    let endpoint = |port: &u16| {
        let socket = SocketAddress {
            address: "127.0.0.1".to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue((*port).into())),
            ..Default::default()
        };
        let address = envoy_types::pb::envoy::config::core::v3::Address {
            address: Some(address::Address::SocketAddress(socket)),
        };
        LbEndpoint {
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
                address: Some(address),
                ..Default::default()
            })),
            ..Default::default()
        }
    };
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: ports.iter().map(endpoint).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    resource(ResourceKind::Endpoints, name, &[], &assignment)
}

/// Answers every request with `text`.
async fn backend(text: &'static str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind(anywhere()).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let serve = async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            connections.spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a backend of the test")]
    tokio::spawn(serve);
    port
}

/// A certificate for `sni`, signed by the test's own authority.
fn certificate(sni: &str, signer: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>) -> Resource {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec![sni.to_owned()]).expect("a name");
    let chain = params.signed_by(&key, signer).expect("signed").pem();
    let inline = |text: String| DataSource {
        specifier: Some(data_source::Specifier::InlineString(text)),
        ..Default::default()
    };
    let secret = Secret {
        name: String::new(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain)),
            private_key: Some(inline(key.serialize_pem())),
            ..Default::default()
        })),
    };
    resource(ResourceKind::Secret, sni, &[], &secret)
}

fn set(set: impl IntoIterator<Item = Resource>) -> Update {
    Update { set: set.into_iter().collect(), removed: Vec::new() }
}

// The control plane under test.

struct ControlPlane {
    handle: Handle,
    events: mpsc::Receiver<FleetEvent>,
    task: JoinHandle<()>,
}

impl ControlPlane {
    async fn start(authority: &Authority, address: SocketAddr) -> (Self, SocketAddr) {
        let (server, handle, events) = Server::new("edge".into());
        // The one before may still be closing.
        let listener =
            eventually("the port is free", || async { TcpListener::bind(address).await.ok() }).await;
        let address = listener.local_addr().expect("an address");
        let issued =
            authority.issue_server(&["localhost"], &[address.ip()], DAY, now()).expect("a certificate");
        let config = authority.server_config(&issued).expect("a configuration");
        let door = Door::Mutual(Arc::new(ArcSwap::new(config)));
        #[expect(clippy::disallowed_methods, reason = "the test is the app here")]
        let task = tokio::spawn(server.serve(listener, door));
        (Self { handle, events, task }, address)
    }

    async fn synced(&self) {
        eventually("an engine is synced", || async {
            let engines = self.handle.engines();
            engines.iter().any(|engine| engine.synced && engine.sent > 0).then_some(())
        })
        .await;
    }

    async fn refusal(&mut self) -> tidegate::server::session::Refused {
        loop {
            let event = tokio::time::timeout(stock_envoy::DEADLINE, self.events.recv()).await;
            match event.expect("an engine refuses").expect("the server lives").what {
                EngineEvent::Refused(refused) => return refused,
                EngineEvent::Connected | EngineEvent::Synced | EngineEvent::Disconnected => {}
            }
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates must be valid for the Envoy beside us")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn engine() -> Identity {
    Identity::new("edge", "e1").expect("a name")
}

fn start_envoy(dir: &Path, ads: SocketAddr, authority: &Authority) -> Envoy {
    let issued = authority.issue_engine(&engine(), DAY, now()).expect("a certificate");
    Envoy::start(dir, ads, authority.certificate_pem(), &engine(), &issued)
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn serves(port: u16, host: &str, text: &str) {
    eventually(&format!("{host} answers {text}"), || async {
        (get(port, host, "/").await? == (200, text.to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boots_follows_changes_and_survives_a_refusal() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (mut control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let port = free_port();
    let hosts = ["a.test", "b.test", "c.test"];
    let tables = hosts.iter().flat_map(|host| [scope(host), table(host, "one", None)]);
    control.handle.publish(set(tables.chain([listener(port, false)])));
    for host in hosts {
        serves(port, host, "one").await;
    }
    control.synced().await;

    // A change, alone.
    control.handle.publish(set([table("a.test", "two", None)]));
    serves(port, "a.test", "two").await;

    // Several at once, one of them refused: the others are served, it keeps its last good.
    let bad = table("b.test", "three", Some("("));
    let (key, version) = (bad.key.clone(), bad.version);
    control.handle.publish(set([table("a.test", "three", None), bad, table("c.test", "three", None)]));
    let refused = control.refusal().await;
    assert_eq!((&refused.key, refused.version, refused.own), (&key, version, false));
    assert!(refused.message.contains("missing )"), "Envoy's own words: {}", refused.message);
    serves(port, "a.test", "three").await;
    serves(port, "c.test", "three").await;
    serves(port, "b.test", "one").await;
    assert_eq!(control.handle.held(&key).by, 0);

    // Mended.
    control.handle.publish(set([table("b.test", "four", None)]));
    serves(port, "b.test", "four").await;
    eventually("all engines hold it", || async {
        let held = control.handle.held(&key);
        (held.by == 1 && held.of == 1).then_some(())
    })
    .await;
    let refusals: u64 = control.handle.engines().iter().map(|engine| engine.refusals).sum();
    assert_eq!(refusals, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_a_bad_route_boots_and_a_restart_sends_nothing_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (mut control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let port = free_port();
    let hosts: Vec<String> = (0..150).map(|n| format!("h{n}.test")).collect();
    let world = |bad: bool| {
        let tables = hosts.iter().enumerate().flat_map(move |(n, host)| {
            let regex = (bad && n == 70).then_some("(");
            [scope(host), table(host, host, regex)]
        });
        set(tables.chain([listener(port, false)]))
    };
    control.handle.publish(world(true));
    let refused = control.refusal().await;
    assert_eq!(&*refused.key.name, "r/h70.test");
    for host in hosts.iter().filter(|host| *host != "h70.test") {
        serves(port, host, host).await;
    }
    // It never had a good version: 503 of ours.
    eventually("h70.test answers 503", || async {
        (get(port, "h70.test", "/").await?.0 == 503).then_some(())
    })
    .await;
    control.handle.publish(set([table("h70.test", "h70.test", None)]));
    serves(port, "h70.test", "h70.test").await;
    control.synced().await;

    // Another process with the same world, not yet published: nothing may vanish.
    drop(control);
    let (control, _) = ControlPlane::start(&authority, address).await;
    eventually("the engine is back", || async { (!control.handle.engines().is_empty()).then_some(()) }).await;
    serves(port, "h0.test", "h0.test").await;
    control.handle.publish(world(false));
    eventually("it is synced", || async {
        control.handle.engines().iter().any(|engine| engine.synced).then_some(())
    })
    .await;
    let key = world(false).set[1].key.clone();
    eventually("it asked for its routes", || async {
        let held = control.handle.held(&key);
        (held.by == 1).then_some(())
    })
    .await;
    assert_eq!(control.handle.engines()[0].sent, 0, "resources sent again: {:?}", control.handle.engines());
    control.handle.publish(set([table("h1.test", "again", None)]));
    serves(port, "h1.test", "again").await;
    assert_eq!(control.handle.engines()[0].sent, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_between_upstreams_lose_no_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let (port, x, y) = (free_port(), backend("x").await, backend("y").await);
    control.handle.publish(set([
        listener(port, false),
        scope("a.test"),
        proxy("a.test", "x"),
        upstream("x", 5),
        endpoints("x", &[x]),
    ]));
    serves(port, "a.test", "x").await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = {
        let done = done.clone();
        async move {
            let mut answers = 0;
            // One connection: a new one a request would use up the ports.
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let answer = get_over(&mut stream, "a.test", "/").await;
                assert!(matches!(&answer, Some((200, _))), "{answer:?} after {answers} good ones");
                answers += 1;
            }
            answers
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the load beside the moves")]
    let load = tokio::spawn(load);
    // The old upstream goes in the very update that moves the host.
    for _ in 0..5 {
        for (new, old, at) in [("y", "x", y), ("x", "y", x)] {
            let key = |kind| ResourceKey { kind, name: old.into() };
            let set = vec![upstream(new, 5), endpoints(new, &[at]), proxy("a.test", new)];
            let removed = vec![key(ResourceKind::Cluster), key(ResourceKind::Endpoints)];
            control.handle.publish(Update { set, removed });
            serves(port, "a.test", new).await;
        }
    }
    // An upstream that changes alone warms at once, not after Envoy's 15 s.
    let before = tokio::time::Instant::now();
    let changed = upstream("x", 6);
    let key = changed.key.clone();
    control.handle.publish(set([changed]));
    eventually("the changed upstream is accepted", || async {
        (control.handle.held(&key).by == 1).then_some(())
    })
    .await;
    assert!(before.elapsed() < Duration::from_secs(10), "it waited for the fetch timeout");
    // One whose endpoints are missing is told so, and warms without any (trap 23).
    let before = tokio::time::Instant::now();
    let bare = upstream("bare", 5);
    let key = bare.key.clone();
    control.handle.publish(set([bare]));
    eventually("the bare upstream is accepted", || async {
        (control.handle.held(&key).by == 1).then_some(())
    })
    .await;
    assert!(before.elapsed() < Duration::from_secs(10), "it waited for the fetch timeout");
    // In the end nothing of the old one is left.
    let gone = ResourceKey { kind: ResourceKind::Cluster, name: "y".into() };
    eventually("the old upstream is removed", || async {
        (control.handle.held(&gone).by == 1).then_some(())
    })
    .await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let answers = load.await.expect("no request was lost");
    assert!(answers > 0);
}

/// A handshake for `sni`, and the answer over it.
async fn get_tls(port: u16, sni: &str, roots: &rustls::RootCertStore) -> Option<(u16, String)> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(sni.to_owned()).expect("a name");
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    get_over(&mut stream, "a.test", "/").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_come_on_demand() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let signer = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signer.as_ref().der().clone()).expect("a root");

    let (control, address) = ControlPlane::start(&authority, anywhere()).await;
    let _envoy = start_envoy(dir.path(), address, &authority);
    let port = free_port();
    let wildcard = certificate("*.wild.test", &signer);
    control.handle.publish(set([
        listener(port, true),
        scope("a.test"),
        table("a.test", "one", None),
        certificate("a.test", &signer),
        wildcard,
    ]));
    let served = |sni: &'static str| {
        let roots = roots.clone();
        async move { get_tls(port, sni, &roots).await.filter(|(status, _)| *status == 200).map(|_| ()) }
    };
    eventually("its own certificate", || served("a.test")).await;
    eventually("a wildcard's", || served("x.wild.test")).await;
    assert_eq!(served("unknown.test").await, None);
    assert_eq!(served("two.deep.wild.test").await, None);
    // There is no negative cache: once it is there, it is served.
    control.handle.publish(set([certificate("unknown.test", &signer)]));
    eventually("one that came later", || served("unknown.test")).await;
    // Rotation reaches a name served by a wildcard.
    let before = control.handle.engines()[0].sent;
    control.handle.publish(set([certificate("*.wild.test", &signer)]));
    eventually("it was pushed", || async { (control.handle.engines()[0].sent > before).then_some(()) }).await;
    eventually("the new one is served", || served("x.wild.test")).await;
    assert_eq!(control.handle.engines()[0].refusals, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_engines_of_the_fleet_come_in() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), now()).expect("an authority");
    let (control, address) = ControlPlane::start(&authority, anywhere()).await;
    control.handle.publish(set([]));
    let other = Identity::new("other", "e1").expect("a name");
    let issued = authority.issue_engine(&other, DAY, now()).expect("a certificate");
    let _stranger = Envoy::start(dir.path(), address, authority.certificate_pem(), &other, &issued);
    eventually("an engine of another fleet is refused", || async {
        (control.handle.impostors() > 0).then_some(())
    })
    .await;
    // A node id that is not the certificate's engine.
    let before = control.handle.impostors();
    let issued = authority.issue_engine(&engine(), DAY, now()).expect("a certificate");
    let liar = Identity::new("edge", "e2").expect("a name");
    let home = tempfile::tempdir().expect("a directory");
    drop(_stranger);
    let _liar = Envoy::start(home.path(), address, authority.certificate_pem(), &liar, &issued);
    eventually("a node that claims another engine is refused", || async {
        (control.handle.impostors() > before).then_some(())
    })
    .await;
    assert!(control.handle.engines().iter().all(|engine| engine.sent == 0));
}
