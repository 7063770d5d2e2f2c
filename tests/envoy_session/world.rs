//! What is served: bodies by hand, as any builder would make them.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, cluster},
            core::v3::{
                AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, SocketAddress, TransportSocket,
                TypedExtensionConfig, address, config_source, data_source, socket_address, transport_socket,
            },
            endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
            listener::v3::{
                Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
            },
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
                    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate,
                    downstream_tls_context, secret,
                },
            },
        },
        r#type::matcher::v3::RegexMatcher,
    },
    google::protobuf::Any,
};
use prost::Message;
use tidegate::{
    base::Version,
    xds::{Resource, ResourceKey, ResourceKind, Update},
};
use tokio::net::TcpListener;

pub(crate) fn any(kind: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{kind}"), value: message.encode_to_vec() }
}

pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        ..Default::default()
    }
}

pub(crate) fn resource(
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

pub(crate) fn connection_manager() -> Any {
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

pub(crate) fn listener(port: u16, tls: bool) -> Resource {
    listener_of(&bare_listener(port, vec![chain("only", tls.then(on_demand))], tls))
}

pub(crate) fn listener_of(listener: &Listener) -> Resource {
    resource(ResourceKind::Listener, &listener.name, &[], listener)
}

pub(crate) fn chain(name: &str, transport_socket: Option<TransportSocket>) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filters: vec![Filter {
            name: "http".to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(connection_manager())),
        }],
        transport_socket,
        ..Default::default()
    }
}

/// The same for one server name, with the secret of that name, fetched before
/// the listener serves.
pub(crate) fn chain_for(sni: &str) -> FilterChain {
    let secret = SdsSecretConfig { name: format!("chain/{sni}"), sds_config: Some(ads()) };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret],
            ..Default::default()
        }),
        ..Default::default()
    };
    let matched = FilterChainMatch { server_names: vec![sni.to_owned()], ..Default::default() };
    FilterChain { filter_chain_match: Some(matched), ..chain(sni, Some(tls_socket(&context))) }
}

pub(crate) fn bare_listener(port: u16, chains: Vec<FilterChain>, inspects: bool) -> Listener {
    let address = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    let inspector =
        any("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", &TlsInspector::default());
    let inspector = ListenerFilter {
        name: "tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(inspector)),
        ..Default::default()
    };
    Listener {
        name: format!("l/{port}"),
        address: Some(envoy_types::pb::envoy::config::core::v3::Address {
            address: Some(address::Address::SocketAddress(address)),
        }),
        filter_chains: chains,
        listener_filters: if inspects { vec![inspector] } else { vec![] },
        ..Default::default()
    }
}

/// Certificates by SNI: exact, wildcard, unknown, later, rotated.
pub(crate) fn on_demand() -> TransportSocket {
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
    tls_socket(&context)
}

fn tls_socket(context: &DownstreamTlsContext) -> TransportSocket {
    let context = any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context);
    TransportSocket {
        name: "tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(context)),
    }
}

pub(crate) fn scope(host: &str) -> Resource {
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
pub(crate) fn table(host: &str, text: &str, regex: Option<&str>) -> Resource {
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
pub(crate) fn proxy(host: &str, to: &str) -> Resource {
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

pub(crate) fn upstream(name: &str, connect_timeout_s: i64) -> Resource {
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

pub(crate) fn endpoints(name: &str, ports: &[u16]) -> Resource {
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
pub(crate) async fn backend(text: &'static str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
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
pub(crate) fn certificate(sni: &str, signer: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>) -> Resource {
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

pub(crate) fn set(set: impl IntoIterator<Item = Resource>) -> Update {
    Update { set: set.into_iter().collect(), removed: Vec::new() }
}
