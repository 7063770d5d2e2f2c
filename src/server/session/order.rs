//! What is sent when: kinds in order, needs before what needs them, and never
//! more than the client can take.

use super::{
    Event, Session, Step,
    held::Has,
    ledger::{Exception, Flight, Flying, Owed, Sent},
    request::asks_for_all,
};
use crate::{
    planted::{self, Bug},
    server::{
        cache::{Cache, Entry},
        frame::{Item, Response},
        refusal, relay,
    },
    xds::{Name, Resource, ResourceKey, ResourceKind},
};
use bytes::Bytes;
use std::time::Instant;

/// Bytes of resources in one response, unless one resource alone is larger.
pub const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Resources in one response.
pub const RESOURCES_PER_RESPONSE_MAX: usize = 500;
/// First-time routes in one response: a refusal is bisected, in 7 steps.
const FIRST_ROUTES_PER_RESPONSE_MAX: usize = 100;
/// Unanswered responses of routes: each edit travels alone so that a refusal has
/// one culprit, and answers name their response by its nonce, so a few may be
/// under way together. All other kinds: one. A relay names every culprit: to it
/// edits travel together.
pub const ROUTE_FLIGHTS_MAX: usize = 8;
/// Names one stream may be answered by a certificate of another name: Envoy 1.40
/// keeps each, 24 KB, and a client may ask for any name under a wildcard.
pub const ALIASED_NAMES_MAX: usize = 1_000;

/// What becomes of an owed name.
enum Verdict {
    Send(Resource),
    /// Its absence is said now.
    Remove,
    /// Its absence is said when nothing needs it.
    Leave,
    /// Held back until this is held.
    Wait(ResourceKey),
    /// Not known yet: looked at again when it comes, or when all has come.
    Unknown,
    /// The engine keeps what it has.
    Stay,
    /// The engine has it already.
    InOrder,
}

#[derive(Default)]
struct Batch {
    resources: Vec<(Name, Resource)>,
    removed: Vec<Name>,
    bytes: usize,
    /// Its routes are edits (alone) or first ones (together).
    edit: bool,
    /// It is not to be parted: see [`Session::gather`].
    whole: bool,
    /// A removal was the first in it.
    removal_first: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    fn full(&self, kind: ResourceKind) -> bool {
        if self.whole {
            return false;
        }
        let count = self.resources.len() + self.removed.len();
        let limit = match kind {
            ResourceKind::Route if self.edit => 1,
            ResourceKind::Route => FIRST_ROUTES_PER_RESPONSE_MAX,
            _ => RESOURCES_PER_RESPONSE_MAX,
        };
        count >= limit || self.bytes >= RESPONSE_BYTES_MAX
    }
}

impl Session {
    /// Sends what may be sent now.
    pub(super) fn flush(&mut self, cache: &Cache, now: Instant, step: &mut Step) {
        self.sweep(now);
        for kind in ResourceKind::ALL {
            let flights = if kind == ResourceKind::Route { ROUTE_FLIGHTS_MAX } else { 1 };
            while self.ledger(kind).flights.len() < flights {
                if self.ledger(kind).answer_due && !cache.told(kind) {
                    break;
                }
                let mut batch = self.gather(cache, kind, now);
                self.part(kind, &mut batch);
                let ledger = self.ledger_mut(kind);
                let bare = ledger.answer_due && ledger.owed.is_empty();
                if batch.is_empty() && !bare {
                    break;
                }
                ledger.answer_due = false;
                let response = self.send(cache, kind, batch);
                step.responses.push(response);
            }
        }
        self.sweep(now);
        let pending: usize = self.pending().iter().sum();
        let asked = self.ledgers.iter().any(|ledger| ledger.subscription.started);
        let flights: usize = self.ledgers.iter().map(|ledger| ledger.flights.len()).sum();
        if asked && pending == 0 && flights == 0 {
            let known = std::mem::replace(&mut self.synced, true);
            if !known || self.settled != self.seen {
                self.settled = self.seen;
                step.events.push(Event::Synced);
            }
        }
        // What is owed yet waits for what an Envoy refused: it may wait for ever.
        let settled = self.all_asked() && flights == 0;
        if self.relay && settled && !std::mem::replace(&mut self.told_complete, true) {
            self.nonce += 1;
            step.responses.push(relay::complete(self.nonce));
        }
    }

    /// Whether the client has asked for every kind.
    pub(super) fn all_asked(&self) -> bool {
        self.ledgers.iter().all(|ledger| ledger.subscription.started)
    }

    /// A starting Envoy opens its listeners when the tables of the first scopes it
    /// was told of are there: told of some, it would answer 404 for the others.
    fn gather(&mut self, cache: &Cache, kind: ResourceKind, now: Instant) -> Batch {
        let whole = kind == ResourceKind::ScopedRoute && self.ledger(kind).answer_due;
        let mut batch = Batch { whole, ..Batch::default() };
        while let Some(group) = self.ledger_mut(kind).suspects.pop_front() {
            for name in group {
                let owed = self.ledger_mut(kind).owed.get_mut(&name);
                if owed.is_some_and(|owed| std::mem::take(&mut owed.suspect)) {
                    self.consider(cache, kind, &name, now, &mut batch);
                }
            }
            if !batch.is_empty() {
                return batch;
            }
        }
        let by_itself = kind == ResourceKind::Route && !self.relay;
        while !batch.full(kind) {
            let Some(name) = self.ledger_mut(kind).queue.pop_front() else { break };
            let ledger = self.ledger_mut(kind);
            let Some(owed) = ledger.owed.get_mut(&name) else { continue };
            if !std::mem::take(&mut owed.queued) || ledger.flying.contains_key(&name) {
                continue;
            }
            let edit = by_itself && owed.held.has != Has::Nothing;
            if edit && !batch.is_empty() {
                owed.queued = true;
                ledger.queue.push_front(name);
                break;
            }
            self.consider(cache, kind, &name, now, &mut batch);
            batch.edit = edit && !batch.is_empty();
        }
        batch
    }

    /// Of a response that it refuses Envoy does the removals, and on a new stream
    /// tells of it as if it had not: so removals go by themselves. What was first
    /// goes first, lest the others never go.
    fn part(&mut self, kind: ResourceKind, batch: &mut Batch) {
        if !asks_for_all(kind) || batch.resources.is_empty() {
            return;
        }
        let put_off = if batch.removal_first {
            std::mem::take(&mut batch.resources).into_iter().map(|(name, _)| name).collect()
        } else {
            std::mem::take(&mut batch.removed)
        };
        put_off.iter().for_each(|name| self.ledger_mut(kind).enqueue(name));
    }

    /// Does with one owed name what is to be done.
    fn consider(&mut self, cache: &Cache, kind: ResourceKind, name: &Name, now: Instant, batch: &mut Batch) {
        let Some(owed) = self.ledger(kind).owed.get(name) else { return };
        match self.judge(cache, kind, name, owed) {
            Verdict::Send(resource) => {
                batch.bytes += resource.body.len() + 2 * name.len();
                batch.resources.push((name.clone(), resource));
            }
            Verdict::Remove => {
                batch.removal_first |= batch.is_empty();
                batch.removed.push(name.clone());
            }
            Verdict::Leave => self.leave(kind, name, now),
            Verdict::Unknown => {}
            Verdict::Wait(need) => {
                let waiter = ResourceKey { kind, name: name.clone() };
                self.waiting.entry(need).or_default().insert(waiter);
            }
            Verdict::Stay => {
                if let Some(owed) = self.ledger_mut(kind).owed.remove(name) {
                    self.stay_counted(kind, name, owed.held, None);
                }
            }
            Verdict::InOrder => {
                if let Some(owed) = self.ledger_mut(kind).owed.remove(name) {
                    self.pins.release(kind, name, &owed.held);
                    self.wake(&ResourceKey { kind, name: name.clone() });
                }
            }
        }
    }

    fn judge(&self, cache: &Cache, kind: ResourceKind, name: &Name, owed: &Owed) -> Verdict {
        let Owed { held, asked, queued: _, suspect: _, released } = owed;
        let empty = held.has == Has::Nothing;
        let Some(entry) = self.find(cache, kind, name) else {
            return match (empty, asked) {
                // It may be on its way: nobody has said yet that it is not there.
                _ if !cache.complete() && (empty || held.blind) => Verdict::Unknown,
                (_, true) if !held.certain() && self.wants_table(kind, name) => {
                    Verdict::Send(refusal::absent(name))
                }
                (true, true) => Verdict::Remove,
                (true, false) => Verdict::InOrder,
                // Who asks again waits for the answer, and takes no harm from this one.
                (false, true) if matches!(kind, ResourceKind::Endpoints | ResourceKind::Secret) => {
                    Verdict::Remove
                }
                (false, _) if *released || at_once(kind) => Verdict::Remove,
                (false, _) => Verdict::Leave,
            };
        };
        let Some(resource) = self.offered(kind, name, entry) else {
            // Refused, and nothing was ever accepted under this name.
            return if *asked && !held.certain() { Verdict::Remove } else { Verdict::Stay };
        };
        if !asked && held.has == Has::This(resource.version) {
            let published = resource.version == entry.resource.version;
            return if published { Verdict::InOrder } else { Verdict::Stay };
        }
        if !asked && held.certain() && refusal::stands_in(resource) {
            // What it took is its last good: before we were started, or passed over
            // by the next version before it said so.
            return Verdict::Stay;
        }
        match self.unmet(cache, kind, &resource.needs, !held.certain()) {
            Some(need) => Verdict::Wait(need),
            None => Verdict::Send(resource.clone()),
        }
    }

    /// Whether an absence must be said by an empty table: Envoy passes over the
    /// removal of a table, so that a listener that warms with this scope would
    /// wait for it for ever (Envoy 1.40).
    fn wants_table(&self, kind: ResourceKind, name: &Name) -> bool {
        kind == ResourceKind::Route && self.ledger(kind).subscription.names.contains(name)
    }

    /// What this engine gets of an entry: a refused version only if it has it.
    fn offered<'a>(&self, kind: ResourceKind, name: &Name, entry: &'a Entry) -> Option<&'a Resource> {
        let taken = matches!(self.ledger(kind).exceptions.get(name), Some(Exception::Taken));
        let quarantined = entry.quarantined() && !planted::is(Bug::RefusedSentAgain);
        if quarantined && !taken { entry.last_good() } else { Some(&entry.resource) }
    }

    /// The first need of an earlier kind that the engine does not hold yet.
    /// What it did not ask for, or what is not there, is not waited for. `first`:
    /// nor is what was refused and has no last good, where the engine has nothing
    /// for certain: Envoy answers 503 where a cluster lacks, and serves the rest.
    fn unmet(
        &self,
        cache: &Cache,
        kind: ResourceKind,
        needs: &[ResourceKey],
        first: bool,
    ) -> Option<ResourceKey> {
        let held = |need: &&ResourceKey| {
            if planted::is(Bug::RouteBeforeCluster) {
                return true;
            }
            let ledger = self.ledger(need.kind);
            let name = &need.name;
            let Some(entry) = self.find(cache, need.kind, name) else { return true };
            if !ledger.subscription.covers(name) {
                // While clusters warm Envoy says nothing of clusters, so on a new stream
                // their turn may come after that of routes.
                return need.kind != ResourceKind::Cluster || ledger.subscription.started;
            }
            if first && entry.quarantined() && entry.last_good().is_none() {
                return true;
            }
            let owed = ledger.owed.get(name).is_none_or(|owed| owed.held.certain());
            // A removal under way: it came back, and is not there yet.
            let stays = |flying: &Flying| flying.sent.is_some() && flying.held.certain();
            let flying = ledger.flying.get(name).is_none_or(stays);
            // It refused the only version there ever was.
            let without = matches!(ledger.exceptions.get(name),
                Some(Exception::Stays { held, .. }) if !held.certain());
            owed && flying && !without
        };
        needs.iter().filter(|need| need.kind < kind).find(|need| !held(need)).cloned()
    }

    /// What a resource waits for although the engine refused it: it may be for ever.
    #[must_use]
    pub fn waits_for(&self, cache: &Cache, key: &ResourceKey) -> Option<ResourceKey> {
        let ResourceKey { kind, name } = key;
        let owed = self.ledger(*kind).owed.get(name)?;
        let resource = self.offered(*kind, name, self.find(cache, *kind, name)?)?;
        let need = self.unmet(cache, *kind, &resource.needs, !owed.held.certain())?;
        let of_need = self.ledger(need.kind);
        let open = of_need.owed.contains_key(&need.name) || of_need.flying.contains_key(&need.name);
        let stays = matches!(of_need.exceptions.get(&need.name), Some(Exception::Stays { .. }));
        (stays && !open).then_some(need)
    }

    fn send(&mut self, cache: &Cache, kind: ResourceKind, batch: Batch) -> Response {
        let Batch { resources, mut removed, bytes: _, edit: _, whole: _, removal_first: _ } = batch;
        self.nonce += 1;
        let mut names = Vec::with_capacity(resources.len() + removed.len());
        let mut items = Vec::with_capacity(resources.len());
        for (name, resource) in resources {
            let Resource { key, version, body, needs, origins: _ } = resource;
            if kind == ResourceKind::Cluster {
                self.push_endpoints(cache, &name);
            }
            if kind == ResourceKind::Secret {
                if key.name == name { self.aliases.own(&name) } else { self.aliases.alias(&name) }
            }
            let metadata = if self.relay { relay::metadata(&needs) } else { Bytes::new() };
            let sent = Sent { source: key, version, needs };
            self.fly(kind, &name, Some(sent));
            let named_body = kind == ResourceKind::Secret;
            items.push(Item { name: name.clone(), version, named_body, body: body.bytes(), metadata });
            names.push(name);
        }
        for name in &removed {
            self.aliases.own(name);
            self.fly(kind, name, None);
            names.push(name.clone());
        }
        if kind == ResourceKind::Secret {
            self.evict(&mut names, &mut removed);
        }
        self.sent += names.len() as u64;
        let nonce = self.nonce;
        self.ledger_mut(kind).flights.push_back(Flight { nonce, names });
        Response { type_url: kind.type_url().into(), nonce, resources: items, removed }
    }

    fn fly(&mut self, kind: ResourceKind, name: &Name, sent: Option<Sent>) {
        let ledger = self.ledger_mut(kind);
        let Some(Owed { held, asked, .. }) = ledger.owed.remove(name) else { return };
        ledger.flying.insert(name.clone(), Flying { held, sent, asked });
    }

    /// A cluster that is sent again, or comes back, warms until its endpoints
    /// come, and Envoy does not ask for those it is subscribed to (15 s stall).
    fn push_endpoints(&mut self, cache: &Cache, name: &Name) {
        let kind = ResourceKind::Endpoints;
        if self.ledger(kind).subscription.names.contains(name) && !planted::is(Bug::EndpointsNotSentAgain) {
            self.ask(cache, kind, name, true);
        }
    }

    /// Takes back the oldest certificates served under another name.
    fn evict(&mut self, names: &mut Vec<Name>, removed: &mut Vec<Name>) {
        while self.aliases.served() > ALIASED_NAMES_MAX {
            let flying = &self.ledger(ResourceKind::Secret).flying;
            let oldest = self.aliases.oldest().find(|name| !flying.contains_key(*name));
            let Some(name) = oldest.cloned() else { return };
            self.aliases.remove(&name);
            self.forget(ResourceKind::Secret, &name);
            if self.ledger_mut(ResourceKind::Secret).subscription.names.remove(&name) {
                self.subscriptions -= 1;
            }
            removed.push(name.clone());
            names.push(name);
        }
    }
}

/// Nothing needs these: their removal need not wait.
fn at_once(kind: ResourceKind) -> bool {
    match kind {
        ResourceKind::Listener | ResourceKind::ScopedRoute => true,
        ResourceKind::Cluster | ResourceKind::Endpoints | ResourceKind::Secret | ResourceKind::Route => {
            planted::is(Bug::RemovalAtOnce)
        }
    }
}
