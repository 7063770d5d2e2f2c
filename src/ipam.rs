//! Addresses for gateways: pools, claims, and a plan that never gives one twice.
//!
//! *Takes* VipPools, claims, the ledger as it was last written, and the time as
//! a number. *Gives* a [`Plan`]: what to write, before anything of it may be
//! announced. *Invariants*: pure; an address has one owner; one that was
//! released waits for its quarantine, and as long as we still name it; a claim
//! keeps what it has until it asks for something else, whatever becomes of the
//! pool; the same request gives the same plan, in any order; the cost is that
//! of what is pending. Knows nothing of where the ledger is kept. *To add one*:
//! what a pool may say goes into `pool`, what a claim may ask into `plan`.

mod check;
mod desk;
mod ledger;
mod plan;
mod pool;
mod range;
mod runs;
#[cfg(test)]
mod tests;
mod utc;

pub use check::{check, check_step, free};
pub use desk::Desk;
pub use ledger::{Broken, Entry, Ledger, State};
pub use plan::{Allocation, ClaimFinding, Plan, Release, Request, end_quarantine, plan, release};
pub use pool::{ENTRIES_MAX, Pool, Pools};
pub use range::{Family, Span, Spans};
