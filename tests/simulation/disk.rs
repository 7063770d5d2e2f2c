//! What survives a crash. A commit of the ledger is on the disk when it returns;
//! what is written behind (serials, last good resources) may be lost.

use std::collections::VecDeque;
use tidegate::{
    ipam::{Broken, Ledger, Plan},
    server::cache::LastGood,
    store::{Serial, Serials},
};

/// What is written behind.
#[derive(Debug)]
pub(crate) enum Job {
    Serials(Vec<(String, Serial)>),
    LastGood(Vec<LastGood>),
}

/// How a write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Nothing is written, and the writer hears of it.
    Full,
    /// It is written, and the writer hears that it is not.
    InDoubt,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) ledger: Ledger,
    pub(crate) serials: Serials,
    pub(crate) last_good: Vec<LastGood>,
    jobs: VecDeque<Job>,
    /// After a write that failed the ledger is to be opened again.
    failed: bool,
}

/// Why a commit failed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// `written`: it is there all the same.
    Fault { written: bool },
    /// The fence: the plan does not fit what is on the disk.
    Fence(Broken),
}

impl Disk {
    /// As [`tidegate::store::Store::commit`]: fenced by what is on the disk.
    pub(crate) fn commit(&mut self, plan: &Plan, fault: Fault) -> Result<(), Refused> {
        if self.failed || fault == Fault::Full {
            self.failed = true;
            return Err(Refused::Fault { written: false });
        }
        self.ledger.apply(plan).map_err(Refused::Fence)?;
        self.failed = fault == Fault::InDoubt;
        if self.failed { Err(Refused::Fault { written: true }) } else { Ok(()) }
    }

    /// As [`tidegate::store::Store::reopen`].
    pub(crate) fn reopen(&mut self, fault: Fault) -> Option<Ledger> {
        self.failed &= fault == Fault::Full;
        (!self.failed).then(|| self.ledger.clone())
    }

    pub(crate) fn behind(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// One thing that was to be written behind is written.
    pub(crate) fn work(&mut self, fault: Fault) -> bool {
        let Some(job) = self.jobs.pop_front() else { return false };
        if fault != Fault::Full {
            match job {
                Job::Serials(serials) => self.serials.extend(serials),
                Job::LastGood(all) => self.last_good = all,
            }
        }
        true
    }

    /// The process dies; `power`: what was not synced is lost.
    pub(crate) fn crash(&mut self, power: bool) {
        if power {
            self.jobs.clear();
        }
        // The kernel has what the process had handed over, and no more.
        self.work(Fault::None);
        self.jobs.clear();
        self.failed = false;
    }
}
