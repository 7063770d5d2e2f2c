//! Who has which address, and which address waits for whom: the observed truth.

use super::{plan::Plan, range::Family, runs::Runs};
use crate::base::Text;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What is known of one address. An address without an entry is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its owner; of one in quarantine, its last.
    pub claim: Text,
    /// The pool it was given from.
    pub pool: Text,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum State {
    Held {
        /// Unix seconds; for people, no decision rests on it.
        since: i64,
    },
    /// Kept from all but its last owner.
    Quarantined {
        /// Unix seconds: from then on anybody may have it.
        until: i64,
    },
}

/// Something that must never be: the history that led here is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("{address} would go to claim {claim}, but claim {owner} holds it")]
    TwoOwners { address: IpAddr, claim: Text, owner: Text },
    #[error("{address} would go to claim {claim}, but it is kept for {last} until unix second {until}")]
    InQuarantine { address: IpAddr, claim: Text, last: Text, until: i64 },
    #[error("{address} would be released by claim {claim}, which does not hold it")]
    NotHeld { address: IpAddr, claim: Text },
    #[error("{address} would be forgotten, but a claim still holds it or its quarantine lasts")]
    NotOver { address: IpAddr },
    #[error(
        "{address} would go to claim {claim} while a listener or a DNS record still names it for another"
    )]
    StillNamed { address: IpAddr, claim: Text },
    #[error("{address} is written twice")]
    Twice { address: IpAddr },
    #[error("the ledger's indexes disagree about {address}")]
    Index { address: IpAddr },
}

/// All entries, with the indexes the planner asks. Plain data: equal entries
/// make equal ledgers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: BTreeMap<IpAddr, Entry>,
    /// Claim to what it holds.
    held: BTreeMap<Text, BTreeSet<IpAddr>>,
    /// Claim to what it gave back and may still take again.
    left: BTreeMap<Text, BTreeSet<IpAddr>>,
    /// Quarantined addresses, by their end.
    ends: BTreeSet<(i64, IpAddr)>,
    /// Addresses that have an entry.
    taken: Runs,
}

impl Ledger {
    /// A ledger of these entries; an address that comes twice is refused.
    pub fn new(entries: impl IntoIterator<Item = (IpAddr, Entry)>) -> Result<Self, Broken> {
        let mut ledger = Self::default();
        for (address, entry) in entries {
            if ledger.entries.contains_key(&address) {
                return Err(Broken::Twice { address });
            }
            ledger.set(address, entry);
        }
        Ok(ledger)
    }

    /// In order of address.
    pub fn entries(&self) -> impl Iterator<Item = (IpAddr, &Entry)> {
        self.entries.iter().map(|(address, entry)| (*address, entry))
    }

    #[must_use]
    pub fn entry(&self, address: IpAddr) -> Option<&Entry> {
        self.entries.get(&address)
    }

    /// What a claim holds, IPv4 first: what may be announced for it.
    pub fn held(&self, claim: &str) -> impl Iterator<Item = IpAddr> {
        self.held.get(claim).into_iter().flatten().copied()
    }

    /// All claims that hold something, by name.
    pub fn claims(&self) -> impl Iterator<Item = (&Text, &BTreeSet<IpAddr>)> {
        self.held.iter()
    }

    /// What a claim gave back and nobody else has had since.
    pub fn left(&self, claim: &str) -> impl Iterator<Item = IpAddr> {
        self.left.get(claim).into_iter().flatten().copied()
    }

    /// Quarantines, the first to end first: unix seconds and address.
    pub fn ends(&self) -> impl Iterator<Item = (i64, IpAddr)> {
        self.ends.iter().copied()
    }

    /// Addresses with an entry in the run that holds this one: its last.
    pub(super) fn taken_until(&self, address: IpAddr) -> Option<IpAddr> {
        self.taken.end(address)
    }

    /// Whether this plan may be applied: the fence against a plan that was made
    /// from an older ledger. Costs what the plan costs.
    pub fn admits(&self, plan: &Plan) -> Result<(), Broken> {
        let Plan { at, allocate, release, forget, findings: _, wake_at: _, looked_at: _ } = plan;
        for address in forget {
            match self.entries.get(address) {
                Some(Entry { state: State::Quarantined { .. }, .. }) => {}
                _ => return Err(Broken::NotOver { address: *address }),
            }
        }
        for released in release {
            let address = released.address;
            match self.entries.get(&address) {
                Some(Entry { claim, state: State::Held { .. }, .. }) if *claim == released.claim => {}
                _ => return Err(Broken::NotHeld { address, claim: released.claim.clone() }),
            }
        }
        let mut given = BTreeSet::new();
        for allocation in allocate {
            let (address, claim) = (allocation.address, allocation.claim.clone());
            if !given.insert(address) {
                return Err(Broken::Twice { address });
            }
            match self.entries.get(&address) {
                None => {}
                Some(Entry { claim: owner, state: State::Held { .. }, .. }) => {
                    return Err(Broken::TwoOwners { address, claim, owner: owner.clone() });
                }
                Some(Entry { claim: last, state: State::Quarantined { until }, .. })
                    if *last != claim && *until > *at =>
                {
                    return Err(Broken::InQuarantine { address, claim, last: last.clone(), until: *until });
                }
                Some(Entry { state: State::Quarantined { .. }, .. }) => {}
            }
        }
        Ok(())
    }

    /// Makes the plan true. A plan that [`Ledger::admits`] refuses changes nothing.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), Broken> {
        self.admits(plan)?;
        let changes: Vec<_> = plan.entries(|address| self.entries.get(&address).cloned()).collect();
        for (address, entry) in changes {
            match entry {
                Some(entry) => self.set(address, entry),
                None => self.unset(address),
            }
        }
        Ok(())
    }

    fn set(&mut self, address: IpAddr, entry: Entry) {
        self.unset(address);
        match entry.state {
            State::Held { .. } => {
                self.held.entry(entry.claim.clone()).or_default().insert(address);
            }
            State::Quarantined { until } => {
                self.left.entry(entry.claim.clone()).or_default().insert(address);
                self.ends.insert((until, address));
            }
        }
        self.taken.insert(address);
        self.entries.insert(address, entry);
    }

    fn unset(&mut self, address: IpAddr) {
        let Some(Entry { claim, state, .. }) = self.entries.remove(&address) else { return };
        let index = match state {
            State::Held { .. } => &mut self.held,
            State::Quarantined { until } => {
                self.ends.remove(&(until, address));
                &mut self.left
            }
        };
        if let Some(addresses) = index.get_mut(&claim) {
            addresses.remove(&address);
            if addresses.is_empty() {
                index.remove(&claim);
            }
        }
        self.taken.remove(address);
    }

    /// How many addresses of a family have an entry.
    #[must_use]
    pub fn count(&self, family: Family) -> usize {
        self.entries.keys().filter(|address| Family::of(**address) == family).count()
    }
}
