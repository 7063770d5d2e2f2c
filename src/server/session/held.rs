//! What an engine has of a resource that is not as it should be, and what that needs.

use crate::{
    base::Version,
    server::cache::Needs,
    xds::{Name, ResourceKey, ResourceKind},
};
use std::collections::HashMap;

/// What the engine has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    Nothing,
    /// Something was sent and refused together with others: it may hold it or not.
    Perhaps,
    /// Some version, certainly.
    Some,
    /// This version.
    This(Version),
}

/// The same, with the needs of every version it may be.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) has: Has,
    pub(super) needs: Vec<Needs>,
    /// It may need anything: a version we no longer know.
    pub(super) blind: bool,
}

impl Held {
    pub(super) fn nothing() -> Self {
        Self { has: Has::Nothing, needs: Vec::new(), blind: false }
    }

    pub(super) fn version(version: Version, needs: Needs) -> Self {
        Self { has: Has::This(version), needs: vec![needs], blind: false }
    }

    /// A version only the engine knows.
    pub(super) fn unknown() -> Self {
        Self { has: Has::Some, needs: Vec::new(), blind: true }
    }

    /// What was there may be gone.
    pub(super) fn doubt(&mut self) {
        if self.certain() {
            self.has = Has::Perhaps;
        }
    }

    /// Whether some version is there for certain.
    pub(super) fn certain(&self) -> bool {
        matches!(self.has, Has::Some | Has::This(_))
    }
}

/// How many held values need a key: what is needed is not removed.
#[derive(Debug, Default)]
pub(super) struct Pins {
    counts: HashMap<ResourceKey, usize>,
    /// Values whose needs are not known, by kind.
    blind: [usize; ResourceKind::ALL.len()],
}

impl Pins {
    pub(super) fn add(&mut self, kind: ResourceKind, name: &Name, held: &Held) {
        for key in pinned_by(kind, name, held) {
            *self.counts.entry(key).or_default() += 1;
        }
        self.blind[kind as usize] += usize::from(held.blind);
    }

    pub(super) fn release(&mut self, kind: ResourceKind, name: &Name, held: &Held) {
        for key in pinned_by(kind, name, held) {
            let count = self.counts.get_mut(&key).expect("what is released was added");
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        self.blind[kind as usize] -= usize::from(held.blind);
    }

    /// Whether nothing the engine may hold needs this.
    pub(super) fn free(&self, key: &ResourceKey) -> bool {
        let seen = users(key.kind).iter().all(|user| self.blind[*user as usize] == 0);
        seen && !self.counts.contains_key(key)
    }
}

/// The kinds that may refer to one of this kind.
fn users(kind: ResourceKind) -> &'static [ResourceKind] {
    match kind {
        ResourceKind::Cluster => &[ResourceKind::Listener, ResourceKind::Route],
        ResourceKind::Endpoints => &[ResourceKind::Cluster],
        ResourceKind::Secret => &[ResourceKind::Cluster, ResourceKind::Listener],
        ResourceKind::Listener | ResourceKind::ScopedRoute => &[],
        ResourceKind::Route => &[ResourceKind::Listener, ResourceKind::ScopedRoute],
    }
}

fn pinned_by(kind: ResourceKind, name: &Name, held: &Held) -> impl Iterator<Item = ResourceKey> {
    // The endpoints of a cluster bear its name; Envoy ignores their removal
    // while the cluster is there (envoy #20523).
    let endpoints = (kind == ResourceKind::Cluster && held.has != Has::Nothing)
        .then(|| ResourceKey { kind: ResourceKind::Endpoints, name: name.clone() });
    held.needs.iter().flat_map(|needs| needs.iter().cloned()).chain(endpoints)
}
