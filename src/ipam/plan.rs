//! Who gets which address: pure, sticky, and as cheap as what changed.

use super::{
    ledger::{Entry, Ledger, State},
    pool::{Pool, Pools},
    range::{Family, after},
    utc::utc,
};
use crate::{
    base::Text,
    ir::Claim,
    planted::{self, Bug},
    report::{Reason, Severity},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// How long an address waits whose pool is gone, in seconds: a pool's default.
const QUARANTINE_SECONDS_DEFAULT: u32 = 60;
/// An address whose quarantine is over but that we still name is looked at
/// again after this many seconds.
const NAMED_RETRY_SECONDS: i64 = 5;

/// What the planner reads.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub pools: &'a Pools,
    pub ledger: &'a Ledger,
    /// Claims that are new, changed or waiting; none for one that is gone.
    /// Claims not named here stay as they are.
    pub pending: &'a BTreeMap<Text, Option<Arc<Claim>>>,
    /// Addresses that a listener or a DNS record of ours still names: nobody but
    /// their last owner gets them, also after the quarantine.
    pub named: &'a BTreeSet<IpAddr>,
    /// Unix seconds.
    pub now: i64,
}

/// What is to be written, before anything of it is announced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Unix seconds: when it was made.
    pub at: i64,
    pub allocate: Vec<Allocation>,
    pub release: Vec<Release>,
    /// Addresses whose quarantine is over and that stay free.
    pub forget: Vec<IpAddr>,
    /// By claim: what could not be given (Error: it waits), or is kept although
    /// no pool has it (Warning).
    pub findings: Vec<ClaimFinding>,
    /// Unix seconds: when the next quarantine ends, for which to plan again.
    pub wake_at: Option<i64>,
    /// How many places were looked at for free addresses: the cost.
    pub looked_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    pub claim: Text,
    pub address: IpAddr,
    pub pool: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub claim: Text,
    pub address: IpAddr,
    /// Unix seconds: until then only this claim may have it again.
    pub until: i64,
}

/// What is to be told on the objects behind a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimFinding {
    pub claim: Text,
    pub severity: Severity,
    pub reason: Reason,
    pub message: String,
}

impl Plan {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allocate.is_empty() && self.release.is_empty() && self.forget.is_empty()
    }

    /// Every address whose entry it changes, sorted.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let allocated = self.allocate.iter().map(|allocation| allocation.address);
        let released = self.release.iter().map(|release| release.address);
        allocated.chain(released).chain(self.forget.iter().copied()).collect()
    }

    /// The entry of one of its addresses after it, given the one before.
    fn entry_after(&self, index: &PlanIndex<'_>, address: IpAddr, before: Option<&Entry>) -> Option<Entry> {
        if let Some(Allocation { claim, pool, .. }) = index.allocate.get(&address) {
            let state = State::Held { since: self.at };
            return Some(Entry { claim: claim.clone(), pool: pool.clone(), state });
        }
        let release = index.release.get(&address)?;
        let pool = before.map_or_else(|| "".into(), |entry| entry.pool.clone());
        let state = State::Quarantined { until: release.until };
        Some(Entry { claim: release.claim.clone(), pool, state })
    }

    /// Each address that changes with its entry after the plan (none: free), in
    /// order of address; `before` gives the entry there is.
    pub fn entries<'a>(
        &'a self,
        mut before: impl FnMut(IpAddr) -> Option<Entry> + 'a,
    ) -> impl Iterator<Item = (IpAddr, Option<Entry>)> + 'a {
        let index = PlanIndex {
            allocate: self.allocate.iter().map(|allocation| (allocation.address, allocation)).collect(),
            release: self.release.iter().map(|release| (release.address, release)).collect(),
        };
        self.addresses()
            .into_iter()
            .map(move |address| (address, self.entry_after(&index, address, before(address).as_ref())))
    }
}

struct PlanIndex<'a> {
    allocate: BTreeMap<IpAddr, &'a Allocation>,
    release: BTreeMap<IpAddr, &'a Release>,
}

/// Decides for the pending claims. The same request gives the same plan; its
/// cost grows with what is pending, not with the ledger.
#[must_use]
pub fn plan(request: &Request<'_>) -> Plan {
    let mut planner = Planner::new(*request);
    for (name, _) in request.pending.iter().filter(|(_, claim)| claim.is_none()) {
        for address in request.ledger.held(name) {
            planner.release(name, address);
        }
    }
    // Who asks for an address by name, or comes back to its own, is not to find
    // it given to one who would take any; else by name.
    let mut wanted = Vec::new();
    for claim in request.pending.values().flatten() {
        for family in Family::ALL {
            let want = planner.wants(claim, family);
            let mut left = request.ledger.left(&claim.name).map(Family::of);
            let turn = match want {
                Want::Nothing | Want::This(_) => 0,
                Want::Any if left.any(|left| left == family) => 1,
                Want::Any => 2,
            };
            wanted.push((turn, claim, family, want));
        }
    }
    wanted.sort_by_key(|(turn, ..)| *turn);
    for (_, claim, family, want) in wanted {
        planner.settle(claim, family, want);
    }
    planner.finish()
}

/// What an operator asks: whatever a claim holds is released, and kept for it as
/// if it had gone. A claim that is still wanted comes back to it.
#[must_use]
pub fn release(pools: &Pools, ledger: &Ledger, claim: &Text, now: i64) -> Plan {
    let pending = BTreeMap::from([(claim.clone(), None)]);
    let named = ledger.ends().map(|(_, address)| address).collect();
    plan(&Request { pools, ledger, pending: &pending, named: &named, now })
}

/// What an operator asks: this address is free before its quarantine is over
/// (after a clock that had gone wrong, say). None where it is not in quarantine.
#[must_use]
pub fn end_quarantine(ledger: &Ledger, address: IpAddr, now: i64) -> Option<Plan> {
    match ledger.entry(address)?.state {
        State::Held { .. } => None,
        State::Quarantined { .. } => Some(Plan { at: now, forget: vec![address], ..Plan::default() }),
    }
}

/// What a claim wants of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    Any,
    This(IpAddr),
}

struct Planner<'a> {
    request: Request<'a>,
    plan: Plan,
    /// Given by this plan, and to whom.
    given: BTreeMap<IpAddr, Text>,
    /// Released by this plan: nobody's, for now.
    released: BTreeMap<IpAddr, i64>,
    /// Quarantines that are over, and not given yet.
    over: BTreeSet<IpAddr>,
    /// By place of pool and family: nothing below is free in this plan, since
    /// nothing becomes free in it; none when nothing is left.
    cursors: BTreeMap<(usize, Family), Option<IpAddr>>,
}

impl<'a> Planner<'a> {
    fn new(request: Request<'a>) -> Self {
        let ended = request.ledger.ends().take_while(|(until, _)| *until <= request.now);
        let over = ended.map(|(_, address)| address).filter(|address| !request.named.contains(address));
        Self {
            request,
            plan: Plan { at: request.now, ..Plan::default() },
            given: BTreeMap::new(),
            released: BTreeMap::new(),
            over: over.collect(),
            cursors: BTreeMap::new(),
        }
    }

    fn settle(&mut self, claim: &Claim, family: Family, want: Want) {
        let held = self.request.ledger.held(&claim.name);
        let held = held.filter(|address| Family::of(*address) == family).collect();
        match want {
            Want::Nothing => self.replace(claim, held, None),
            Want::This(address) => self.settle_this(claim, held, address),
            Want::Any => self.settle_any(claim, held, family),
        }
    }

    /// A requested address asks for its family, too.
    fn wants(&mut self, claim: &Claim, family: Family) -> Want {
        let Claim { name: _, namespace: _, namespace_labels: _, pool: _, families, requested } = claim;
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let mut requested = requested.iter().map(IpAddr::to_canonical).filter(of_family);
        let first = requested.next();
        if let Some(second) = requested.find(|address| Some(*address) != first) {
            let message =
                format!("{second} is a second {family} address: one address a family can be asked for");
            self.find(claim, Severity::Error, Reason::AddressRefused, message);
        }
        let wanted = match family {
            Family::V4 => families.v4,
            Family::V6 => families.v6,
        };
        match first {
            Some(address) => Want::This(address),
            None if wanted => Want::Any,
            None => Want::Nothing,
        }
    }

    fn settle_this(&mut self, claim: &Claim, held: Vec<IpAddr>, address: IpAddr) {
        if held.contains(&address) {
            self.keep(claim, held, address);
            return;
        }
        match self.take_requested(claim, address) {
            Ok(()) => self.replace(claim, held, Some(address)),
            Err(why) => {
                let message = format!("{address} cannot be given: {why}{}", still(&held));
                self.find(claim, Severity::Error, Reason::AddressRefused, message);
            }
        }
    }

    fn settle_any(&mut self, claim: &Claim, held: Vec<IpAddr>, family: Family) {
        if let Some(address) = held.iter().copied().find(|address| self.may_keep(claim, *address)) {
            self.keep(claim, held, address);
            return;
        }
        let pools = self.pools_for(claim, family);
        let address = self.take_back(claim, &pools, family).or_else(|| {
            pools.iter().find_map(|(place, pool)| Some((self.lowest_free(*place, pool, family)?, *pool)))
        });
        match address {
            Some((address, pool)) => {
                self.give(claim, address, pool);
                self.replace(claim, held, Some(address));
            }
            None => self.find_missing(claim, family, &pools, &held),
        }
    }

    /// What a claim holds stays until the claim itself asks for another pool: a
    /// pool that shrinks or goes takes no serving address away.
    fn may_keep(&self, claim: &Claim, address: IpAddr) -> bool {
        let Some(asked) = &claim.pool else { return true };
        let given_from = self.request.ledger.entry(address).map(|entry| &entry.pool);
        given_from == Some(asked) || self.request.pools.of(address).is_some_and(|pool| pool.name == *asked)
    }

    fn keep(&mut self, claim: &Claim, held: Vec<IpAddr>, address: IpAddr) {
        let why = match self.request.pools.of(address) {
            None => "no VipPool has it any more",
            Some(pool) if !pool.admits(claim) => "its VipPool is no longer for this namespace",
            Some(_) => "",
        };
        if !why.is_empty() {
            let message = format!("{address} is kept since it is in use, but {why}: ask for another to move");
            self.find(claim, Severity::Warning, Reason::AddressOutsidePool, message);
        }
        self.replace(claim, held, Some(address));
    }

    /// Releases what is held beside `keep`.
    fn replace(&mut self, claim: &Claim, held: Vec<IpAddr>, keep: Option<IpAddr>) {
        for address in held {
            if Some(address) != keep {
                self.release(&claim.name, address);
            }
        }
    }

    fn release(&mut self, claim: &Text, address: IpAddr) {
        let pool = self.request.pools.of(address).or_else(|| {
            let entry = self.request.ledger.entry(address)?;
            self.request.pools.named(&entry.pool)
        });
        let seconds = pool.map_or(QUARANTINE_SECONDS_DEFAULT, |pool| pool.quarantine_seconds);
        let seconds = if planted::is(Bug::NoQuarantine) { 0 } else { seconds };
        let until = self.request.now.saturating_add(i64::from(seconds));
        self.released.insert(address, until);
        self.plan.release.push(Release { claim: claim.clone(), address, until });
    }

    fn take_requested(&mut self, claim: &Claim, address: IpAddr) -> Result<(), String> {
        let pools = self.request.pools;
        let Some(pool) = pools.of(address) else {
            let excluding = pools.in_order().iter().find(|pool| pool.excludes(address));
            return Err(match excluding {
                Some(pool) => format!("VipPool {} excludes it", pool.name),
                None => "no VipPool has it".to_owned(),
            });
        };
        if let Some(asked) = claim.pool.as_ref().filter(|asked| **asked != pool.name) {
            return Err(format!("it is in VipPool {}, and this VIP is to come from {asked}", pool.name));
        }
        if !pool.admits(claim) {
            return Err(format!("its VipPool {} is not for {}", pool.name, whose(claim)));
        }
        if let Some(other) = self.given.get(&address) {
            return Err(format!("held by {other}"));
        }
        if let Some(until) = self.released.get(&address) {
            return Err(format!("in quarantine until {}", utc(*until)));
        }
        if let Some(Entry { claim: owner, pool: _, state }) = self.request.ledger.entry(address) {
            match state {
                State::Held { .. } => return Err(format!("held by {owner}")),
                State::Quarantined { .. } if *owner == claim.name => {}
                State::Quarantined { until } if *until > self.request.now => {
                    return Err(format!("in quarantine until {}", utc(*until)));
                }
                State::Quarantined { .. } if self.request.named.contains(&address) => {
                    return Err("a listener or DNS record still names it for its last owner".to_owned());
                }
                State::Quarantined { .. } => {}
            }
        }
        self.give(claim, address, pool);
        Ok(())
    }

    /// The pools that may serve this claim and have the family, in order.
    fn pools_for(&self, claim: &Claim, family: Family) -> Vec<(usize, &'a Pool)> {
        let asked = |pool: &Pool| claim.pool.as_ref().is_none_or(|asked| *asked == pool.name);
        let pools = self.request.pools.in_order().iter().enumerate();
        pools
            .filter(|(_, pool)| asked(pool) && pool.admits(claim) && pool.spans().of(family).next().is_some())
            .collect()
    }

    /// What the claim gave back itself, if it may still have it.
    fn take_back(
        &self,
        claim: &Claim,
        pools: &[(usize, &'a Pool)],
        family: Family,
    ) -> Option<(IpAddr, &'a Pool)> {
        let mut left = self.request.ledger.left(&claim.name).filter(|address| Family::of(*address) == family);
        left.find_map(|address| {
            let (_, pool) = pools.iter().find(|(_, pool)| pool.spans().contains(address))?;
            (!self.given.contains_key(&address)).then_some((address, *pool))
        })
    }

    fn lowest_free(&mut self, place: usize, pool: &Pool, family: Family) -> Option<IpAddr> {
        let never_taken = self.lowest_untaken(place, pool, family);
        self.plan.looked_at += 1;
        let over =
            pool.spans().of(family).find_map(|span| self.over.range(span.first..=span.last).next().copied());
        match (never_taken, over) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The lowest address of a pool without an entry and not given by this plan.
    fn lowest_untaken(&mut self, place: usize, pool: &Pool, family: Family) -> Option<IpAddr> {
        let cursor = match self.cursors.get(&(place, family)) {
            Some(None) => return None,
            Some(Some(cursor)) => Some(*cursor),
            None => None,
        };
        for span in pool.spans().of(family) {
            let mut at = cursor.map_or(Some(span.first), |cursor| Some(span.first.max(cursor)));
            while let Some(address) = at.filter(|address| *address <= span.last) {
                self.plan.looked_at += 1;
                let taken = self.given.contains_key(&address).then_some(address);
                let Some(last) = self.request.ledger.taken_until(address).or(taken) else {
                    self.cursors.insert((place, family), Some(address));
                    return Some(address);
                };
                at = after(last);
            }
        }
        self.cursors.insert((place, family), None);
        None
    }

    fn give(&mut self, claim: &Claim, address: IpAddr, pool: &Pool) {
        self.over.remove(&address);
        self.given.insert(address, claim.name.clone());
        let (claim, pool) = (claim.name.clone(), pool.name.clone());
        self.plan.allocate.push(Allocation { claim, address, pool });
    }

    fn find_missing(&mut self, claim: &Claim, family: Family, pools: &[(usize, &'a Pool)], held: &[IpAddr]) {
        let still = still(held);
        if pools.is_empty() {
            let message = match &claim.pool {
                Some(asked) if self.request.pools.named(asked).is_none() => {
                    format!("no {family} address: there is no VipPool {asked}{still}")
                }
                Some(asked) => {
                    format!("no {family} address: VipPool {asked} has none for {}{still}", whose(claim))
                }
                None => format!("no {family} address: no VipPool has any for {}{still}", whose(claim)),
            };
            self.find(claim, Severity::Error, Reason::NoPool, message);
            return;
        }
        let names: Vec<&str> = pools.iter().map(|(_, pool)| &*pool.name).collect();
        let count: u128 =
            pools.iter().fold(0, |sum: u128, (_, pool)| sum.saturating_add(pool.spans().count(family)));
        let message = format!(
            "no {family} address is free: all {count} of VipPool {} are held or in quarantine{still}; \
             it is given as soon as one is free or a pool grows",
            names.join(", ")
        );
        self.find(claim, Severity::Error, Reason::PoolExhausted, message);
    }

    fn find(&mut self, claim: &Claim, severity: Severity, reason: Reason, message: String) {
        self.plan.findings.push(ClaimFinding { claim: claim.name.clone(), severity, reason, message });
    }

    fn finish(mut self) -> Plan {
        let Request { pools: _, ledger, pending: _, named, now } = self.request;
        let own = self.plan.release.iter().map(|release| release.until);
        let kept = ledger.ends().find(|(until, address)| *until > now && !self.given.contains_key(address));
        let ended = ledger.ends().take_while(|(until, _)| *until <= now);
        let named = ended.into_iter().any(|(_, address)| named.contains(&address));
        let named = named.then(|| now.saturating_add(NAMED_RETRY_SECONDS));
        self.plan.wake_at = own.chain(kept.map(|(until, _)| until)).chain(named).min();
        self.plan.forget = self.over.into_iter().collect();
        self.plan.allocate.sort_by_key(|allocation| allocation.address);
        self.plan.release.sort_by_key(|release| release.address);
        self.plan.findings.sort();
        self.plan
    }
}

fn still(held: &[IpAddr]) -> String {
    match held {
        [] => String::new(),
        held => {
            let held: Vec<String> = held.iter().map(IpAddr::to_string).collect();
            format!("; {} stays", held.join(", "))
        }
    }
}

fn whose(claim: &Claim) -> String {
    match &claim.namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "a VIP that namespaces share (only pools without a selection are)".to_owned(),
    }
}
