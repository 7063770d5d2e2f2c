//! What an Envoy reads in a resource: from the bytes alone, not from what we say
//! that it needs.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, cluster::ClusterDiscoveryType},
            core::v3::TransportSocket,
            core::v3::transport_socket::ConfigType,
            endpoint::v3::ClusterLoadAssignment,
            listener::v3::Listener,
            route::v3::{
                RouteConfiguration, ScopedRouteConfiguration, route::Action, route_action::ClusterSpecifier,
                scoped_route_configuration::key::fragment::Type,
            },
        },
        extensions::transport_sockets::tls::v3::{
            DownstreamTlsContext, UpstreamTlsContext, common_tls_context::ValidationContextType,
        },
    },
    google::protobuf::Any,
};
use prost::Message;
use std::{cell::RefCell, collections::HashMap, rc::Rc};
use tidegate::{
    base::Version,
    server::frame::Item,
    xds::{Name, ResourceKind},
};

#[derive(Debug)]
pub(crate) enum Body {
    /// `authorities`: the secret it waits for.
    Cluster {
        by_eds: bool,
        authorities: Option<Name>,
    },
    Endpoints {
        count: usize,
    },
    Secret,
    Listener {
        on_demand: bool,
        certificates: Vec<Name>,
    },
    Scope {
        key: Vec<String>,
        table: Name,
    },
    Route {
        clusters: Vec<Name>,
    },
}

thread_local! {
    /// By kind, name and version, which is the content: the same over all seeds.
    static READ: RefCell<HashMap<(ResourceKind, Name, Version), Rc<Body>>> = RefCell::default();
}

pub(crate) fn read(kind: ResourceKind, item: &Item) -> Rc<Body> {
    let key = (kind, item.name.clone(), item.version);
    if let Some(known) = READ.with_borrow(|read| read.get(&key).cloned()) {
        return known;
    }
    let body = Rc::new(decode(kind, &item.name, &item.body));
    READ.with_borrow_mut(|read| read.insert(key, Rc::clone(&body)));
    body
}

fn message<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("a body is a message of its kind")
}

fn decode(kind: ResourceKind, name: &str, bytes: &[u8]) -> Body {
    match kind {
        ResourceKind::Cluster => cluster(name, &message(bytes)),
        ResourceKind::Endpoints => {
            let read: ClusterLoadAssignment = message(bytes);
            assert_eq!(read.cluster_name, name, "endpoints under another name");
            Body::Endpoints { count: read.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum() }
        }
        ResourceKind::Secret => Body::Secret,
        ResourceKind::Listener => listener(name, &message(bytes)),
        ResourceKind::ScopedRoute => {
            let read: ScopedRouteConfiguration = message(bytes);
            assert_eq!(read.name, name, "a scope under another name");
            let fragments = read.key.expect("a scope has a key").fragments;
            let key = fragments.into_iter().map(|fragment| match fragment.r#type {
                Some(Type::StringKey(text)) => text,
                None => panic!("{name} has a fragment without text"),
            });
            Body::Scope { key: key.collect(), table: read.route_configuration_name.as_str().into() }
        }
        ResourceKind::Route => route(name, &message(bytes)),
    }
}

fn socket<M: Message + Default>(socket: Option<&TransportSocket>) -> Option<M> {
    let Some(ConfigType::TypedConfig(Any { value, .. })) = &socket?.config_type else { return None };
    Some(message(value))
}

fn cluster(name: &str, read: &Cluster) -> Body {
    assert_eq!(read.name, name, "a cluster under another name");
    let by_eds = matches!(&read.cluster_discovery_type, Some(ClusterDiscoveryType::Type(3)));
    if by_eds {
        let eds = read.eds_cluster_config.as_ref().expect("a cluster by EDS says so");
        assert_eq!(eds.service_name, name, "two clusters must not share endpoints");
    }
    let tls: Option<UpstreamTlsContext> = socket(read.transport_socket.as_ref());
    let context = tls.and_then(|tls| tls.common_tls_context?.validation_context_type);
    let authorities = match context {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.validation_context_sds_secret_config.map(|secret| secret.name.as_str().into())
        }
        _ => None,
    };
    Body::Cluster { by_eds, authorities }
}

fn listener(name: &str, read: &Listener) -> Body {
    assert_eq!(read.name, name, "a listener under another name");
    let (mut on_demand, mut certificates) = (false, Vec::new());
    let mut matches: Vec<_> = read.filter_chains.iter().map(|chain| &chain.filter_chain_match).collect();
    for (n, chain) in read.filter_chains.iter().enumerate() {
        assert!(!matches[..n].contains(&&chain.filter_chain_match), "{name}: two chains for one SNI");
        let tls: Option<DownstreamTlsContext> = socket(chain.transport_socket.as_ref());
        let Some(common) = tls.and_then(|tls| tls.common_tls_context) else { continue };
        on_demand |= common.custom_tls_certificate_selector.is_some();
        let secrets = common.tls_certificate_sds_secret_configs;
        certificates.extend(secrets.iter().map(|secret| Name::from(secret.name.as_str())));
    }
    matches.clear();
    Body::Listener { on_demand, certificates }
}

fn route(name: &str, read: &RouteConfiguration) -> Body {
    assert_eq!(read.name, name, "a route table under another name");
    let mut clusters: Vec<Name> = Vec::new();
    for route in read.virtual_hosts.iter().flat_map(|host| &host.routes) {
        assert!(!route.name.is_empty(), "{name}: the walker takes a route without a name for a miss");
        let Some(Action::Route(action)) = &route.action else { continue };
        match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(cluster)) => clusters.push(cluster.as_str().into()),
            Some(ClusterSpecifier::WeightedClusters(split)) => {
                clusters.extend(split.clusters.iter().map(|part| Name::from(part.name.as_str())));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    clusters.sort_unstable();
    clusters.dedup();
    Body::Route { clusters }
}
