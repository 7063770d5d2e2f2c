//! What an Envoy has asked for of one kind, and what it says of it on a new
//! stream: Envoy's `DeltaSubscriptionState`.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use std::collections::{BTreeMap, BTreeSet};
use tidegate::{
    base::Version,
    xds::{Name, ResourceKind},
};

pub(super) const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) started: bool,
    /// Asked for as a whole.
    pub(super) wildcard: bool,
    /// It once gave the whole up, and has to say `*` from then on.
    explicit: bool,
    pub(super) names: BTreeSet<Name>,
    /// Versions it accepted: what it brings to a new stream.
    pub(super) accepted: BTreeMap<Name, Version>,
    add: BTreeSet<Name>,
    drop: BTreeSet<Name>,
    /// Nothing was said on this stream yet.
    fresh: bool,
}

impl Subscription {
    pub(super) fn start(&mut self, wildcard: bool) {
        if wildcard && self.started && !self.wildcard {
            self.explicit = true;
            self.drop.remove(WILDCARD);
            self.add.insert(WILDCARD.into());
        }
        self.wildcard = wildcard;
        self.fresh |= !self.started;
        self.started = true;
    }

    /// Nobody wants the kind any more.
    pub(super) fn stop(&mut self) {
        if std::mem::take(&mut self.wildcard) {
            self.accepted.clear();
            self.add.remove(WILDCARD);
            self.drop.insert(WILDCARD.into());
        }
    }

    pub(super) fn covers(&self, name: &Name) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Exactly these names are wanted.
    pub(super) fn want(&mut self, names: BTreeSet<Name>) {
        for gone in self.names.difference(&names) {
            self.accepted.remove(gone);
            self.add.remove(gone);
            self.drop.insert(gone.clone());
        }
        for new in names.difference(&self.names) {
            self.drop.remove(new);
            self.add.insert(new.clone());
        }
        self.fresh |= !self.started && !names.is_empty();
        self.started |= !names.is_empty();
        self.names = names;
    }

    pub(super) fn connected(&mut self) {
        self.fresh = self.started;
        self.add.clear();
        self.drop.clear();
    }

    /// The first request of a stream, or news; nothing where there is none.
    pub(super) fn news(&mut self, kind: ResourceKind) -> Option<DeltaDiscoveryRequest> {
        if !self.started {
            return None;
        }
        if std::mem::take(&mut self.fresh) {
            self.add.clear();
            self.drop.clear();
            let mut names: Vec<String> = self.names.iter().map(|name| name.to_string()).collect();
            if self.wildcard && self.explicit {
                names.push(WILDCARD.to_owned());
            }
            if names.is_empty() && !self.wildcard {
                return None;
            }
            let version = |(name, version): (&Name, &Version)| (name.to_string(), version.to_string());
            return Some(DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: names,
                initial_resource_versions: self.accepted.iter().map(version).collect(),
                ..DeltaDiscoveryRequest::default()
            });
        }
        (!self.add.is_empty() || !self.drop.is_empty()).then(|| self.request(kind))
    }

    /// A request with what changed since the last.
    pub(super) fn request(&mut self, kind: ResourceKind) -> DeltaDiscoveryRequest {
        let names =
            |set: &mut BTreeSet<Name>| std::mem::take(set).into_iter().map(|name| name.to_string()).collect();
        DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names(&mut self.add),
            resource_names_unsubscribe: names(&mut self.drop),
            ..DeltaDiscoveryRequest::default()
        }
    }
}
