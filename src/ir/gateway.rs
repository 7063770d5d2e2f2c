//! A gateway: hosts that share a VIP. A listener: one address and port of it.

use super::Edge;
use crate::base::{HostPattern, Text};
use serde::{Serialize, Serializer};
use std::{fmt, net::IpAddr, sync::Arc};

/// Which hosts share one VIP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum GatewayScope {
    /// All of the class that rendezvous hashing puts on this shard, counted from 0.
    Shared { shard: u16 },
    /// One Ingress has the VIP for itself.
    Ingress { namespace: Text, name: Text },
    /// One host has the VIP for itself.
    Host { host: HostPattern },
}

/// The name of a gateway, and of its claim for addresses. It prints as
/// `CLASS[@SETTING][/SHARD | /ingress/NAMESPACE/NAME | /host/HOST]`; that print
/// is what the VIP ledger stores and what Envoy matches as `x-vip`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayKey(Arc<GatewayName>);

/// What a gateway's name is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayName {
    /// The IngressClass.
    pub class: Text,
    /// The InfraSetting of the namespace, where it overrides the class's own.
    pub setting: Option<Text>,
    pub scope: GatewayScope,
}

impl GatewayKey {
    /// Each key of a host holds one: it is as small as a reference, and cheap to clone.
    #[must_use]
    pub fn new(name: GatewayName) -> Self {
        Self(Arc::new(name))
    }
}

impl std::ops::Deref for GatewayKey {
    type Target = GatewayName;

    fn deref(&self) -> &GatewayName {
        &self.0
    }
}

impl fmt::Display for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GatewayName { class, setting, scope } = &**self;
        f.write_str(class)?;
        if let Some(setting) = setting {
            write!(f, "@{setting}")?;
        }
        match scope {
            GatewayScope::Shared { shard: 0 } => Ok(()),
            GatewayScope::Shared { shard } => write!(f, "/{shard}"),
            GatewayScope::Ingress { namespace, name } => write!(f, "/ingress/{namespace}/{name}"),
            GatewayScope::Host { host } => write!(f, "/host/{}", host.scope()),
        }
    }
}

impl Serialize for GatewayKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which address families a claim asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// What a gateway asks of IPAM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Claim {
    /// The gateway, printed.
    pub name: Text,
    /// The namespace the claim belongs to; none for a VIP that namespaces share.
    pub namespace: Option<Text>,
    /// Labels of that namespace, for pools that select by them.
    pub namespace_labels: std::collections::BTreeMap<String, String>,
    /// Only this pool; none lets priority and selection decide.
    pub pool: Option<Text>,
    pub families: Families,
    /// These very addresses, one a family at most.
    pub requested: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Protocol {
    Http,
    Https,
}

/// A listener's identity: changing anything of it is another listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    pub address: IpAddr,
    pub port: u16,
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::net::SocketAddr::new(self.address, self.port))
    }
}

impl Serialize for ListenerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One VIP address and port. Host names are not in it, except those that need a
/// filter chain of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Listener {
    pub key: ListenerKey,
    pub gateway: GatewayKey,
    pub protocol: Protocol,
    pub edge: Arc<Edge>,
    /// HTTPS only: hosts that cannot use the shared chain, sorted by host.
    pub dedicated: Vec<super::DedicatedChain>,
}
