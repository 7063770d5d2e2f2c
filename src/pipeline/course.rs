//! The order of effects, without the effects: read, plan, write, publish. The
//! loop does what this says, and so does the seeded simulation.

use crate::{
    base::Text,
    desired::{Desired, Publication},
    inputs::Change,
    ipam::{Ledger, Plan},
    planted::{self, Bug},
};

/// A plan that could not be written is tried again after this many seconds.
const RETRY_SECONDS: i64 = 1;

/// What to do next.
pub enum Next {
    /// Write this to the ledger, then say [`Course::written`] or [`Course::unwritten`].
    Write(Plan),
    /// Send this out. `first`: it is the whole world, and zones take up the
    /// serials that the store remembers.
    Publish { publication: Publication, first: bool },
    /// Nothing, until something changes or the time has come.
    Rest,
}

/// See the module.
pub struct Course {
    desired: Desired,
    /// The first full list is read: from here on things are published.
    synced: bool,
    /// Claims that are no more have given back.
    adopted: bool,
    published: bool,
    wake_at: Option<i64>,
}

impl Course {
    #[must_use]
    pub fn new(desired: Desired) -> Self {
        Self { desired, synced: false, adopted: false, published: false, wake_at: None }
    }

    /// Changes of the world. `first`: the first full list ends with them; `whole`:
    /// nothing of the world could not be read.
    pub fn take(&mut self, changes: Vec<Change>, first: bool, whole: bool) {
        self.desired.take(changes);
        self.synced |= first || planted::is(Bug::PublishBeforeSync);
        if self.synced && whole && !self.adopted {
            // Only a world seen whole may say that a claim is no more.
            self.desired.first_sync();
            self.adopted = true;
        }
    }

    /// What to do at this time, in unix seconds.
    pub fn next(&mut self, now: i64) -> Next {
        self.wake_at = None;
        if !self.synced {
            return Next::Rest;
        }
        let plan = self.desired.plan(now);
        self.wake_at = plan.wake_at;
        if plan.is_empty() || planted::is(Bug::AnnounceBeforeWrite) {
            self.desired.written(&plan);
            return self.publish();
        }
        Next::Write(plan)
    }

    /// The plan is on the disk.
    pub fn written(&mut self, plan: &Plan) {
        self.desired.written(plan);
    }

    /// Who waits for what the plan gives is told why it is not there yet.
    pub fn refused(&mut self, plan: &Plan, why: &str) {
        self.desired.unwritten(plan, why);
    }

    /// The plan could not be written: nothing of it is announced, and it comes
    /// again. What else changed goes out. `reread`: what the ledger holds now,
    /// where it could be opened again.
    pub fn unwritten(&mut self, reread: Option<Ledger>, now: i64) -> Next {
        if let Some(ledger) = reread {
            self.desired.reread(ledger, self.adopted);
        }
        self.wake_at = Some(now + RETRY_SECONDS);
        self.publish()
    }

    fn publish(&mut self) -> Next {
        let publication = self.desired.publication();
        let first = !std::mem::replace(&mut self.published, true);
        if publication.is_empty() && !first { Next::Rest } else { Next::Publish { publication, first } }
    }

    /// The plan for what an operator asks: see [`Desired::release`].
    pub fn release(&self, claim: &Text, now: i64) -> Result<Plan, String> {
        if !self.synced {
            return Err("the sources are not read yet".to_owned());
        }
        if self.desired.is_claimed(claim) {
            return Err(format!("{claim} is in use: its addresses go when the objects behind it go"));
        }
        Ok(self.desired.release(claim, now))
    }

    /// That plan is on the disk.
    pub fn released(&mut self, plan: &Plan) {
        self.desired.released(plan);
    }

    /// When to ask again though nothing changed, in unix seconds.
    #[must_use]
    pub fn wake_at(&self) -> Option<i64> {
        self.wake_at
    }

    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced
    }
}
