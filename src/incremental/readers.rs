//! Who reads a node: mostly one or two units, sometimes all of them.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// A set that is small when it has few members, and quick when it has many.
#[expect(
    clippy::box_collection,
    reason = "the table of readers has empty places, and a set is twice a vector"
)]
pub(super) enum Readers<U> {
    Few(Vec<Arc<U>>),
    Many(Box<HashSet<Arc<U>>>),
}

/// A vector is searched from end to end, so it stays short.
const FEW_MAX: usize = 16;

impl<U> Default for Readers<U> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<U: Eq + Hash> Readers<U> {
    pub(super) fn insert(&mut self, unit: &Arc<U>) {
        match self {
            Self::Few(few) if few.iter().any(|known| Arc::ptr_eq(known, unit) || known == unit) => {}
            Self::Few(few) if few.len() < FEW_MAX => {
                // Most nodes have one reader, and a vector would begin with room for four.
                if few.is_empty() {
                    few.reserve_exact(1);
                }
                few.push(Arc::clone(unit));
            }
            Self::Few(few) => {
                let mut many: HashSet<_> = few.drain(..).collect();
                many.insert(Arc::clone(unit));
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => {
                many.insert(Arc::clone(unit));
            }
        }
    }

    pub(super) fn remove(&mut self, unit: &Arc<U>) {
        match self {
            Self::Few(few) => few.retain(|known| known != unit),
            Self::Many(many) => {
                many.remove(unit);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = &Arc<U>> + '_> {
        match self {
            Self::Few(few) => Box::new(few.iter()),
            Self::Many(many) => Box::new(many.iter()),
        }
    }
}
