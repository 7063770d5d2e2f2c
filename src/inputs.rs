//! Facts: what was read from the world, by key.
//!
//! *Takes* objects as users write them. *Gives* facts: the fields some unit reads,
//! and nothing else of an object. *Invariants*: one fact a key; knows nothing of
//! where facts come from, and keeps none (the compile does). *To add one*: a struct in `inputs/fact.rs`, a variant
//! of [`Fact`], and its reading from an API object in `inputs/read/`.

pub mod fact;
pub mod read;
#[cfg(test)]
mod store;

use crate::base::ObjectKey;
pub use fact::Fact;
#[cfg(test)]
pub(crate) use store::Inputs;

/// One fact that came, changed, or (`None`) went.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub key: ObjectKey,
    pub fact: Option<Fact>,
}
