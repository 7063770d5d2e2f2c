//! The invariants of addresses, for tests, simulations and debug builds
//! (reliability I1 to I3).

use super::{Broken, Ledger, Plan, Pools, State, range::Family};
use std::{collections::BTreeSet, net::IpAddr};

/// I1: no address has two owners, by any index. Costs as much as the ledger is large.
pub fn check(ledger: &Ledger) -> Result<(), Broken> {
    let entries = ledger.entries().map(|(address, entry)| (address, entry.clone()));
    let rebuilt = Ledger::new(entries)?;
    if rebuilt == *ledger {
        return Ok(());
    }
    let differs = ledger.entries().find(|(address, entry)| {
        let claim = &entry.claim;
        let held = ledger.held(claim).any(|held| held == *address);
        let left = ledger.left(claim).any(|left| left == *address);
        match entry.state {
            State::Held { .. } => !held || left,
            State::Quarantined { until } => {
                held || !left || !ledger.ends().any(|end| end == (until, *address))
            }
        }
    });
    let owned = ledger.claims().flat_map(|(_, addresses)| addresses.iter().copied());
    let unknown = owned.into_iter().find(|address| ledger.entry(*address).is_none());
    let address = differs.map(|(address, _)| address).or(unknown);
    Err(Broken::Index { address: address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)) })
}

/// I1 and I3 of one step: nothing is given that another holds, that waits for
/// another, or that a listener or DNS record of ours still names for another.
pub fn check_step(before: &Ledger, plan: &Plan, named: &BTreeSet<IpAddr>) -> Result<(), Broken> {
    before.admits(plan)?;
    for allocation in &plan.allocate {
        let (address, claim) = (allocation.address, allocation.claim.clone());
        let Some(entry) = before.entry(address) else { continue };
        if entry.claim == claim {
            continue;
        }
        match entry.state {
            State::Held { .. } => {
                return Err(Broken::TwoOwners { address, claim, owner: entry.claim.clone() });
            }
            State::Quarantined { until } if until > plan.at => {
                return Err(Broken::InQuarantine { address, claim, last: entry.claim.clone(), until });
            }
            State::Quarantined { .. } if named.contains(&address) => {
                return Err(Broken::StillNamed { address, claim });
            }
            State::Quarantined { .. } => {}
        }
    }
    for address in &plan.forget {
        let over = before.ends().any(|(until, ended)| ended == *address && until <= plan.at);
        if !over || named.contains(address) {
            return Err(Broken::NotOver { address: *address });
        }
    }
    Ok(())
}

/// Addresses of a family that a claim could be given now. I2: once all owners
/// are gone and the quarantines are over, this is the pools' count.
#[must_use]
pub fn free(pools: &Pools, ledger: &Ledger, family: Family) -> u128 {
    let taken = ledger
        .entries()
        .filter(|(address, _)| Family::of(*address) == family && pools.of(*address).is_some());
    pools.count(family) - taken.count() as u128
}
