//! The endpoints of one upstream: the one resource that changes all day.

use super::{Resource, encode, names, proto, upstream};
use crate::{
    base::Version,
    ir::{Endpoint, Endpoints},
};
use envoy_types::pb::envoy::config::{
    core::v3::HealthStatus,
    endpoint::v3::{
        self as envoy, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
    },
};
use std::{collections::BTreeMap, net::SocketAddr};

#[must_use]
pub fn build_endpoints(endpoints: &Endpoints) -> Resource {
    let origins = [upstream::service(&endpoints.key)];
    let key = names::endpoints(&endpoints.key);
    encode(key, Version::of(endpoints), &build_assignment(endpoints), [], origins)
}

/// Sorted by address, each once. Nobody at all is an assignment without
/// endpoints (answered 503), never a missing one: that would hold its cluster's
/// warming.
pub(super) fn build_assignment(endpoints: &Endpoints) -> ClusterLoadAssignment {
    let Endpoints { key, endpoints } = endpoints;
    let by_address: BTreeMap<SocketAddr, bool> =
        endpoints.iter().map(|Endpoint { address, draining }| (*address, *draining)).collect();
    let lb_endpoints: Vec<_> =
        by_address.into_iter().map(|(at, draining)| lb_endpoint(at, draining)).collect();
    let locality = LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: names::endpoints(key).name.to_string(),
        endpoints: if locality.lb_endpoints.is_empty() { Vec::new() } else { vec![locality] },
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(address: SocketAddr, draining: bool) -> LbEndpoint {
    let status = if draining { HealthStatus::Draining } else { HealthStatus::Unknown };
    let endpoint =
        envoy::Endpoint { address: Some(proto::ip_address(address)), ..envoy::Endpoint::default() };
    LbEndpoint {
        health_status: status.into(),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    }
}
