//! The loop: collect, compile, publish.
//!
//! *Takes* batches of changes from sources, the ledger's store, events of engines.
//! *Gives* resources to the xDS server, records to DNS, plans to the store.
//! *Invariants*: nothing leaves before the first full sync; a VIP is announced only
//! after its plan is written; one task owns it all. *To add one* (an output): a
//! field of [`Publication`], filled in `emit`, handed on in the loop.

mod core;
mod emit;

pub use self::core::Core;
pub use emit::{Publication, ZoneChange};
