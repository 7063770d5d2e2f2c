//! The resources of one fleet: what is published, what engines refused, and a
//! bounded log of which names changed.

use super::refusal;
use crate::{
    base::{Text, Version},
    xds::{Name, Resource, ResourceKey, ResourceKind, Update},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// Changes a stream may lag behind before it is closed and compares versions
/// anew: 65,536 x about 100 bytes. The newest update is always kept whole.
const LOG_CHANGES_MAX: usize = 65_536;

/// Ticks (of a second) after which a good version no longer waits for engines
/// that do not answer: what only its predecessor needed may then go.
const SETTLE_TICKS_MAX: u8 = 60;

/// What a resource needs, as names.
pub type Needs = Arc<[ResourceKey]>;

/// The resources of one fleet.
#[derive(Debug, Default)]
pub struct Cache {
    /// Kinds of which something was said: of any other, not even "there is none" is known.
    told: [bool; ResourceKind::ALL.len()],
    /// What is not here does not exist.
    complete: bool,
    /// In the order of names; entries apart, since half of a tree's places are empty.
    tables: [BTreeMap<Name, Box<Entry>>; ResourceKind::ALL.len()],
    /// Keys whose entry has a prior version: see [`Cache::tick`].
    unsettled: BTreeSet<ResourceKey>,
    /// How many prior versions need a key, directly or not.
    pinned: HashMap<ResourceKey, usize>,
    log: VecDeque<Change>,
    /// The number of the change after the newest.
    head: u64,
    restored: BTreeMap<ResourceKey, LastGood>,
}

/// One resource: its newest version, and the one before while it may be needed.
#[derive(Debug)]
pub struct Entry {
    pub resource: Resource,
    /// Some engine has accepted this version.
    pub good: bool,
    /// The last version some engine accepted, until the newest has settled.
    prior: Option<Box<Prior>>,
    /// Engines that proved the newest version bad. `Some` makes it a version
    /// that engines keep if they have it, and do not get if they have not.
    refused_by: Option<BTreeSet<Text>>,
    /// No longer published, kept because a prior version needs it.
    withdrawn: bool,
    ticks: u8,
}

#[derive(Debug)]
struct Prior {
    resource: Resource,
    pins: Vec<ResourceKey>,
}

impl Entry {
    fn new(resource: Resource) -> Self {
        Self { resource, good: false, prior: None, refused_by: None, withdrawn: false, ticks: 0 }
    }

    #[must_use]
    pub fn quarantined(&self) -> bool {
        self.refused_by.is_some()
    }

    /// No longer published: kept for what still needs it.
    #[must_use]
    pub fn withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// The last version an engine accepted, or our 503 in its place.
    #[must_use]
    pub fn last_good(&self) -> Option<&Resource> {
        self.prior.as_ref().map(|prior| &prior.resource)
    }
}

/// A name whose resource changed.
#[derive(Debug, Clone)]
pub struct Change {
    pub key: ResourceKey,
    pub what: What,
}

/// How it changed.
#[derive(Debug, Clone)]
pub enum What {
    /// Another version, or none, is published. `was`: the version before.
    Published { was: Option<(Version, Needs)> },
    /// The published version was refused by an engine.
    Quarantined,
}

/// A refused version with what is served instead, to survive a restart.
#[derive(Debug, Clone)]
pub struct LastGood {
    pub rejected: Version,
    pub good: Resource,
    /// Resources that only `good` still needs.
    pub supports: Vec<Resource>,
}

/// The log no longer reaches back to where a stream stopped reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind;

impl Cache {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the first full state is here: only then is an absence told.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Whether a subscription to all of this kind may be answered.
    #[must_use]
    pub fn told(&self, kind: ResourceKind) -> bool {
        self.told[kind as usize]
    }

    /// Whether there is anything to answer with: before that, requests wait.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.complete || self.told.contains(&true)
    }

    #[must_use]
    pub fn entry(&self, kind: ResourceKind, name: &str) -> Option<&Entry> {
        self.tables[kind as usize].get(name).map(|entry| &**entry)
    }

    #[must_use]
    pub fn contains(&self, key: &ResourceKey) -> bool {
        self.tables[key.kind as usize].contains_key(&key.name)
    }

    /// Whether a key is no longer published, and kept for what still needs it.
    #[must_use]
    pub fn withdrawn(&self, key: &ResourceKey) -> bool {
        self.entry(key.kind, &key.name).is_some_and(Entry::withdrawn)
    }

    pub fn entries(&self, kind: ResourceKind) -> impl Iterator<Item = (&Name, &Entry)> {
        self.tables[kind as usize].iter().map(|(name, entry)| (name, &**entry))
    }

    /// The number of the next change; epochs are compared, never counted.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The changes numbered `seen` and up.
    pub fn changes_since(&self, seen: u64) -> Result<impl Iterator<Item = &Change>, Behind> {
        let lag = usize::try_from(self.head - seen).map_err(|_| Behind)?;
        let start = self.log.len().checked_sub(lag).ok_or(Behind)?;
        Ok(self.log.range(start..))
    }

    /// Publishes what changed, at a cost of what changed; the first time makes
    /// the cache complete. Equal versions are no change. Returns the epoch.
    pub fn apply(&mut self, update: Update) -> u64 {
        self.merge(update);
        self.finish()
    }

    /// Publishes some of a state that comes in parts: `kind` is answered from now on.
    pub fn apply_part(&mut self, kind: ResourceKind, update: Update) -> u64 {
        self.merge(update);
        self.told[kind as usize] = true;
        self.head
    }

    /// All parts have come.
    pub fn finish(&mut self) -> u64 {
        self.complete = true;
        self.told = [true; ResourceKind::ALL.len()];
        self.head
    }

    fn merge(&mut self, update: Update) {
        let Update { set, removed } = update;
        self.trim();
        let mut came_back = Vec::new();
        for resource in set {
            came_back.extend(self.set(resource));
        }
        for key in came_back {
            self.quarantine_restored(&key);
        }
        for key in removed {
            self.remove(&key);
        }
    }

    /// An engine accepted this version.
    pub fn acked(&mut self, key: &ResourceKey, version: Version) {
        if let Some(entry) = self.tables[key.kind as usize].get_mut(&key.name)
            && entry.resource.version == version
        {
            entry.good = true;
        }
    }

    /// An engine proved this version bad. False where it is no longer the
    /// published one: the newer one is tried anew.
    pub fn quarantine(&mut self, key: &ResourceKey, version: Version, engine: Text) -> bool {
        let Some(entry) = self.tables[key.kind as usize].get_mut(&key.name) else { return false };
        if entry.resource.version != version {
            return false;
        }
        let first = entry.refused_by.is_none();
        entry.refused_by.get_or_insert_default().insert(engine);
        if first {
            if entry.prior.is_none() && key.kind == ResourceKind::Route {
                let resource = refusal::unavailable(&key.name);
                entry.prior = Some(Box::new(Prior { resource, pins: Vec::new() }));
            }
            self.note(Change { key: key.clone(), what: What::Quarantined });
        }
        true
    }

    /// Once a second: lets go of prior versions whose successor every engine
    /// holds, and of what only those needed.
    pub fn tick(&mut self, held_by_all: impl Fn(&ResourceKey) -> bool) {
        let mut settled = Vec::new();
        for key in &self.unsettled {
            let Some(entry) = self.tables[key.kind as usize].get_mut(&key.name) else { continue };
            entry.ticks = entry.ticks.saturating_add(1);
            let waited = entry.ticks >= SETTLE_TICKS_MAX;
            if entry.good && !entry.quarantined() && (waited || held_by_all(key)) {
                settled.push(key.clone());
            }
        }
        if !settled.is_empty() {
            self.trim();
        }
        for key in settled {
            self.drop_prior(&key);
        }
    }

    /// What is refused now, with what is served instead. Secrets are left out:
    /// private keys are not written down.
    pub fn last_good(&self) -> impl Iterator<Item = LastGood> {
        let known = self.unsettled.iter().filter_map(|key| self.entry(key.kind, &key.name));
        known.filter(|entry| entry.quarantined()).filter_map(|entry| {
            let Prior { resource, pins } = entry.prior.as_deref()?;
            let supports = pins.iter().filter(|key| key.kind != ResourceKind::Secret);
            let supports = supports.filter_map(|key| self.entry(key.kind, &key.name));
            (resource.key.kind != ResourceKind::Secret).then(|| LastGood {
                rejected: entry.resource.version,
                good: resource.clone(),
                supports: supports.filter(|e| e.withdrawn).map(|e| e.resource.clone()).collect(),
            })
        })
    }

    /// Remembers what [`Cache::last_good`] gave before a restart: takes effect
    /// when the refused version is published again. Before the first `apply`.
    pub fn restore(&mut self, known: impl IntoIterator<Item = LastGood>) {
        self.restored.extend(known.into_iter().map(|known| (known.good.key.clone(), known)));
    }

    /// Who refused the published version of a key.
    #[must_use]
    pub fn refused_by(&self, key: &ResourceKey) -> Option<&BTreeSet<Text>> {
        self.entry(key.kind, &key.name)?.refused_by.as_ref()
    }

    /// Returns the key where a verdict from before the restart waits for it.
    fn set(&mut self, resource: Resource) -> Option<ResourceKey> {
        let key = resource.key.clone();
        let verdict = self.restored.remove(&key).filter(|known| known.rejected == resource.version);
        let table = &mut self.tables[key.kind as usize];
        let Some(entry) = table.get_mut(&key.name) else {
            table.insert(key.name.clone(), Box::new(Entry::new(resource)));
            self.note(Change { key: key.clone(), what: What::Published { was: None } });
            let known = verdict?;
            self.restored.insert(key.clone(), known);
            return Some(key);
        };
        if entry.withdrawn && entry.resource.version == resource.version {
            entry.withdrawn = false;
            return None;
        }
        if entry.resource.version == resource.version {
            return None;
        }
        entry.withdrawn = false;
        entry.ticks = 0;
        let refused = entry.refused_by.take().is_some();
        let old = std::mem::replace(&mut entry.resource, resource);
        let back_to_prior = entry.last_good().is_some_and(|prior| prior.version == entry.resource.version);
        let was_good = std::mem::replace(&mut entry.good, back_to_prior);
        let was = Some((old.version, old.needs.clone()));
        if was_good && !refused {
            self.drop_prior(&key);
            self.keep_prior(&key, old);
        }
        self.note(Change { key, what: What::Published { was } });
        None
    }

    fn remove(&mut self, key: &ResourceKey) {
        let table = &mut self.tables[key.kind as usize];
        let Some(entry) = table.get_mut(&key.name) else { return };
        if self.pinned.contains_key(key) {
            entry.withdrawn = true;
            return;
        }
        let was = Some((entry.resource.version, entry.resource.needs.clone()));
        self.drop_prior(key);
        self.tables[key.kind as usize].remove(&key.name);
        self.note(Change { key: key.clone(), what: What::Published { was } });
    }

    fn keep_prior(&mut self, key: &ResourceKey, resource: Resource) {
        let pins = self.closure(&resource);
        for pin in &pins {
            *self.pinned.entry(pin.clone()).or_default() += 1;
        }
        if let Some(entry) = self.tables[key.kind as usize].get_mut(&key.name) {
            entry.prior = Some(Box::new(Prior { resource, pins }));
            self.unsettled.insert(key.clone());
        }
    }

    fn drop_prior(&mut self, key: &ResourceKey) {
        self.unsettled.remove(key);
        let entry = self.tables[key.kind as usize].get_mut(&key.name);
        let Some(prior) = entry.and_then(|entry| entry.prior.take()) else { return };
        for pin in prior.pins {
            let Some(count) = self.pinned.get_mut(&pin) else { continue };
            *count -= 1;
            if *count == 0 {
                self.pinned.remove(&pin);
                if self.entry(pin.kind, &pin.name).is_some_and(|entry| entry.withdrawn) {
                    self.remove(&pin);
                }
            }
        }
    }

    /// All that a version needs, and what that needs.
    fn closure(&self, resource: &Resource) -> Vec<ResourceKey> {
        let mut open: Vec<ResourceKey> = needs_of(resource).collect();
        let mut all = BTreeSet::new();
        while let Some(key) = open.pop() {
            if all.insert(key.clone())
                && let Some(entry) = self.entry(key.kind, &key.name)
            {
                open.extend(needs_of(&entry.resource));
            }
        }
        all.remove(&resource.key);
        all.into_iter().collect()
    }

    fn quarantine_restored(&mut self, key: &ResourceKey) {
        let Some(LastGood { rejected, good, supports }) = self.restored.remove(key) else { return };
        for support in supports {
            let table = &mut self.tables[support.key.kind as usize];
            if !table.contains_key(&support.key.name) {
                let key = support.key.clone();
                let entry = Entry { withdrawn: true, good: true, ..Entry::new(support) };
                table.insert(key.name.clone(), Box::new(entry));
                self.note(Change { key, what: What::Published { was: None } });
            }
        }
        self.keep_prior(key, good);
        self.quarantine(key, rejected, "before the restart".into());
    }

    fn note(&mut self, change: Change) {
        self.head += 1;
        // No stream reads before the first update, and then each begins after it.
        if self.ready() {
            self.log.push_back(change);
        }
    }

    /// Before an update, so that the newest is always whole.
    fn trim(&mut self) {
        let excess = self.log.len().saturating_sub(LOG_CHANGES_MAX);
        self.log.drain(..excess);
        self.log.shrink_to(LOG_CHANGES_MAX);
    }
}

/// What a version needs, and the endpoints of a cluster: they bear its name.
pub(super) fn needs_of(resource: &Resource) -> impl Iterator<Item = ResourceKey> + '_ {
    let Resource { key, needs, .. } = resource;
    let endpoints = (key.kind == ResourceKind::Cluster)
        .then(|| ResourceKey { kind: ResourceKind::Endpoints, name: key.name.clone() });
    needs.iter().cloned().chain(endpoints)
}
