//! What translation sees, read through the recording view.

use super::{Entry, FactKey, Index, Input, Unit, Value, program::Rules};
use crate::{
    api,
    base::{HostPattern, ObjectKey, ObjectKind, Text},
    incremental::View,
    inputs::{Fact, fact},
    ir::{Certificate, GatewayKey, HostKey, Upstream, UpstreamKey},
    report::Reason,
    translate::{Attachment, Contender, HostOutcome, Missing, Owner, OwnerScope, Setting, SniClaim, World},
};
use std::{net::IpAddr, sync::Arc};

/// Reads the fact of one kind; a fact of another kind under the key cannot be.
macro_rules! object {
    ($view:expr, $key:expr, $kind:path) => {
        match $view.fact(&FactKey::Object($key)) {
            Some(Input::Object($kind(fact))) => Some(fact),
            _ => None,
        }
    };
}

/// Reads the members of an index that holds one kind of entry.
macro_rules! members {
    ($view:expr, $index:expr, $entry:pat => $member:expr) => {
        $view
            .members(&$index)
            .into_iter()
            .filter_map(|entry| match entry {
                $entry => Some($member),
                _ => None,
            })
            .collect()
    };
}

impl World for View<'_, Rules> {
    fn ingress(&mut self, key: &ObjectKey) -> Option<Arc<fact::Ingress>> {
        object!(self, key.clone(), Fact::Ingress)
    }

    fn ingress_class(&mut self, name: &str) -> Option<Arc<fact::IngressClass>> {
        object!(self, ObjectKey::cluster(ObjectKind::IngressClass, name), Fact::IngressClass)
    }

    fn namespace(&mut self, name: &str) -> Option<Arc<fact::Namespace>> {
        object!(self, ObjectKey::cluster(ObjectKind::Namespace, name), Fact::Namespace)
    }

    fn infra_setting(&mut self, name: &str) -> Option<Arc<api::InfraSettingSpec>> {
        object!(self, ObjectKey::cluster(ObjectKind::InfraSetting, name), Fact::InfraSetting)
    }

    fn service(&mut self, namespace: &str, name: &str) -> Option<Arc<fact::Service>> {
        object!(self, ObjectKey::new(ObjectKind::Service, namespace, name), Fact::Service)
    }

    fn endpoint_slice(&mut self, key: &ObjectKey) -> Option<Arc<fact::EndpointSlice>> {
        object!(self, key.clone(), Fact::EndpointSlice)
    }

    fn secret(&mut self, namespace: &str, name: &str) -> Option<Arc<fact::TlsSecret>> {
        object!(self, ObjectKey::new(ObjectKind::Secret, namespace, name), Fact::Secret)
    }

    fn dns_zone(&mut self, name: &str) -> Option<Arc<api::DnsZoneSpec>> {
        object!(self, ObjectKey::cluster(ObjectKind::DnsZone, name), Fact::DnsZone)
    }

    fn allocation(&mut self, gateway: &GatewayKey) -> Arc<[IpAddr]> {
        match self.fact(&FactKey::Allocation(gateway.to_string().into())) {
            Some(Input::Allocation(addresses)) => addresses,
            _ => Arc::default(),
        }
    }

    fn setting(&mut self, name: Option<&Text>) -> Arc<Setting> {
        match self.unit(&Unit::Setting(name.cloned())) {
            Value::Setting(setting) => setting,
            _ => unreachable!("a setting is made of defaults where there is nothing else"),
        }
    }

    fn attachment(&mut self, ingress: &ObjectKey) -> Option<Arc<Attachment>> {
        match self.unit(&Unit::Attachment(ingress.clone())) {
            Value::Attachment(attachment) => attachment,
            _ => None,
        }
    }

    fn owner(&mut self, scope: &OwnerScope) -> Option<Arc<Owner>> {
        match self.unit(&Unit::Owner(scope.clone())) {
            Value::Owner(owner) => owner,
            _ => None,
        }
    }

    fn certificate(&mut self, secret: &ObjectKey) -> Result<Arc<Certificate>, Text> {
        match self.unit(&Unit::Certificate(secret.clone())) {
            Value::Certificate(certificate) => certificate,
            _ => Err("cannot be read".into()),
        }
    }

    fn upstream(&mut self, key: &UpstreamKey) -> Result<Arc<Upstream>, Missing> {
        match self.unit(&Unit::Upstream(key.clone())) {
            Value::Upstream(upstream) => upstream,
            _ => Err(Missing { reason: Reason::Invalid, why: "cannot be read".into() }),
        }
    }

    fn demand_endpoints(&mut self, key: &UpstreamKey) {
        self.demand(&Unit::Endpoints(key.clone()));
    }

    fn demand_dedicated(&mut self, name: &Text, secret: &ObjectKey) {
        self.demand(&Unit::Dedicated(Box::new((Arc::clone(name), secret.clone()))));
    }

    fn host(&mut self, key: &HostKey) -> Option<Arc<HostOutcome>> {
        match self.unit(&Unit::Host(key.clone())) {
            Value::Host(host) => host,
            _ => None,
        }
    }

    fn default_class(&mut self) -> Option<Text> {
        match self.first(&Index::DefaultClass) {
            Some(Entry::Class(_, name)) => Some(name),
            _ => None,
        }
    }

    fn oldest(&mut self, scope: &OwnerScope) -> Option<Contender> {
        match self.first(&Index::Contenders(scope.clone())) {
            Some(Entry::Contender(contender)) => Some(contender),
            _ => None,
        }
    }

    fn contenders(&mut self, host: &HostKey) -> Vec<Contender> {
        members!(self, Index::HostRules(host.clone()), Entry::Contender(contender) => contender)
    }

    fn slices(&mut self, namespace: &str, service: &str) -> Vec<ObjectKey> {
        members!(self, Index::Slices(namespace.into(), service.into()), Entry::Object(key) => key)
    }

    fn is_vip(&mut self, address: IpAddr) -> bool {
        self.any(&Index::Vips(address))
    }

    fn has_tls(&mut self, gateway: &GatewayKey) -> bool {
        self.any(&Index::TlsHosts(gateway.clone()))
    }

    fn dedicated(&mut self, gateway: &GatewayKey) -> Vec<(HostPattern, ObjectKey)> {
        members!(self, Index::Dedicated(gateway.clone()), Entry::Dedicated(host, secret) => (host, secret))
    }

    fn tls_hosts_below(&mut self, gateway: &GatewayKey, host: &HostPattern) -> Vec<HostPattern> {
        members!(self, Index::TlsBelow(gateway.clone(), host.clone()), Entry::Host(host) => host)
    }

    fn sni_claims(&mut self, name: &Text) -> Vec<Arc<SniClaim>> {
        members!(self, Index::SniClaims(Arc::clone(name)), Entry::Sni(claim) => claim)
    }

    fn published(&mut self, host: &HostPattern) -> Vec<GatewayKey> {
        members!(self, Index::Published(host.clone()), Entry::Gateway(gateway) => gateway)
    }

    fn zones(&mut self) -> Vec<(Text, ObjectKey)> {
        members!(self, Index::Zones, Entry::Zone(apex, object) => (apex, object))
    }
}
