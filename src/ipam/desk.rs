//! The claims' desk: which of them to plan for, so that a plan costs what
//! changed and nobody who waits is forgotten. A plain state machine.

use super::{
    ledger::Ledger,
    plan::{ClaimFinding, Plan, Request, plan},
    pool::Pools,
};
use crate::{
    base::Text,
    ir::Claim,
    report::{Reason, Severity},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// All claims, and what is to be done about them.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    pools: Arc<Pools>,
    claims: BTreeMap<Text, Arc<Claim>>,
    pending: BTreeSet<Text>,
    /// Planned for, and not yet known to be written.
    planned: BTreeSet<Text>,
    /// What they wait for comes with a pool, or when a quarantine ends.
    waiting: BTreeSet<Text>,
    findings: BTreeMap<Text, Vec<ClaimFinding>>,
}

impl Desk {
    /// New pools: everybody is looked at again, those that wait served at once.
    pub fn set_pools(&mut self, pools: Arc<Pools>) {
        if *pools != *self.pools {
            self.pools = pools;
            self.pending.extend(self.claims.keys().cloned());
        }
    }

    /// A claim that is new or changed, or (`None`) gone.
    pub fn set_claim(&mut self, name: &Text, claim: Option<Arc<Claim>>) {
        let known = self.claims.get(name);
        if known == claim.as_ref() {
            return;
        }
        match claim {
            Some(claim) => self.claims.insert(name.clone(), claim),
            None => self.claims.remove(name),
        };
        self.pending.insert(name.clone());
    }

    /// To be called once, when the whole world has been read: who holds an
    /// address in the ledger and is no more gives it back.
    pub fn adopt(&mut self, ledger: &Ledger) {
        let gone = ledger.claims().map(|(name, _)| name).filter(|name| !self.claims.contains_key(*name));
        self.pending.extend(gone.cloned());
    }

    /// Everybody who waits is to be looked at again: an operator freed something.
    pub fn retry(&mut self) {
        self.pending.extend(self.waiting.iter().cloned());
    }

    /// The plan for what is pending now. It stays on the desk, and comes again
    /// with the next plan, until [`Desk::done`] says that it has been written.
    #[must_use]
    pub fn plan(&mut self, ledger: &Ledger, named: &BTreeSet<IpAddr>, now: i64) -> Plan {
        if ledger.ends().next().is_some_and(|(until, _)| until <= now) {
            self.retry();
        }
        self.planned.append(&mut self.pending);
        let claim = |name: &Text| (name.clone(), self.claims.get(name).cloned());
        let pending = self.planned.iter().map(claim).collect();
        plan(&Request { pools: &self.pools, ledger, pending: &pending, named, now })
    }

    /// The last plan has been written and applied.
    pub fn done(&mut self, plan: &Plan) {
        let settled = std::mem::take(&mut self.planned);
        for name in &settled {
            self.waiting.remove(name);
            self.findings.remove(name);
        }
        for finding in &plan.findings {
            if finding.severity == Severity::Error {
                self.waiting.insert(finding.claim.clone());
            }
            self.findings.entry(finding.claim.clone()).or_default().push(finding.clone());
        }
    }

    /// The last plan could not be written: nobody has what it gives, and who waits
    /// for it is told why.
    pub fn unwritten(&mut self, plan: &Plan, why: &str) {
        for claim in plan.allocate.iter().map(|allocation| &allocation.claim) {
            let message = format!(
                "no address is given while the VIP ledger cannot be written; it is tried again ({why})"
            );
            let finding = ClaimFinding {
                claim: claim.clone(),
                severity: Severity::Error,
                reason: Reason::LedgerUnwritable,
                message,
            };
            self.waiting.insert(claim.clone());
            self.findings.insert(claim.clone(), vec![finding]);
        }
    }

    /// What is to be told about a claim.
    #[must_use]
    pub fn findings(&self, claim: &str) -> &[ClaimFinding] {
        self.findings.get(claim).map_or(&[], Vec::as_slice)
    }

    /// Claims that lack an address.
    pub fn waiting(&self) -> impl Iterator<Item = &Text> {
        self.waiting.iter()
    }
}
