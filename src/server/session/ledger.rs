//! One kind on one stream: what is asked for, owed, under way, and otherwise.
//!
//! A name that is in none of the maps is *in order*: the engine holds what the
//! cache has under it now. So a stream's memory is what it asked for by name,
//! and what differs.

use super::{held::Held, names::Subscription};
use crate::{
    base::Version,
    server::cache::Needs,
    xds::{Name, ResourceKey},
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) subscription: Subscription,
    /// To be sent.
    pub(super) owed: BTreeMap<Name, Owed>,
    /// Owed names in the order they are to be looked at; may hold stale ones.
    pub(super) queue: VecDeque<Name>,
    /// Sent and not answered.
    pub(super) flying: BTreeMap<Name, Flying>,
    pub(super) flights: VecDeque<Flight>,
    /// Halves of refused responses: each is sent by itself.
    pub(super) suspects: VecDeque<Vec<Name>>,
    /// Gone from the cache; removed when nothing needs them.
    pub(super) leaving: BTreeMap<Name, Leaving>,
    pub(super) exceptions: BTreeMap<Name, Exception>,
    /// A subscription to everything is to be answered even if there is nothing:
    /// Envoy's start waits for it.
    pub(super) answer_due: bool,
}

/// A name whose resource is to be sent, or its absence said.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) held: Held,
    /// It was asked for: an answer is due even if nothing changed.
    pub(super) asked: bool,
    pub(super) queued: bool,
    /// It is in one of `suspects`.
    pub(super) suspect: bool,
    /// It left the cache, nothing needs it, and its grace is over.
    pub(super) released: bool,
}

#[derive(Debug)]
pub(super) struct Flying {
    /// Before this was sent.
    pub(super) held: Held,
    /// The resource it was made from (another name's, for an alias); `None`: a removal.
    pub(super) sent: Option<Sent>,
    pub(super) asked: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) source: ResourceKey,
    pub(super) version: Version,
    pub(super) needs: Needs,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) nonce: u64,
    pub(super) names: Vec<Name>,
}

#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) held: Held,
    /// Since when nothing needs it.
    pub(super) free_since: Option<Instant>,
}

/// A name that is in order although the engine's version is not what a healthy
/// engine would have.
#[derive(Debug)]
pub(super) enum Exception {
    /// It accepted the published version, which another engine refused.
    Taken,
    /// It does not get the published version.
    Stays { held: Held, retry: Option<Instant> },
}

impl Ledger {
    /// Takes the flight with this nonce, if it is under way.
    pub(super) fn land(&mut self, nonce: u64) -> Option<Flight> {
        let at = self.flights.iter().position(|flight| flight.nonce == nonce)?;
        self.flights.remove(at)
    }

    pub(super) fn enqueue(&mut self, name: &Name) {
        if let Some(owed) = self.owed.get_mut(name)
            && !owed.queued
            && !owed.suspect
        {
            owed.queued = true;
            self.queue.push_back(name.clone());
        }
    }

    /// Looks again at everything.
    pub(super) fn enqueue_all(&mut self) {
        let names: Vec<Name> = self.owed.keys().cloned().collect();
        names.iter().for_each(|name| self.enqueue(name));
    }

    /// Differences not yet accepted; departures are not waited for.
    pub(super) fn pending(&self) -> usize {
        self.owed.len() + self.flying.len()
    }
}
