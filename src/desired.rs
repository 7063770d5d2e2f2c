//! What should be served, and the ledger it rests on: everything between sources
//! and outputs, without their I/O.
//!
//! *Takes* changes of facts, and word that a plan was written. *Gives* plans to
//! write, and what is to be sent out. *Invariants*: an address is announced only
//! after its plan was written; no clock, no I/O; `up`, `translate` and the golden
//! cases run this very code. *To add one* (an output): a field of [`Publication`],
//! filled in `emit`.

mod emit;
pub mod show;

use emit::Emitter;
pub use emit::{Publication, ZoneChange};

use crate::{
    api::VipPoolSpec,
    base::Text,
    compile::{Compile, Delta, FactKey, Input, Outcome},
    inputs::{Change, Fact},
    ipam::{self, Desk, Ledger, Plan, Pools},
    ir::{GatewayKey, ListenerKey},
    report::Finding,
    translate::Options,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// Everything between the sources and the outputs.
pub struct Desired {
    compile: Compile,
    pools: BTreeMap<Text, Arc<VipPoolSpec>>,
    read_pools: Arc<Pools>,
    pool_findings: Vec<Finding>,
    claims: BTreeSet<Text>,
    desk: Desk,
    ledger: Ledger,
    emitter: Emitter,
}

impl Desired {
    /// Starts empty, with what the ledger says is held.
    #[must_use]
    pub fn new(options: Options, ledger: Ledger) -> Self {
        let mut core = Self {
            compile: Compile::new(options),
            pools: BTreeMap::new(),
            read_pools: Arc::default(),
            pool_findings: Vec::new(),
            claims: BTreeSet::new(),
            desk: Desk::default(),
            emitter: Emitter::default(),
            ledger,
        };
        let held: Vec<_> = core.ledger.claims().map(|(claim, _)| claim.clone()).collect();
        let facts: Vec<_> = held.iter().map(|claim| core.allocation(claim)).collect();
        core.compile(facts);
        core
    }

    /// Measures what units of the compile cost: see [`Compile::timed`].
    #[must_use]
    pub fn timed(mut self, clock: fn() -> Duration) -> Self {
        self.compile = self.compile.timed(clock);
        self
    }

    /// A world read once, its addresses given as an empty ledger would: without a
    /// store, as `tidegate translate` does.
    #[must_use]
    pub fn in_memory(options: Options, changes: Vec<Change>, now: i64) -> Self {
        let mut core = Self::new(options, Ledger::default());
        core.take(changes);
        core.first_sync();
        let plan = core.plan(now);
        core.written(&plan);
        core
    }

    /// Takes in what changed in the world.
    pub fn take(&mut self, changes: Vec<Change>) {
        let mut pools_changed = false;
        for Change { key, fact } in &changes {
            match fact {
                Some(Fact::VipPool(spec)) => {
                    self.pools.insert(Arc::clone(&key.name), Arc::clone(spec));
                    pools_changed = true;
                }
                None if key.kind == crate::base::ObjectKind::VipPool => {
                    self.pools.remove(&key.name);
                    pools_changed = true;
                }
                Some(_) | None => {}
            }
        }
        if pools_changed {
            let (pools, report) = Pools::read(self.pools.iter().map(|(name, spec)| (&**name, &**spec)));
            self.pool_findings = report.into_findings();
            self.read_pools = Arc::new(pools);
            self.desk.set_pools(Arc::clone(&self.read_pools));
        }
        let facts =
            changes.into_iter().map(|Change { key, fact }| (FactKey::Object(key), fact.map(Input::Object)));
        self.compile(facts.collect());
    }

    /// The whole world has been read once: claims that are no more give back.
    pub fn first_sync(&mut self) {
        self.desk.adopt(&self.ledger);
    }

    /// What to write to the ledger now; it comes again until [`Desired::written`].
    pub fn plan(&mut self, now: i64) -> Plan {
        self.desk.plan(&self.ledger, self.emitter.addresses(), now)
    }

    /// The plan has been written: only now its addresses are announced.
    pub fn written(&mut self, plan: &Plan) {
        self.desk.done(plan);
        self.apply(plan);
    }

    /// The ledger was read again after a write whose end is not known: what it
    /// says counts. `adopt`: the whole world has been read.
    pub fn reread(&mut self, ledger: Ledger, adopt: bool) {
        let before = std::mem::replace(&mut self.ledger, ledger);
        let claims = before.claims().chain(self.ledger.claims()).map(|(claim, _)| claim);
        let claims: BTreeSet<Text> = claims.cloned().collect();
        let changed = claims.iter().filter(|claim| !before.held(claim).eq(self.ledger.held(claim)));
        let facts = changed.map(|claim| self.allocation(claim)).collect();
        self.compile(facts);
        if adopt {
            self.desk.adopt(&self.ledger);
        }
    }

    /// The plan could not be written: it comes again, and who waits for it is told.
    pub fn unwritten(&mut self, plan: &Plan, why: &str) {
        self.desk.unwritten(plan, why);
    }

    fn apply(&mut self, plan: &Plan) {
        self.ledger.apply(plan).expect("a plan fits the ledger it was made for");
        let mut claims: BTreeSet<Text> = BTreeSet::new();
        claims.extend(plan.allocate.iter().map(|allocation| allocation.claim.clone()));
        claims.extend(plan.release.iter().map(|release| release.claim.clone()));
        let facts = claims.iter().map(|claim| self.allocation(claim)).collect();
        self.compile(facts);
    }

    /// Whether objects stand behind a claim.
    #[must_use]
    pub fn is_claimed(&self, claim: &Text) -> bool {
        self.claims.contains(claim)
    }

    /// A plan that releases what a claim holds, for an operator.
    #[must_use]
    pub fn release(&self, claim: &Text, now: i64) -> Plan {
        ipam::release(&self.read_pools, &self.ledger, claim, now)
    }

    /// That plan has been written.
    pub fn released(&mut self, plan: &Plan) {
        self.apply(plan);
        self.desk.retry();
    }

    /// What is to be sent out since the last call.
    pub fn publication(&mut self) -> Publication {
        self.emitter.take()
    }

    /// The listeners of a gateway.
    pub fn listeners(&self, gateway: &GatewayKey) -> impl Iterator<Item = &ListenerKey> {
        self.emitter.listeners(gateway)
    }

    #[must_use]
    pub fn compiled(&self) -> &Compile {
        &self.compile
    }

    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    #[must_use]
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// What is wrong with pools.
    #[must_use]
    pub fn pool_findings(&self) -> &[Finding] {
        &self.pool_findings
    }

    fn allocation(&self, claim: &Text) -> (FactKey, Option<Input>) {
        let held: Vec<IpAddr> = self.ledger.held(claim).collect();
        let input = (!held.is_empty()).then(|| Input::Allocation(held.into()));
        (FactKey::Allocation(Arc::clone(claim)), input)
    }

    fn compile(&mut self, facts: Vec<(FactKey, Option<Input>)>) {
        if facts.is_empty() {
            return;
        }
        let Delta { outcomes, reported } = self.compile.apply(facts);
        for outcome in outcomes {
            if let Outcome::Gateway(key, gateway) = &outcome {
                let claim = gateway.as_ref().map(|gateway| Arc::new(gateway.claim.clone()));
                let name: Text = key.to_string().into();
                if claim.is_some() {
                    self.claims.insert(Arc::clone(&name));
                } else {
                    self.claims.remove(&name);
                }
                self.desk.set_claim(&name, claim);
            }
            self.emitter.emit(outcome);
        }
        self.emitter.report(reported);
    }
}
