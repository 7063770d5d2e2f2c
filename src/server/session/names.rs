//! What an engine asked for, and which certificate answers a name.

use crate::{
    server::cache::{Cache, Entry},
    xds::{Name, ResourceKind},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The name that asks for all resources of a kind.
pub(super) const WILDCARD: &str = "*";

/// One kind's subscription on one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// A request of this kind has come.
    pub(super) started: bool,
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<Name>,
}

impl Subscription {
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

/// The resource that answers a name: its own; for an on-demand certificate (its
/// name is an SNI as the client wrote it) without regard to case, else the
/// wildcard one label up.
pub(super) fn find<'a>(cache: &'a Cache, kind: ResourceKind, name: &str) -> Option<&'a Entry> {
    cache.entry(kind, name).or_else(|| {
        let (lower, wildcard) = alternatives(kind, name)?;
        cache.entry(kind, &lower).or_else(|| cache.entry(kind, &wildcard?))
    })
}

/// The lower-cased name and the wildcard over it, where the name is an SNI.
fn alternatives(kind: ResourceKind, name: &str) -> Option<(String, Option<String>)> {
    // `chain/...`, `upstream/...` and `default/...` are names of ours, not of hosts.
    if kind != ResourceKind::Secret || name.contains('/') {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let wildcard = lower.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    Some((lower, wildcard))
}

/// On-demand names of a stream, by the certificates that may answer them, and
/// how many are answered by one that has another name.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    by_source: HashMap<Name, BTreeSet<Name>>,
    /// Names answered by a resource of another name, oldest first.
    served: BTreeMap<u64, Name>,
    place: HashMap<Name, u64>,
    next: u64,
}

impl Aliases {
    pub(super) fn add(&mut self, name: &Name) {
        for source in sources(name) {
            self.by_source.entry(source).or_default().insert(name.clone());
        }
    }

    pub(super) fn remove(&mut self, name: &Name) {
        for source in sources(name) {
            if let Some(names) = self.by_source.get_mut(&source) {
                names.remove(name);
                if names.is_empty() {
                    self.by_source.remove(&source);
                }
            }
        }
        self.own(name);
    }

    /// The names that `source` may answer, itself left out.
    pub(super) fn of(&self, source: &str) -> impl Iterator<Item = &Name> {
        self.by_source.get(source).into_iter().flatten()
    }

    /// `name` is answered by a resource of another name.
    pub(super) fn alias(&mut self, name: &Name) {
        if !self.place.contains_key(name) {
            self.place.insert(name.clone(), self.next);
            self.served.insert(self.next, name.clone());
            self.next += 1;
        }
    }

    /// `name` is answered by its own resource, or not at all.
    pub(super) fn own(&mut self, name: &Name) {
        if let Some(place) = self.place.remove(name) {
            self.served.remove(&place);
        }
    }

    pub(super) fn served(&self) -> usize {
        self.served.len()
    }

    pub(super) fn oldest(&self) -> impl Iterator<Item = &Name> {
        self.served.values()
    }
}

fn sources(name: &Name) -> impl Iterator<Item = Name> {
    let (lower, wildcard) = alternatives(ResourceKind::Secret, name).unzip();
    let lower = lower.filter(|lower| **lower != **name);
    lower.into_iter().chain(wildcard.flatten()).map(Name::from)
}
