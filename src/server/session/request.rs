//! Requests: what is asked for, given up, and brought along.

use super::{
    Closed, Event, Session, Step,
    departure::CONNECT_GRACE,
    held::{Has, Held},
    ledger::Exception,
    names::WILDCARD,
};
use crate::{
    base::Version,
    server::{
        cache::Cache,
        frame::{Response, parse_nonce},
        refusal,
    },
    xds::{Name, ResourceKey, ResourceKind},
};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

/// Names one stream may ask for, over all kinds: 10,000 hosts need about 40,000.
const SUBSCRIPTIONS_MAX: usize = 400_000;
/// Longest name we keep: an SNI has at most 253 bytes, our own names fewer than this.
const NAME_BYTES_MAX: usize = 1_024;

impl Session {
    pub(super) fn receive(
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
                Some(error) => self.refuse(cache, kind, flight, &error, now, step),
            }
        }
        let first = !std::mem::replace(&mut self.ledger_mut(kind).subscription.started, true);
        if first && !initial.is_empty() {
            self.grace_until = Some(now + CONNECT_GRACE);
        }
        if first {
            self.wake_all(kind);
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
    pub(super) fn forget(&mut self, kind: ResourceKind, name: &Name) {
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
            // A cluster sent before this was read warms until its endpoints come,
            // also those that the engine had before.
            let cluster = self.ledger(ResourceKind::Cluster).flying.get(&name);
            let warms =
                kind == ResourceKind::Endpoints && cluster.is_some_and(|flying| flying.sent.is_some());
            match reported.get(&text).filter(|_| !warms) {
                Some(version) => self.greet(cache, kind, &name, version, &mut accepted),
                None if again || warms => self.ask(cache, kind, &name, true),
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
    pub(super) fn ask(&mut self, cache: &Cache, kind: ResourceKind, name: &Name, asked: bool) {
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
        let held = self.find(cache, kind, name).map_or_else(Held::nothing, |entry| Held {
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
        let entry = self.find(cache, kind, name);
        let version = Version::parse(reported);
        let Some(entry) = entry else {
            let said = kind == ResourceKind::Route && version == Some(refusal::absent(name).version);
            if !said {
                self.owe(kind, name, reported_as(kind, name, version), false);
            }
            return;
        };
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
        let held = prior.map(|prior| Held::version(prior.version, prior.needs.clone()));
        self.owe(kind, name, held.unwrap_or_else(|| reported_as(kind, name, version)), false);
    }
}

/// A version that the cache has no more: what it needs is known only of tables that
/// stand for others.
fn reported_as(kind: ResourceKind, name: &Name, version: Option<Version>) -> Held {
    let ours = version.filter(|version| kind == ResourceKind::Route && refusal::is_ours(name, *version));
    ours.map_or_else(Held::unknown, |version| Held::version(version, [].into()))
}

/// Kinds where a first request without names means all of them.
pub(super) fn asks_for_all(kind: ResourceKind) -> bool {
    match kind {
        ResourceKind::Cluster | ResourceKind::Listener | ResourceKind::ScopedRoute => true,
        ResourceKind::Endpoints | ResourceKind::Secret | ResourceKind::Route => false,
    }
}
