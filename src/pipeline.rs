//! The loop: collect, compile, publish.
//!
//! *Takes* batches of changes from sources, events of engines, questions. *Gives*
//! resources to the xDS server, records to DNS, plans to the store. *Invariants*:
//! nothing leaves before the first full sync; a VIP is announced only after its
//! plan is written; one task owns it all. *To add one* (an output): a field of
//! [`crate::desired::Publication`], handed on in `run`.

mod behind;
mod course;
mod journey;
mod last_good;
mod ledger;
mod observed;
mod run;

pub use course::{Course, Next};
pub use journey::Stages;
pub use last_good::Kept;
pub use ledger::LedgerThread;
pub use observed::Observed;
pub use run::{Inlets, Pipeline, Query, Released};
