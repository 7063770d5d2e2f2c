//! Outcomes of the compile -> resources for Envoys and records for DNS.

use crate::{
    base::{HostPattern, Hostname, ObjectKey},
    compile::Outcome,
    ir::{GatewayKey, ListenerKey, RecordSet, UpstreamKey, Zone},
    translate::Gateway,
    xds::{self, ResourceKey, Update, names},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// What is to be sent out, each thing once.
#[derive(Debug, Default)]
pub struct Publication {
    pub resources: Update,
    pub records: Vec<(HostPattern, Option<Arc<RecordSet>>)>,
    pub zones: Vec<ZoneChange>,
    /// Objects of which something else is to be said.
    pub reported: BTreeSet<ObjectKey>,
}

/// A zone that is there, or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneChange {
    Set(Arc<Zone>),
    Removed(Hostname),
}

impl Publication {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { resources, records, zones, reported } = self;
        resources.set.is_empty()
            && resources.removed.is_empty()
            && records.is_empty()
            && zones.is_empty()
            && reported.is_empty()
    }
}

/// Builds what changed, and remembers what an outcome alone does not tell: the
/// listeners a gateway had, the apex a zone object had.
#[derive(Default)]
pub(super) struct Emitter {
    listeners: HashMap<GatewayKey, BTreeSet<ListenerKey>>,
    /// Whose a listener is: an address may pass to another gateway before the one
    /// that had it is built anew.
    owners: BTreeMap<ListenerKey, GatewayKey>,
    addresses: BTreeSet<IpAddr>,
    verified: HashSet<UpstreamKey>,
    zones: BTreeMap<ObjectKey, Hostname>,
    changed: BTreeMap<ResourceKey, Option<xds::Resource>>,
    publication: Publication,
}

impl Emitter {
    /// Addresses that a listener of ours names.
    pub(super) fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    pub(super) fn listeners(&self, gateway: &GatewayKey) -> impl Iterator<Item = &ListenerKey> {
        self.listeners.get(gateway).into_iter().flatten()
    }

    pub(super) fn report(&mut self, objects: BTreeSet<ObjectKey>) {
        self.publication.reported.extend(objects);
    }

    pub(super) fn take(&mut self) -> Publication {
        let mut publication = std::mem::take(&mut self.publication);
        for (key, resource) in std::mem::take(&mut self.changed) {
            match resource {
                Some(resource) => publication.resources.set.push(resource),
                None => publication.resources.removed.push(key),
            }
        }
        publication
    }

    pub(super) fn emit(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Upstream(key, upstream) => self.upstream(key, upstream.as_deref()),
            Outcome::Endpoints(key, endpoints) => {
                self.put(names::endpoints(&key), endpoints.map(|endpoints| xds::build_endpoints(&endpoints)));
            }
            Outcome::Sni(name, certificate) => {
                self.put(names::secret(&name), certificate.map(|certificate| xds::build_sni(&certificate)));
            }
            Outcome::Dedicated(name, certificate) => {
                let built = certificate.map(|certificate| xds::build_dedicated(&name, &certificate));
                self.put(names::secret(&name), built);
            }
            Outcome::Gateway(key, gateway) => self.gateway(key, gateway.as_deref()),
            Outcome::Host(key, Some(outcome)) => {
                for resource in xds::build_host(&outcome.host) {
                    self.put(resource.key.clone(), Some(resource));
                }
                debug_assert_eq!(key, outcome.host.key);
            }
            Outcome::Host(key, None) => {
                self.put(names::scope(&key), None);
                self.put(names::route_table(&key), None);
            }
            Outcome::Records(host, records) => self.publication.records.push((host, records)),
            Outcome::Zone(object, zone) => self.zone(object, zone),
        }
    }

    fn put(&mut self, key: ResourceKey, resource: Option<xds::Resource>) {
        self.changed.insert(key, resource);
    }

    fn upstream(&mut self, key: UpstreamKey, upstream: Option<&crate::ir::Upstream>) {
        let (cluster, authorities) = match upstream.map(xds::build_upstream) {
            Some((cluster, authorities)) => (Some(cluster), authorities),
            None => (None, None),
        };
        self.put(names::cluster(&key), cluster);
        let had = if authorities.is_some() {
            !self.verified.insert(key.clone())
        } else {
            self.verified.remove(&key)
        };
        if authorities.is_some() || had {
            self.put(names::authorities(&key), authorities);
        }
    }

    fn gateway(&mut self, key: GatewayKey, gateway: Option<&Gateway>) {
        let listeners = gateway.map_or(&[][..], |gateway| &gateway.listeners);
        let now: BTreeSet<_> = listeners.iter().map(|listener| listener.key.clone()).collect();
        for listener in listeners {
            self.put(names::listener(&listener.key), Some(xds::build_listener(listener)));
            self.owners.insert(listener.key.clone(), key.clone());
        }
        let before = self.listeners.remove(&key).unwrap_or_default();
        for gone in before.difference(&now) {
            if self.owners.get(gone) == Some(&key) {
                self.owners.remove(gone);
                self.put(names::listener(gone), None);
            }
        }
        for ListenerKey { address, port: _ } in &before {
            let of_address = |port| ListenerKey { address: *address, port };
            if self.owners.range(of_address(0)..=of_address(u16::MAX)).next().is_none() {
                self.addresses.remove(address);
            }
        }
        self.addresses.extend(now.iter().map(|listener| listener.address));
        if !now.is_empty() {
            self.listeners.insert(key, now);
        }
    }

    fn zone(&mut self, object: ObjectKey, zone: Option<Arc<Zone>>) {
        let before = self.zones.remove(&object);
        let gone = before.filter(|apex| zone.as_ref().is_none_or(|zone| zone.apex != *apex));
        let held_by_other = |apex: &Hostname| self.zones.values().any(|other| other == apex);
        if let Some(apex) = gone.filter(|apex| !held_by_other(apex)) {
            self.publication.zones.push(ZoneChange::Removed(apex));
        }
        if let Some(zone) = zone {
            self.zones.insert(object, zone.apex.clone());
            self.publication.zones.push(ZoneChange::Set(zone));
        }
    }
}
