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
mod verdict;

use super::{
    cache::{Behind, Cache, Change, What},
    frame::{Response, parse_nonce},
};
use crate::{
    base::{ObjectKey, Text, Version},
    xds::{Name, ResourceKey, ResourceKind},
};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use held::{Has, Held, Pins};
use ledger::{Exception, Ledger, Owed};
use names::{Aliases, WILDCARD, find};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

pub use departure::{CONNECT_GRACE, OWN_FAILURE_RETRY, REMOVAL_GRACE};
pub use order::{ALIASED_NAMES_MAX, RESOURCES_PER_RESPONSE_MAX, RESPONSE_BYTES_MAX, ROUTE_FLIGHTS_MAX};

/// Names one stream may ask for, over all kinds: 10,000 hosts need about 40,000.
const SUBSCRIPTIONS_MAX: usize = 400_000;
/// Longest name we keep: an SNI has at most 253 bytes, our own names fewer than this.
const NAME_BYTES_MAX: usize = 1_024;
/// Requests kept until the first publish: an engine sends one a kind.
const DEFERRED_MAX: usize = 64;

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
    /// Everything asked for and everything changed is accepted.
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
        Ok(())
    }

    fn catch_up(&mut self, cache: &Cache, now: Instant, step: &mut Step) -> Result<(), Closed> {
        let Some(seen) = self.seen.replace(cache.head()) else {
            for request in std::mem::take(&mut self.deferred) {
                self.receive(cache, request, now, step)?;
            }
            return Ok(());
        };
        for change in cache.changes_since(seen)? {
            self.note(cache, change);
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
                find(cache, key.kind, name)
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

    /// Looks again at what waits for `key`.
    fn wake(&mut self, key: &ResourceKey) {
        for waiter in self.waiting.remove(key).into_iter().flatten() {
            self.ledger_mut(waiter.kind).enqueue(&waiter.name);
        }
    }

    fn receive(
        &mut self,
        cache: &Cache,
        request: DeltaDiscoveryRequest,
        now: Instant,
        step: &mut Step,
    ) -> Result<(), Closed> {
        let DeltaDiscoveryRequest {
            node: _,
            type_url,
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            resource_locators_subscribe: _,
            resource_locators_unsubscribe: _,
            initial_resource_versions: initial,
            response_nonce,
            error_detail,
            ..
        } = request;
        let Some(kind) = ResourceKind::from_type_url(&type_url) else {
            self.answer_unknown(&type_url, subscribe, &response_nonce, step);
            return Ok(());
        };
        // A stale nonce rejects nothing: what it subscribes to still counts.
        if let Some(flight) = parse_nonce(&response_nonce).and_then(|n| self.ledger_mut(kind).land(n)) {
            match error_detail {
                None => self.accept(cache, kind, flight, step),
                Some(error) => self.refuse(cache, kind, flight, &error.message, now, step),
            }
        }
        let first = !std::mem::replace(&mut self.ledger_mut(kind).subscription.started, true);
        if first && !initial.is_empty() {
            self.grace_until = Some(now + CONNECT_GRACE);
        }
        self.unsubscribe(cache, kind, &unsubscribe);
        let reported = if first { initial } else { HashMap::new() };
        let everything = first && subscribe.is_empty() && asks_for_all(kind);
        if everything || subscribe.iter().any(|name| name == WILDCARD) {
            self.subscribe_all(cache, kind, &reported, step);
        }
        let names = subscribe.into_iter().filter(|name| name != WILDCARD);
        self.subscribe(cache, kind, names, &reported, step)
    }

    /// Kinds we do not send: every name is answered, because Envoy's start waits
    /// for names it asked for (trap 52: RTDS).
    fn answer_unknown(&mut self, type_url: &str, names: Vec<String>, nonce: &str, step: &mut Step) {
        if nonce.is_empty() || !names.is_empty() {
            self.nonce += 1;
            step.responses.push(Response {
                type_url: type_url.into(),
                nonce: self.nonce,
                resources: Vec::new(),
                removed: names.into_iter().map(Name::from).collect(),
            });
        }
    }

    fn unsubscribe(&mut self, cache: &Cache, kind: ResourceKind, names: &[String]) {
        for name in names {
            if name == WILDCARD {
                self.unsubscribe_all(kind);
                continue;
            }
            let ledger = self.ledger_mut(kind);
            // Names never subscribed are passed over in silence.
            let Some(name) = ledger.subscription.names.take(name.as_str()) else { continue };
            let wildcard = ledger.subscription.wildcard;
            self.subscriptions -= 1;
            if kind == ResourceKind::Secret {
                self.aliases.remove(&name);
            }
            if wildcard {
                // The client cannot know whether it still gets it through `*`:
                // it must be told (specification, "one exception").
                self.ask(cache, kind, &name, true);
            } else {
                self.forget(kind, &name);
            }
        }
    }

    fn unsubscribe_all(&mut self, kind: ResourceKind) {
        let ledger = self.ledger_mut(kind);
        ledger.subscription.wildcard = false;
        let mut names: BTreeSet<Name> = ledger.owed.keys().chain(ledger.leaving.keys()).cloned().collect();
        names.extend(ledger.exceptions.keys().cloned());
        for name in names {
            if !self.ledger(kind).subscription.covers(&name) {
                self.forget(kind, &name);
            }
        }
    }

    /// Drops what is known of a name the engine let go.
    fn forget(&mut self, kind: ResourceKind, name: &Name) {
        let ledger = self.ledger_mut(kind);
        let owed = ledger.owed.remove(name).map(|owed| owed.held);
        let leaving = ledger.leaving.remove(name).map(|leaving| leaving.held);
        let stays = match ledger.exceptions.remove(name) {
            Some(Exception::Stays { held, .. }) => Some(held),
            Some(Exception::Taken) | None => None,
        };
        for held in owed.into_iter().chain(leaving).chain(stays) {
            self.pins.release(kind, name, &held);
        }
        self.wake(&ResourceKey { kind, name: name.clone() });
    }

    fn subscribe_all(
        &mut self,
        cache: &Cache,
        kind: ResourceKind,
        reported: &HashMap<String, String>,
        step: &mut Step,
    ) {
        let ledger = self.ledger_mut(kind);
        if std::mem::replace(&mut ledger.subscription.wildcard, true) {
            return;
        }
        ledger.answer_due = reported.is_empty();
        self.synced = false;
        let mut accepted = Vec::new();
        for (name, _) in cache.entries(kind) {
            match reported.get(&**name) {
                Some(version) => self.greet(cache, kind, name, version, &mut accepted),
                None => self.owe(kind, name, Held::nothing(), false),
            }
        }
        // What vanished while the engine was away.
        for name in reported.keys().filter(|name| cache.entry(kind, name).is_none()) {
            self.owe(kind, &Name::from(name.as_str()), Held::unknown(), false);
        }
        if !accepted.is_empty() {
            step.events.push(Event::Accepted(accepted));
        }
    }

    fn subscribe(
        &mut self,
        cache: &Cache,
        kind: ResourceKind,
        names: impl Iterator<Item = String>,
        reported: &HashMap<String, String>,
        step: &mut Step,
    ) -> Result<(), Closed> {
        let mut accepted = Vec::new();
        for text in names {
            if text.len() > NAME_BYTES_MAX || self.subscriptions >= SUBSCRIPTIONS_MAX {
                return Err(Closed::TooMany);
            }
            // Names are shared with the cache where it has them.
            let known = cache.entry(kind, &text).map(|entry| entry.resource.key.name.clone());
            let name = known.unwrap_or_else(|| text.as_str().into());
            let subscription = &mut self.ledger_mut(kind).subscription;
            let again = subscription.covers(&name);
            if subscription.names.insert(name.clone()) {
                self.subscriptions += 1;
                if kind == ResourceKind::Secret {
                    self.aliases.add(&name);
                }
            }
            match reported.get(&text) {
                Some(version) => self.greet(cache, kind, &name, version, &mut accepted),
                None if again => self.ask(cache, kind, &name, true),
                None => self.owe(kind, &name, Held::nothing(), true),
            }
        }
        if !accepted.is_empty() {
            step.events.push(Event::Accepted(accepted));
        }
        Ok(())
    }

    /// A name is to be answered. One that is in order is sent again: the engine
    /// may have dropped it (Envoy #22418).
    fn ask(&mut self, cache: &Cache, kind: ResourceKind, name: &Name, asked: bool) {
        let ledger = self.ledger_mut(kind);
        if let Some(leaving) = ledger.leaving.remove(name) {
            return self.owe_counted(kind, name, leaving.held, asked);
        }
        match ledger.exceptions.remove(name) {
            Some(Exception::Stays { held, .. }) => return self.owe_counted(kind, name, held, asked),
            Some(Exception::Taken) => {
                ledger.exceptions.insert(name.clone(), Exception::Taken);
            }
            None => {}
        }
        let held = find(cache, kind, name).map_or_else(Held::nothing, |entry| Held {
            has: Has::Perhaps,
            needs: vec![entry.resource.needs.clone()],
            blind: false,
        });
        self.owe(kind, name, held, asked);
    }

    /// A name is subscribed to by an engine that has this version of it.
    fn greet(
        &mut self,
        cache: &Cache,
        kind: ResourceKind,
        name: &Name,
        reported: &str,
        accepted: &mut Vec<(ResourceKey, Version)>,
    ) {
        let entry = find(cache, kind, name);
        let Some(entry) = entry else { return self.owe(kind, name, Held::unknown(), false) };
        let version = Version::parse(reported);
        let resource = &entry.resource;
        if entry.resource.key.name != *name {
            self.aliases.alias(name);
        }
        if version == Some(resource.version) {
            if entry.quarantined() {
                self.ledger_mut(kind).exceptions.insert(name.clone(), Exception::Taken);
            } else if !entry.good {
                accepted.push((resource.key.clone(), resource.version));
            }
            return;
        }
        let prior = entry.last_good().filter(|prior| Some(prior.version) == version);
        let held = prior.map_or_else(Held::unknown, |p| Held::version(p.version, p.needs.clone()));
        self.owe(kind, name, held, false);
    }
}

/// Kinds where a first request without names means all of them.
fn asks_for_all(kind: ResourceKind) -> bool {
    match kind {
        ResourceKind::Cluster | ResourceKind::Listener | ResourceKind::ScopedRoute => true,
        ResourceKind::Endpoints | ResourceKind::Secret | ResourceKind::Route => false,
    }
}
