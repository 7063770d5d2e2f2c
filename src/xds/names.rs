//! What resources are called. A name never holds a position, so that other
//! objects coming and going rename nothing.

use super::{Name, ResourceKey, ResourceKind};
use crate::ir::{HostKey, ListenerKey, UpstreamKey};

/// `s/GATEWAY/HOST`.
#[must_use]
pub fn scope(host: &HostKey) -> ResourceKey {
    key(ResourceKind::ScopedRoute, format!("s/{host}"))
}

/// `r/GATEWAY/HOST`.
#[must_use]
pub fn route_table(host: &HostKey) -> ResourceKey {
    key(ResourceKind::Route, format!("r/{host}"))
}

/// The upstream, printed.
#[must_use]
pub fn cluster(upstream: &UpstreamKey) -> ResourceKey {
    key(ResourceKind::Cluster, upstream.to_string())
}

/// As its cluster: one assignment each.
#[must_use]
pub fn endpoints(upstream: &UpstreamKey) -> ResourceKey {
    key(ResourceKind::Endpoints, upstream.to_string())
}

/// `upstream/UPSTREAM`: the authorities that may have signed its certificate.
#[must_use]
pub fn authorities(upstream: &UpstreamKey) -> ResourceKey {
    key(ResourceKind::Secret, format!("upstream/{upstream}"))
}

/// `l/ADDRESS:PORT`.
#[must_use]
pub fn listener(listener: &ListenerKey) -> ResourceKey {
    key(ResourceKind::Listener, format!("l/{listener}"))
}

/// A secret by its whole name: an SNI, `default/GATEWAY`, or `chain/GATEWAY/HOST`.
#[must_use]
pub fn secret(name: &str) -> ResourceKey {
    key(ResourceKind::Secret, name)
}

fn key(kind: ResourceKind, name: impl Into<Name>) -> ResourceKey {
    ResourceKey { kind, name: name.into() }
}
