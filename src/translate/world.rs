//! What translation may look at. `compile` stands behind it and records each look.

use super::{Attachment, HostOutcome, Missing, Owner, Setting};
use crate::{
    api,
    base::{HostPattern, ObjectKey, Text},
    inputs::fact,
    ir::{Certificate, GatewayKey, HostKey, Upstream, UpstreamKey},
};
use std::{net::IpAddr, sync::Arc};

/// One Ingress among those that name the same host: compares by age, then by
/// namespace and name, so that the least is the oldest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contender {
    pub age: fact::Age,
    pub ingress: ObjectKey,
}

/// What one namespace owns: a host anywhere, or the default host of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerScope {
    Host(HostPattern),
    Default(GatewayKey),
}

impl OwnerScope {
    #[must_use]
    pub fn of(key: &HostKey) -> Self {
        match &key.host {
            HostPattern::Default => Self::Default(key.gateway.clone()),
            host @ (HostPattern::Exact(_) | HostPattern::OneLabel(_) | HostPattern::AnyLabels(_)) => {
                Self::Host(host.clone())
            }
        }
    }
}

/// Facts, lower units and indexes, each look recorded.
pub trait World {
    // Facts.
    fn ingress(&mut self, key: &ObjectKey) -> Option<Arc<fact::Ingress>>;
    fn ingress_class(&mut self, name: &str) -> Option<Arc<fact::IngressClass>>;
    fn namespace(&mut self, name: &str) -> Option<Arc<fact::Namespace>>;
    fn infra_setting(&mut self, name: &str) -> Option<Arc<api::InfraSettingSpec>>;
    fn service(&mut self, namespace: &str, name: &str) -> Option<Arc<fact::Service>>;
    fn endpoint_slice(&mut self, key: &ObjectKey) -> Option<Arc<fact::EndpointSlice>>;
    fn secret(&mut self, namespace: &str, name: &str) -> Option<Arc<fact::TlsSecret>>;
    fn dns_zone(&mut self, name: &str) -> Option<Arc<api::DnsZoneSpec>>;
    /// The VIPs a gateway holds.
    fn allocation(&mut self, gateway: &GatewayKey) -> Arc<[IpAddr]>;

    // Units of lower levels.
    /// The setting of that name, or the defaults.
    fn setting(&mut self, name: Option<&Text>) -> Arc<Setting>;
    fn attachment(&mut self, ingress: &ObjectKey) -> Option<Arc<Attachment>>;
    fn owner(&mut self, scope: &OwnerScope) -> Option<Arc<Owner>>;
    fn certificate(&mut self, secret: &ObjectKey) -> Result<Arc<Certificate>, Text>;
    fn upstream(&mut self, key: &UpstreamKey) -> Result<Arc<Upstream>, Missing>;
    /// Has the endpoints of an upstream made, without looking at them.
    fn demand_endpoints(&mut self, key: &UpstreamKey);
    /// Has the certificate of a dedicated chain published under a name.
    fn demand_dedicated(&mut self, name: &Text, secret: &ObjectKey);
    fn host(&mut self, key: &HostKey) -> Option<Arc<HostOutcome>>;

    // Indexes: woken only when the answer changes.
    /// The name of the oldest IngressClass marked as default.
    fn default_class(&mut self) -> Option<Text>;
    /// The oldest Ingress that names a host.
    fn oldest(&mut self, scope: &OwnerScope) -> Option<Contender>;
    /// All Ingresses that name a host on a gateway, oldest first.
    fn contenders(&mut self, host: &HostKey) -> Vec<Contender>;
    fn slices(&mut self, namespace: &str, service: &str) -> Vec<ObjectKey>;
    /// Whether some gateway holds this address.
    fn is_vip(&mut self, address: IpAddr) -> bool;
    /// Whether a host of the gateway has TLS.
    fn has_tls(&mut self, gateway: &GatewayKey) -> bool;
    /// Hosts of the gateway whose certificate needs a chain of its own, and the Secret.
    fn dedicated(&mut self, gateway: &GatewayKey) -> Vec<(HostPattern, ObjectKey)>;
    /// Exact hosts with TLS one label below a name.
    fn tls_hosts_below(&mut self, gateway: &GatewayKey, host: &HostPattern) -> Vec<HostPattern>;
    /// Who wants this SNI served, oldest first.
    fn sni_claims(&mut self, name: &Text) -> Vec<Arc<super::SniClaim>>;
    /// Gateways that serve a host.
    fn published(&mut self, host: &HostPattern) -> Vec<GatewayKey>;
    /// All zones, by apex as written and object.
    fn zones(&mut self) -> Vec<(Text, ObjectKey)>;
}
