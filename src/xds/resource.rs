//! One encoded resource, as the server hands it to Envoys.

use super::Body;
use crate::base::{ObjectKey, Text, Version};
use std::{fmt, sync::Arc};

/// The name of a resource among those of its kind.
pub type Name = Text;

/// The types we send, in the order in which what is new must reach Envoy: each
/// is needed by a later one. What goes away goes in the opposite order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    Cluster,
    Endpoints,
    /// On-demand certificates (name: SNI), dedicated ones (`chain/...`), and
    /// authorities of upstreams (`upstream/...`).
    Secret,
    Listener,
    ScopedRoute,
    Route,
}

impl ResourceKind {
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Endpoints, Self::Secret, Self::Listener, Self::ScopedRoute, Self::Route];

    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::ScopedRoute => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    #[must_use]
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

/// Kind and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub kind: ResourceKind,
    pub name: Name,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}

impl fmt::Debug for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A resource, encoded once and shared by all streams.
///
/// A [`ResourceKind::Secret`] body is the message *without* its `name` field
/// (number 1): an on-demand certificate is sent under the very name that was
/// asked for (a wildcard's certificate under a concrete SNI, capitals echoed),
/// so the server puts that field before the body when it sends. All other
/// bodies are whole messages.
#[derive(Clone)]
pub struct Resource {
    pub key: ResourceKey,
    pub version: Version,
    pub body: Body,
    /// What must be held by an Envoy before this may be sent: clusters of a
    /// route, the route table of a scope.
    pub needs: Arc<[ResourceKey]>,
    /// The objects it was made of: who is told when an Envoy refuses it.
    pub origins: Arc<[ObjectKey]>,
}

/// Bodies may hold keys: they do not print.
impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.key, self.version, self.body.len())
    }
}

/// What changed, to be sent: as small as the change was.
#[derive(Debug, Clone, Default)]
pub struct Update {
    pub set: Vec<Resource>,
    pub removed: Vec<ResourceKey>,
}
