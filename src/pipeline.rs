//! The loop: collect, compile, publish.
//!
//! *Takes* batches of changes from sources, events of engines, questions. *Gives*
//! resources to the xDS server, records to DNS, plans to the store. *Invariants*:
//! nothing leaves before the first full sync; a VIP is announced only after its
//! plan is written; one task owns it all. *To add one* (an output): a field of
//! [`Publication`], filled in `emit`, handed on in `run`.

mod core;
mod emit;
mod last_good;
mod ledger;
mod observed;
mod run;
pub mod show;

pub use self::core::Core;
pub use emit::{Publication, ZoneChange};
pub use last_good::Kept;
pub use ledger::LedgerThread;
pub use observed::Observed;
pub use run::{Inlets, Pipeline, Query, Released};
