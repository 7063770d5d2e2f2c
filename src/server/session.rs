//! One delta ADS stream as a state machine without I/O and without a clock.
//!
//! *Takes* requests, news of the cache, and the time. *Gives* responses in the
//! order in which they must be written, and events. Envoy documentation, "xDS
//! REST and gRPC protocol", is the specification.

mod departure;
mod held;
mod ledger;
mod names;
mod order;
mod request;
mod verdict;

use super::{
    cache::{Behind, Cache, Change, Entry, What},
    frame::Response,
    relay,
};
use crate::{
    base::{ObjectKey, Text, Version},
    xds::{Name, ResourceKey, ResourceKind},
};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use held::{Has, Held, Pins};
use ledger::{Exception, Ledger, Owed};
use names::{Aliases, WILDCARD};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

pub use departure::{CONNECT_GRACE, OWN_FAILURE_RETRY, REMOVAL_GRACE};
pub use order::{ALIASED_NAMES_MAX, RESOURCES_PER_RESPONSE_MAX, RESPONSE_BYTES_MAX, ROUTE_FLIGHTS_MAX};

/// Requests kept until the first publish: an engine sends one a kind.
const DEFERRED_MAX: usize = 16;

/// What one call brought about.
#[derive(Debug, Default)]
pub struct Step {
    /// In the order in which they must reach the wire.
    pub responses: Vec<Response>,
    pub events: Vec<Event>,
}

/// What the fleet should know.
#[derive(Debug, Clone)]
pub enum Event {
    /// The engine holds these versions, which no engine held before.
    Accepted(Vec<(ResourceKey, Version)>),
    /// The engine proved this version bad.
    Refused(Refused),
    /// Everything asked for and everything changed is accepted: told again when
    /// the cache changed, though nothing of that was for this engine.
    Synced,
}

/// A proven refusal.
#[derive(Debug, Clone)]
pub struct Refused {
    pub key: ResourceKey,
    pub version: Version,
    /// Envoy's own words.
    pub message: String,
    pub origins: Arc<[ObjectKey]>,
    /// The engine's own affair (a taken port, a missing module): other engines
    /// still get it.
    pub own: bool,
}

/// Why a stream is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("the first request has no node id; set node.id in the bootstrap")]
    NoNode,
    #[error("node id '{0}' is not the engine its certificate names")]
    WrongNode(String),
    #[error("more names are asked for than a stream may hold; connect again")]
    TooMany,
    #[error("changes came faster than this stream took them; connect again")]
    Behind,
}

impl From<Behind> for Closed {
    fn from(_: Behind) -> Self {
        Self::Behind
    }
}

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    engine: Text,
    introduced: bool,
    /// The client is an engine's relay, not an Envoy.
    relay: bool,
    /// It was told that it has everything.
    told_complete: bool,
    /// Absences may be told: the cache is complete.
    whole: bool,
    deferred: Vec<DeltaDiscoveryRequest>,
    ledgers: [Ledger; ResourceKind::ALL.len()],
    aliases: Aliases,
    pins: Pins,
    /// Owed keys by the key they wait for.
    waiting: BTreeMap<ResourceKey, BTreeSet<ResourceKey>>,
    /// The number of the first change not read; `None` before the first publish.
    seen: Option<u64>,
    nonce: u64,
    subscriptions: usize,
    refusals: u64,
    sent: u64,
    synced: bool,
    /// The head of the cache of which all was accepted once.
    settled: Option<u64>,
    sweep_at: Option<Instant>,
    /// No removal before this: the client came with versions of its own.
    grace_until: Option<Instant>,
    retries: BTreeSet<(Instant, ResourceKey)>,
}

impl Session {
    /// A stream of the engine that its certificate names.
    #[must_use]
    pub fn new(engine: Text) -> Self {
        Self {
            engine,
            introduced: false,
            relay: false,
            told_complete: false,
            whole: false,
            deferred: Vec::new(),
            ledgers: Default::default(),
            aliases: Aliases::default(),
            pins: Pins::default(),
            waiting: BTreeMap::new(),
            seen: None,
            nonce: 0,
            subscriptions: 0,
            refusals: 0,
            sent: 0,
            synced: false,
            settled: None,
            sweep_at: None,
            grace_until: None,
            retries: BTreeSet::new(),
        }
    }

    pub fn on_request(
        &mut self,
        cache: &Cache,
        request: DeltaDiscoveryRequest,
        now: Instant,
    ) -> Result<Step, Closed> {
        self.introduce(&request)?;
        let mut step = Step::default();
        if !cache.ready() {
            if self.deferred.len() >= DEFERRED_MAX {
                return Err(Closed::TooMany);
            }
            self.deferred.push(request);
            return Ok(step);
        }
        self.catch_up(cache, now, &mut step)?;
        self.receive(cache, request, now, &mut step)?;
        self.flush(cache, now, &mut step);
        Ok(step)
    }

    /// The cache changed.
    pub fn on_change(&mut self, cache: &Cache, now: Instant) -> Result<Step, Closed> {
        let mut step = Step::default();
        if cache.ready() {
            self.catch_up(cache, now, &mut step)?;
            self.flush(cache, now, &mut step);
        }
        Ok(step)
    }

    /// The time of [`Session::next_wake`] has come.
    pub fn on_time(&mut self, cache: &Cache, now: Instant) -> Result<Step, Closed> {
        self.on_change(cache, now)
    }

    /// When [`Session::on_time`] wants to be called.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        let retry = self.retries.first().map(|(at, _)| *at);
        self.sweep_at.into_iter().chain(retry).min()
    }

    /// Resources not yet accepted, by kind in the order of [`ResourceKind::ALL`].
    #[must_use]
    pub fn pending(&self) -> [usize; ResourceKind::ALL.len()] {
        std::array::from_fn(|kind| self.ledgers[kind].pending())
    }

    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// Whether the engine took all it asked for as of this head of the cache, or
    /// of a later one; true for good.
    #[must_use]
    pub fn settled(&self, head: u64) -> bool {
        self.settled.is_some_and(|settled| settled >= head)
    }

    /// Proven refusals on this stream.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Resources and removals sent on this stream.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the engine holds what the cache has under this key now, or the
    /// absence of it. A certificate nobody asked for counts as held.
    #[must_use]
    pub fn in_order(&self, key: &ResourceKey) -> bool {
        let ledger = self.ledger(key.kind);
        let name = &key.name;
        if !ledger.subscription.covers(name) {
            return key.kind == ResourceKind::Secret;
        }
        let stays = matches!(ledger.exceptions.get(name), Some(Exception::Stays { .. }));
        let open = ledger.owed.contains_key(name)
            || ledger.flying.contains_key(name)
            || ledger.leaving.contains_key(name);
        !stays && !open
    }

    /// Whether the engine keeps what it came with: what the cache has would only
    /// stand in for it.
    #[must_use]
    pub fn keeps_its_own(&self, key: &ResourceKey) -> bool {
        let exception = self.ledger(key.kind).exceptions.get(&key.name);
        matches!(exception, Some(Exception::Stays { held, .. }) if held.certain())
    }

    /// Whether the engine subscribed to this.
    #[must_use]
    pub fn asked_for(&self, key: &ResourceKey) -> bool {
        self.ledger(key.kind).subscription.covers(&key.name)
    }

    /// Whether every change of the cache was read.
    #[must_use]
    pub fn up_to_date(&self, cache: &Cache) -> bool {
        self.seen_all(cache.head())
    }

    /// The same, as of a head read before.
    #[must_use]
    pub fn seen_all(&self, head: u64) -> bool {
        self.seen == Some(head)
    }

    /// What answers a name of this client: to a relay each certificate goes by its
    /// own name alone.
    fn find<'a>(&self, cache: &'a Cache, kind: ResourceKind, name: &str) -> Option<&'a Entry> {
        if self.relay { cache.entry(kind, name) } else { names::find(cache, kind, name) }
    }

    fn ledger(&self, kind: ResourceKind) -> &Ledger {
        &self.ledgers[kind as usize]
    }

    fn ledger_mut(&mut self, kind: ResourceKind) -> &mut Ledger {
        &mut self.ledgers[kind as usize]
    }

    /// Node comes with the first request only (`set_node_on_first_message_only`).
    fn introduce(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Closed> {
        if self.introduced {
            return Ok(());
        }
        let id = request.node.as_ref().map_or("", |node| node.id.as_str());
        if id.is_empty() {
            return Err(Closed::NoNode);
        }
        if *id != *self.engine {
            let shown = id.chars().filter(|c| !c.is_control()).take(100).collect();
            return Err(Closed::WrongNode(shown));
        }
        self.introduced = true;
        let features = request.node.iter().flat_map(|node| &node.client_features);
        self.relay = features.into_iter().any(|feature| feature == relay::FEATURE);
        Ok(())
    }

    fn catch_up(&mut self, cache: &Cache, now: Instant, step: &mut Step) -> Result<(), Closed> {
        let Some(seen) = self.seen.replace(cache.head()) else {
            self.whole = cache.complete();
            for request in std::mem::take(&mut self.deferred) {
                self.receive(cache, request, now, step)?;
            }
            return Ok(());
        };
        for change in cache.changes_since(seen)? {
            self.note(cache, change);
        }
        if cache.complete() && !std::mem::replace(&mut self.whole, true) {
            self.ledgers.iter_mut().for_each(Ledger::enqueue_all);
        }
        Ok(())
    }

    fn note(&mut self, cache: &Cache, change: &Change) {
        let Change { key, what } = change;
        for name in self.affected(cache, key) {
            match what {
                What::Published { was } => {
                    let was = was.as_ref().map_or_else(Held::nothing, |(version, needs)| {
                        Held::version(*version, needs.clone())
                    });
                    self.published(key, &name, was);
                }
                What::Quarantined => self.quarantined(key.kind, &name),
            }
        }
        self.wake(key);
    }

    /// The subscribed names that a change of `key` may concern.
    fn affected(&self, cache: &Cache, key: &ResourceKey) -> Vec<Name> {
        let mut names = Vec::new();
        if self.ledger(key.kind).subscription.covers(&key.name) {
            names.push(key.name.clone());
        }
        if key.kind == ResourceKind::Secret {
            // A certificate of its own hides the wildcard's changes.
            let answers = |name: &&Name| {
                self.find(cache, key.kind, name)
                    .is_none_or(|entry| entry.resource.key == *key || !key.name.starts_with(WILDCARD))
            };
            names.extend(self.aliases.of(&key.name).filter(answers).cloned());
        }
        names
    }

    fn published(&mut self, key: &ResourceKey, name: &Name, was: Held) {
        let kind = key.kind;
        let ledger = self.ledger_mut(kind);
        if let Some(owed) = ledger.owed.get_mut(name) {
            (owed.suspect, owed.released) = (false, false);
            ledger.enqueue(name);
            return;
        }
        if let Some(leaving) = ledger.leaving.remove(name) {
            return self.owe_counted(kind, name, leaving.held, false);
        }
        if let Some(Exception::Stays { held, .. }) = ledger.exceptions.remove(name) {
            return self.owe_counted(kind, name, held, false);
        }
        let mut held = was;
        if let Some(flying) = ledger.flying.get(name) {
            // What it may have by now besides what it had is what is under way.
            let sent = flying.sent.as_ref().map(|sent| sent.needs.clone());
            held = Held { has: flying.held.has, needs: sent.into_iter().collect(), blind: false };
        } else if *name != key.name {
            // What answered an alias until now may be another certificate.
            held.has = Has::Perhaps;
        }
        self.owe(kind, name, held, false);
    }

    fn quarantined(&mut self, kind: ResourceKind, name: &Name) {
        let ledger = self.ledger_mut(kind);
        if ledger.owed.contains_key(name) {
            ledger.enqueue(name);
        } else if !ledger.flying.contains_key(name) {
            match ledger.exceptions.insert(name.clone(), Exception::Taken) {
                Some(Exception::Stays { held, .. }) => {
                    ledger.exceptions.remove(name);
                    self.owe_counted(kind, name, held, false);
                }
                Some(Exception::Taken) | None => {}
            }
        }
    }

    /// Puts a name among the owed, or adds that it was asked for.
    fn owe(&mut self, kind: ResourceKind, name: &Name, held: Held, asked: bool) {
        if !self.ledger(kind).owed.contains_key(name) {
            self.pins.add(kind, name, &held);
        }
        self.owe_counted(kind, name, held, asked);
    }

    /// The same, for a value whose needs are pinned already. An owed name keeps
    /// its own.
    fn owe_counted(&mut self, kind: ResourceKind, name: &Name, held: Held, asked: bool) {
        self.synced = false;
        let ledger = self.ledger_mut(kind);
        let fresh = || Owed { held, asked: false, queued: false, suspect: false, released: false };
        let owed = ledger.owed.entry(name.clone()).or_insert_with(fresh);
        owed.asked |= asked;
        ledger.enqueue(name);
    }

    /// Looks again at what waits for anything of a kind: it is asked for from now on.
    fn wake_all(&mut self, kind: ResourceKind) {
        let keys: Vec<_> = self.waiting.keys().filter(|key| key.kind == kind).cloned().collect();
        keys.iter().for_each(|key| self.wake(key));
    }

    /// Looks again at what waits for `key`.
    fn wake(&mut self, key: &ResourceKey) {
        for waiter in self.waiting.remove(key).into_iter().flatten() {
            self.ledger_mut(waiter.kind).enqueue(&waiter.name);
        }
    }
}
