//! What requests are forwarded to (an Envoy cluster), and its endpoints.

use crate::base::{Secret, Text, Version};
use serde::{Serialize, Serializer};
use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

/// The name of an upstream: a port of a Service, and how it is treated. Never a
/// route's position. Prints as `NAMESPACE/SERVICE/PORT[~POLICY]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamKey {
    pub namespace: Text,
    pub service: Text,
    /// The port's name or number, as the route names it.
    pub port: Text,
    pub policy: Arc<UpstreamPolicy>,
}

/// How an upstream is treated, beyond what its Service says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UpstreamPolicy {
    pub connect_timeout: Duration,
    /// Whether a Service of type ExternalName may be followed.
    pub external_name: bool,
    /// The Secret (in the Service's namespace) whose `ca.crt` a TLS backend's
    /// certificate is checked against, and the name it must have.
    pub verify: Option<(Text, Text)>,
}

impl Default for UpstreamPolicy {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), external_name: false, verify: None }
    }
}

impl fmt::Display for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, service, port, policy } = self;
        write!(f, "{namespace}/{service}/{port}")?;
        if **policy != UpstreamPolicy::default() {
            write!(f, "~{}", Version::of(policy.as_ref()).short())?;
        }
        Ok(())
    }
}

impl Serialize for UpstreamKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Upstream {
    pub key: UpstreamKey,
    pub protocol: UpstreamProtocol,
    pub tls: Option<UpstreamTls>,
    /// The same source address goes to the same endpoint (Maglev).
    pub sticky_source: bool,
    /// A DNS name and port to resolve, instead of endpoints of ours.
    pub external: Option<(Text, u16)>,
    pub connect_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum UpstreamProtocol {
    Http1,
    /// HTTP/2, with prior knowledge where there is no TLS (h2c, gRPC).
    Http2,
}

/// Traffic to the upstream is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct UpstreamTls {
    /// Sent as SNI, and the name that must be in its certificate.
    pub server_name: Option<Text>,
    /// PEM of the authorities that may have signed it; none: not verified.
    pub ca: Option<Secret<Arc<[u8]>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Endpoints {
    pub key: UpstreamKey,
    /// Sorted by address, each once.
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// It is going away: existing streams may finish, new ones go elsewhere
    /// while there is an elsewhere.
    pub draining: bool,
}
