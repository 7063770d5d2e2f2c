//! When an object that does not say how old it is was first seen.

use crate::base::ObjectKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Objects that were first seen together have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FirstSeen {
    /// Unix seconds.
    pub seconds: i64,
    /// Counts first sights, from 1: decides where the clock does not.
    pub batch: u64,
}

/// All objects of which it is known.
pub type Ages = BTreeMap<ObjectKey, FirstSeen>;
