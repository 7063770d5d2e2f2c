//! The routes of one host on one gateway.

use super::{GatewayKey, UpstreamKey};
use crate::base::{HostPattern, ObjectKey, Text};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// One table of routes: a gateway and what it answers for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HostKey {
    pub gateway: GatewayKey,
    pub host: HostPattern,
}

impl std::fmt::Display for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.gateway, self.host.scope())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Host {
    pub key: HostKey,
    /// Whether TLS clients may ask for it; plain clients always may.
    pub tls: Option<HostTls>,
    /// In order of precedence: the first that matches answers. What none
    /// matches goes to the default host's table.
    pub routes: Box<[Route]>,
    /// The objects it was made of, the owner first: who is told when Envoy refuses it.
    pub origins: Arc<[ObjectKey]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct HostTls {
    /// The host itself and the DNS names of the certificate that serves it, sorted.
    /// A request whose SNI none of them covers is answered 421; the default host
    /// covers every SNI.
    pub covered: Box<[HostPattern]>,
    /// Plain requests are sent to https.
    pub redirect: Option<Redirect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Redirect {
    /// The port clients see; 443 is left out of the Location.
    pub port: u16,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Route {
    /// Unique in the host; never empty and never begins with `-`. Not a
    /// position: it stays when other routes come and go.
    pub name: Text,
    pub path: PathMatch,
    pub action: Action,
}

/// Paths are case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PathMatch {
    Exact(Text),
    /// Element-wise: `/foo` has `/foo` and `/foo/x`, not `/foobar`. Never ends
    /// in a slash, except `/`, which has every path.
    Prefix(Text),
    /// A regular expression over the whole path, known to be within our limits.
    Regex(Text),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum Action {
    Forward {
        upstream: UpstreamKey,
        /// Total time for an answer; none for no limit.
        timeout: Option<Duration>,
        /// The same client address reaches the same endpoint.
        sticky_source: bool,
    },
    /// An answer of our own: 503 where there is nothing to forward to.
    Status { status: u16, body: Text },
}

impl Action {
    /// The upstream it needs.
    #[must_use]
    pub fn upstream(&self) -> Option<&UpstreamKey> {
        match self {
            Self::Forward { upstream, .. } => Some(upstream),
            Self::Status { .. } => None,
        }
    }
}
