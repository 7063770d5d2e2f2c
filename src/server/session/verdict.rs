//! What an engine says of a response: taken, or refused, and by whose fault.

use super::{
    Event, Refused, Session, Step,
    departure::OWN_FAILURE_RETRY,
    held::{Has, Held},
    ledger::{Exception, Flight, Flying, Sent},
};
use crate::{
    server::{
        cache::Cache,
        refusal,
        relay::{self, Refusal},
    },
    xds::{Name, ResourceKey, ResourceKind},
};
use envoy_types::pb::google::rpc::Status;
use std::time::Instant;

impl Session {
    pub(super) fn accept(&mut self, cache: &Cache, kind: ResourceKind, flight: Flight, step: &mut Step) {
        let mut accepted = Vec::new();
        for name in flight.names {
            let Some(flying) = self.ledger_mut(kind).flying.remove(&name) else { continue };
            self.pins.release(kind, &name, &flying.held);
            let Flying { held: _, sent, asked: _ } = flying;
            let entry = sent.as_ref().and_then(|sent| cache.entry(kind, &sent.source.name));
            if let (Some(sent), Some(entry)) = (&sent, entry)
                && sent.version == entry.resource.version
                && !entry.good
            {
                accepted.push((sent.source.clone(), sent.version));
            }
            self.took(cache, kind, &name, sent);
            self.wake(&ResourceKey { kind, name });
        }
        if !accepted.is_empty() {
            step.events.push(Event::Accepted(accepted));
        }
    }

    /// The engine holds what was sent, and nothing before it.
    fn took(&mut self, cache: &Cache, kind: ResourceKind, name: &Name, sent: Option<Sent>) {
        let ledger = &mut self.ledgers[kind as usize];
        if let Some(owed) = ledger.owed.get_mut(name) {
            let held = sent.map_or_else(Held::nothing, |sent| Held::version(sent.version, sent.needs));
            self.pins.add(kind, name, &held);
            let before = std::mem::replace(&mut owed.held, held);
            self.pins.release(kind, name, &before);
            ledger.enqueue(name);
            return;
        }
        if !ledger.subscription.covers(name) {
            return;
        }
        let Some(entry) = self.find(cache, kind, name) else { return };
        let Some(sent) = sent else {
            // There is one, and it is not for this engine: refused, with no last good.
            return self.stay(kind, name, Held::nothing(), None);
        };
        if !entry.quarantined() || entry.resource.key != sent.source {
            return;
        }
        if sent.version == entry.resource.version {
            self.ledger_mut(kind).exceptions.insert(name.clone(), Exception::Taken);
        } else {
            self.stay(kind, name, Held::version(sent.version, sent.needs), None);
        }
    }

    /// In order with what it holds; the needs of that are pinned from now on.
    pub(super) fn stay(&mut self, kind: ResourceKind, name: &Name, held: Held, retry: Option<Instant>) {
        self.pins.add(kind, name, &held);
        self.stay_counted(kind, name, held, retry);
    }

    pub(super) fn stay_counted(
        &mut self,
        kind: ResourceKind,
        name: &Name,
        held: Held,
        retry: Option<Instant>,
    ) {
        if let Some(at) = retry {
            self.retries.insert((at, ResourceKey { kind, name: name.clone() }));
        }
        let before = self.ledger_mut(kind).exceptions.insert(name.clone(), Exception::Stays { held, retry });
        if let Some(Exception::Stays { held, .. }) = before {
            self.pins.release(kind, name, &held);
        }
        self.wake(&ResourceKey { kind, name: name.clone() });
    }

    /// Nothing of a response that an Envoy refused counts as held: it applies some
    /// of it, in an order of its own, or none (measured on Envoy 1.40). A relay has
    /// found out which ones it were.
    pub(super) fn refuse(
        &mut self,
        cache: &Cache,
        kind: ResourceKind,
        flight: Flight,
        error: &Status,
        now: Instant,
        step: &mut Step,
    ) {
        match relay::refused(error).filter(|_| self.relay) {
            Some(refused) => self.refused_some(cache, kind, flight, &refused, now, step),
            None => self.refused_any(cache, kind, flight, &error.message, now, step),
        }
    }

    fn refused_some(
        &mut self,
        cache: &Cache,
        kind: ResourceKind,
        flight: Flight,
        refused: &[Refusal],
        now: Instant,
        step: &mut Step,
    ) {
        let Flight { nonce, mut names } = flight;
        for Refusal { name, message } in refused {
            let Some(at) = names.iter().position(|sent| **sent == **name) else { continue };
            let name = names.swap_remove(at);
            let Some(flying) = self.ledger_mut(kind).flying.remove(&name) else { continue };
            match flying.sent.clone() {
                Some(sent) => self.condemn(cache, &name, flying, sent, true, message, now, step),
                None => self.unremoved(kind, &name, flying, true),
            }
        }
        self.accept(cache, kind, Flight { nonce, names }, step);
    }

    fn refused_any(
        &mut self,
        cache: &Cache,
        kind: ResourceKind,
        flight: Flight,
        message: &str,
        now: Instant,
        step: &mut Step,
    ) {
        let (mut sets, mut removals) = (Vec::new(), Vec::new());
        for name in flight.names {
            let Some(flying) = self.ledger_mut(kind).flying.remove(&name) else { continue };
            let Some(sent) = flying.sent.clone() else {
                removals.push((name, flying));
                continue;
            };
            sets.push((name, flying, sent));
        }
        for (name, flying) in removals {
            self.unremoved(kind, &name, flying, sets.is_empty());
        }
        if sets.is_empty() {
            tracing::warn!(?kind, message, "An engine refused removals");
            return;
        }
        let culprit = match &sets[..] {
            [_] => Some(0),
            _ => refusal::named(message, sets.iter().map(|(name, ..)| name))
                .and_then(|named| sets.iter().position(|(name, ..)| name == named)),
        };
        if let Some(at) = culprit {
            let alone = sets.len() == 1;
            let (name, flying, sent) = sets.swap_remove(at);
            self.condemn(cache, &name, flying, sent, alone, message, now, step);
        }
        let rest: Vec<Name> = sets.iter().map(|(name, ..)| name.clone()).collect();
        for (name, flying, sent) in sets {
            self.doubt(kind, &name, flying, sent);
        }
        if culprit.is_none() {
            self.suspect(kind, rest);
        }
    }

    /// A removal came in a refused response, and was done or not. It is said again,
    /// unless the removals themselves were refused: they would be again.
    fn unremoved(&mut self, kind: ResourceKind, name: &Name, mut flying: Flying, alone: bool) {
        let ledger = self.ledger_mut(kind);
        if let Some(owed) = ledger.owed.get_mut(name) {
            // It came back meanwhile.
            owed.held.doubt();
        }
        if alone || ledger.owed.contains_key(name) || !ledger.subscription.covers(name) {
            ledger.enqueue(name);
            self.pins.release(kind, name, &flying.held);
            return;
        }
        flying.held.doubt();
        self.owe_counted(kind, name, flying.held, flying.asked);
        if let Some(owed) = self.ledger_mut(kind).owed.get_mut(name) {
            owed.released = true;
        }
    }

    /// Sent and refused together with others: owed again, and the engine may
    /// hold what was before or what was sent.
    fn doubt(&mut self, kind: ResourceKind, name: &Name, flying: Flying, sent: Sent) {
        let Flying { held: before, sent: _, asked } = flying;
        let has = if before.certain() { Has::Some } else { Has::Perhaps };
        let mut held = Held { has, ..before.clone() };
        held.needs.push(sent.needs);
        self.pins.add(kind, name, &held);
        self.pins.release(kind, name, &before);
        if !self.ledger(kind).subscription.covers(name) {
            self.pins.release(kind, name, &held);
            return;
        }
        if let Some(owed) = self.ledger_mut(kind).owed.get_mut(name) {
            let mut merged = owed.held.clone();
            merged.has = has;
            merged.needs.extend(held.needs.iter().cloned());
            merged.blind |= held.blind;
            let old = std::mem::replace(&mut owed.held, merged.clone());
            self.pins.add(kind, name, &merged);
            self.pins.release(kind, name, &old);
            self.pins.release(kind, name, &held);
            self.ledger_mut(kind).enqueue(name);
        } else {
            self.owe_counted(kind, name, held, asked);
        }
    }

    /// Splits a refused response in two, each to be sent by itself.
    fn suspect(&mut self, kind: ResourceKind, names: Vec<Name>) {
        let ledger = self.ledger_mut(kind);
        for name in &names {
            if let Some(owed) = ledger.owed.get_mut(name) {
                owed.suspect = true;
            }
        }
        let (left, right) = names.split_at(names.len() / 2);
        ledger.suspects.push_front(right.to_vec());
        ledger.suspects.push_front(left.to_vec());
    }

    /// The culprit: what the engine had stays, and the fleet is told.
    #[expect(clippy::too_many_arguments, reason = "the whole case is before the judge")]
    fn condemn(
        &mut self,
        cache: &Cache,
        name: &Name,
        flying: Flying,
        sent: Sent,
        alone: bool,
        message: &str,
        now: Instant,
        step: &mut Step,
    ) {
        let kind = sent.source.kind;
        self.refusals += 1;
        let entry = cache.entry(kind, &sent.source.name);
        let current = entry.filter(|entry| entry.resource.version == sent.version);
        let own = refusal::own_failure(message);
        let origins = current.map_or_else(|| [].into(), |entry| entry.resource.origins.clone());
        step.events.push(Event::Refused(Refused {
            key: sent.source.clone(),
            version: sent.version,
            message: message.to_owned(),
            origins,
            own,
        }));
        let offered = entry.is_some_and(|entry| {
            let last = entry.last_good().filter(|_| entry.quarantined());
            last.unwrap_or(&entry.resource).version == sent.version
        });
        // Alone in its response, it is certain that the engine kept what it had. A relay
        // has it all the same, and offers it to its Envoy again.
        let mut held = flying.held.clone();
        if !alone || self.relay {
            held.has = if held.certain() { Has::Some } else { Has::Perhaps };
            held.needs.push(sent.needs.clone());
        }
        let owed = self.ledger(kind).owed.contains_key(name);
        // What stood in for a resource that is not there was refused: there is nothing else.
        let stood_in = entry.is_none();
        if owed || !(offered || stood_in || current.is_some()) || !self.ledger(kind).subscription.covers(name)
        {
            // Something newer is there already: it is tried anew.
            return self.doubt(kind, name, flying, sent);
        }
        self.pins.add(kind, name, &held);
        self.pins.release(kind, name, &flying.held);
        if !own && entry.is_some_and(|entry| entry.quarantined()) && current.is_some() {
            // Another engine refused it before: what is served instead is known.
            return self.owe_counted(kind, name, held, flying.asked);
        }
        self.stay_counted(kind, name, held, own.then(|| now + OWN_FAILURE_RETRY));
    }
}
