//! One listener: a VIP's address and port. An HTTPS one has the shared chain,
//! whose certificates come by SNI on demand, and a chain for each host that
//! cannot be on it.

use super::{
    Resource,
    edge::{self, Routes},
    encode, names, proto,
};
use crate::{
    base::{HostPattern, ObjectKey, ObjectKind, Version},
    ir::{DedicatedChain, GatewayKey, GatewayName, GatewayScope, Listener, Protocol},
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::TransportSocket,
            listener::v3::{
                self as envoy, Filter, FilterChain, FilterChainMatch, ListenerFilter, filter, listener_filter,
            },
        },
        extensions::{
            filters::{
                listener::{proxy_protocol::v3::ProxyProtocol, tls_inspector::v3::TlsInspector},
                network::connection_limit::v3::ConnectionLimit,
            },
            transport_sockets::tls::{
                cert_mappers::sni::v3::Sni,
                cert_selectors::on_demand_secret::v3::Config as OnDemandSecret,
                v3::{
                    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
                    downstream_tls_context::SessionTicketKeysType, tls_parameters::TlsProtocol,
                },
            },
        },
    },
    google::protobuf::{Any, UInt64Value},
};
use prost::{Message, Name};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// PROXY protocol header and TLS ClientHello must be there by then.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// The whole handshake, fetching the certificate included. Without it a control
/// plane that never answers an SNI would hold the connection for ever.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// The handshake where the certificate is already here.
const HANDSHAKE_DEDICATED: Duration = Duration::from_secs(10);

#[must_use]
pub fn build_listener(listener: &Listener) -> Resource {
    let needs = listener.dedicated.iter().map(|chain| names::secret(&chain.certificate));
    let message = envoy::Listener { filter_chains: chains(listener), ..build_socket(listener) };
    let origins = origins(&listener.gateway);
    encode(names::listener(&listener.key), Version::of(listener), &message, needs, origins)
}

/// Who asked for it.
fn origins(gateway: &GatewayKey) -> Vec<ObjectKey> {
    let GatewayName { class, setting, scope } = &**gateway;
    let mut origins = vec![ObjectKey::cluster(ObjectKind::IngressClass, class)];
    origins.extend(setting.as_ref().map(|name| ObjectKey::cluster(ObjectKind::InfraSetting, name)));
    if let GatewayScope::Ingress { namespace, name } = scope {
        origins.insert(0, ObjectKey::new(ObjectKind::Ingress, namespace, name));
    }
    origins
}

/// All but the chains. An edit of anything here closes every connection of the
/// listener at once (envoy #35085), so nothing here depends on hosts.
pub(super) fn build_socket(listener: &Listener) -> envoy::Listener {
    let Listener { key, gateway: _, protocol, edge, dedicated: _ } = listener;
    let name = names::listener(key).name.to_string();
    let mut listener_filters = Vec::new();
    if edge.proxy_protocol {
        // Before TLS: it is in front of the ClientHello. Who does not speak it is refused.
        listener_filters
            .push(listener_filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default()));
    }
    if *protocol == Protocol::Https {
        listener_filters
            .push(listener_filter("envoy.filters.listener.tls_inspector", &TlsInspector::default()));
    }
    envoy::Listener {
        name,
        address: Some(proto::ip_address(SocketAddr::new(key.address, key.port))),
        stat_prefix: key.to_string(),
        per_connection_buffer_limit_bytes: Some(proto::uint(edge.limits.buffer_bytes.max(1))),
        listener_filters,
        listener_filters_timeout: Some(proto::duration(FIRST_BYTES)),
        ..envoy::Listener::default()
    }
}

fn listener_filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(proto::any(config))),
        ..ListenerFilter::default()
    }
}

fn chains(listener: &Listener) -> Vec<FilterChain> {
    let filters = network_filters(listener, Routes::Scoped);
    match listener.protocol {
        Protocol::Http => vec![FilterChain { name: "plain".to_owned(), filters, ..FilterChain::default() }],
        Protocol::Https => {
            let chain = |name: &str, tls: &TlsChain| tls_chain(name, tls, filters.clone());
            let shared = TlsChain::on_demand(&listener.gateway);
            let dedicated = dedicated_chains(listener);
            let mut chains = vec![chain("shared", &shared)];
            chains.extend(dedicated.iter().map(|(name, tls)| chain(name, tls)));
            chains
        }
    }
}

/// By the server name of the chain: Envoy refuses a listener with two chains
/// for one name, so what a host has for itself wins over being in a wildcard's
/// shadow, and of two equal ones the first is there.
fn dedicated_chains(listener: &Listener) -> BTreeMap<String, TlsChain> {
    let mut by_server_name = BTreeMap::new();
    for DedicatedChain { host, shadowed: _, certificate } in &listener.dedicated {
        if let Some(server_name) = server_name(host) {
            by_server_name
                .entry(server_name.clone())
                .or_insert_with(|| TlsChain::of_its_own(server_name, certificate));
        }
    }
    for name in listener.dedicated.iter().flat_map(|chain| &chain.shadowed) {
        let server_name = name.to_string();
        by_server_name.entry(server_name.clone()).or_insert_with(|| TlsChain {
            server_names: vec![server_name],
            ..TlsChain::on_demand(&listener.gateway)
        });
    }
    by_server_name
}

/// As Envoy matches SNI: `*.` stands for any number of labels. The default host
/// has no name to match; it is on the shared chain always.
fn server_name(host: &HostPattern) -> Option<String> {
    match host {
        HostPattern::Default => None,
        HostPattern::Exact(name) => Some(name.to_string()),
        HostPattern::OneLabel(suffix) | HostPattern::AnyLabels(suffix) => Some(format!("*.{suffix}")),
    }
}

/// What a client that sends no SNI is taken to have asked for.
pub(super) fn default_certificate(gateway: &GatewayKey) -> String {
    format!("default/{gateway}")
}

/// What tells one TLS chain from another.
pub(super) struct TlsChain {
    /// None: every SNI that no other chain has.
    pub(super) server_names: Vec<String>,
    pub(super) context: DownstreamTlsContext,
    pub(super) handshake: Duration,
}

impl TlsChain {
    /// The certificate is asked for when the first client asks for the name, so
    /// that a new host edits no listener.
    fn on_demand(gateway: &GatewayKey) -> Self {
        let mapper = Sni { default_value: default_certificate(gateway) };
        let selector = OnDemandSecret {
            config_source: Some(proto::ads()),
            certificate_mapper: Some(proto::extension("sni", &mapper)),
            prefetch_secret_names: Vec::new(),
        };
        let common = CommonTlsContext {
            custom_tls_certificate_selector: Some(proto::extension("on_demand", &selector)),
            ..common_tls()
        };
        let context = DownstreamTlsContext {
            common_tls_context: Some(common),
            // Envoy refuses the selector with either kind of resumption.
            disable_stateful_session_resumption: true,
            session_ticket_keys_type: Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)),
            ..DownstreamTlsContext::default()
        };
        Self { server_names: Vec::new(), context, handshake: HANDSHAKE }
    }

    fn of_its_own(server_name: String, certificate: &str) -> Self {
        let secret = SdsSecretConfig { name: certificate.to_owned(), sds_config: Some(proto::ads()) };
        let common = CommonTlsContext { tls_certificate_sds_secret_configs: vec![secret], ..common_tls() };
        let context =
            DownstreamTlsContext { common_tls_context: Some(common), ..DownstreamTlsContext::default() };
        Self { server_names: vec![server_name], context, handshake: HANDSHAKE_DEDICATED }
    }
}

pub(super) fn common_tls() -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        ..CommonTlsContext::default()
    }
}

pub(super) fn tls_chain(name: &str, tls: &TlsChain, filters: Vec<Filter>) -> FilterChain {
    let TlsChain { server_names, context, handshake } = tls;
    let matcher = FilterChainMatch { server_names: server_names.clone(), ..FilterChainMatch::default() };
    let socket: TransportSocket = proto::transport_socket("envoy.transport_sockets.tls", context);
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: (!server_names.is_empty()).then_some(matcher),
        filters,
        transport_socket: Some(socket),
        transport_socket_connect_timeout: Some(proto::duration(*handshake)),
        ..FilterChain::default()
    }
}

/// The limit counts connections of its chain on one engine, so it is exact but
/// for the few hosts with a chain of their own.
pub(super) fn network_filters(listener: &Listener, routes: Routes) -> Vec<Filter> {
    let limit = ConnectionLimit {
        stat_prefix: listener.key.to_string(),
        max_connections: Some(UInt64Value { value: listener.edge.limits.connections.max(1).into() }),
        ..ConnectionLimit::default()
    };
    let config: Any = proto::any(&limit);
    let limit = Filter {
        name: "envoy.filters.network.connection_limit".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    };
    vec![limit, edge::connection_manager(listener, routes)]
}
