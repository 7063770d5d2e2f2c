//! The members of an index: mostly one, sometimes all hosts.

use std::collections::BTreeMap;

/// A set that is never empty and counts how often each member was added. A map of
/// one takes eleven times the room of its member, and most indexes have one.
pub(super) enum Members<E> {
    One(Box<(E, u32)>),
    Many(BTreeMap<E, u32>),
}

/// What a removal left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// It was not there, or was added more often.
    Still,
    Gone,
    /// It was the only member: the set is to be dropped.
    Last,
}

impl<E: Ord + Clone> Members<E> {
    pub(super) fn of(entry: E) -> Self {
        Self::One(Box::new((entry, 1)))
    }

    /// Whether it is a member only now.
    pub(super) fn insert(&mut self, entry: &E) -> bool {
        match self {
            Self::One(one) if one.0 == *entry => {
                one.1 += 1;
                false
            }
            Self::One(one) => {
                *self = Self::Many(BTreeMap::from([(**one).clone(), (entry.clone(), 1)]));
                true
            }
            Self::Many(many) => {
                let count = many.entry(entry.clone()).or_insert(0);
                *count += 1;
                *count == 1
            }
        }
    }

    pub(super) fn remove(&mut self, entry: &E) -> Removed {
        match self {
            Self::One(one) if one.0 != *entry => Removed::Still,
            Self::One(one) => {
                one.1 -= 1;
                if one.1 == 0 { Removed::Last } else { Removed::Still }
            }
            Self::Many(many) => {
                let Some(count) = many.get_mut(entry) else { return Removed::Still };
                *count -= 1;
                if *count > 0 {
                    return Removed::Still;
                }
                many.remove(entry);
                if many.is_empty() { Removed::Last } else { Removed::Gone }
            }
        }
    }

    pub(super) fn first(&self) -> &E {
        self.iter().next().expect("a set of members is never empty")
    }

    /// Sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        let (one, many) = match self {
            Self::One(one) => (Some(&one.0), None),
            Self::Many(many) => (None, Some(many.keys())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sorts() {
        let mut set = Members::of(2);
        assert!(!set.insert(&2) && set.insert(&1) && set.insert(&3) && !set.insert(&3));
        assert_eq!((set.iter().copied().collect::<Vec<_>>(), *set.first()), (vec![1, 2, 3], 1));
        assert_eq!(set.remove(&9), Removed::Still);
        assert_eq!(set.remove(&1), Removed::Gone);
        assert_eq!([set.remove(&2), set.remove(&2)], [Removed::Still, Removed::Gone]);
        assert_eq!([set.remove(&3), set.remove(&3)], [Removed::Still, Removed::Last]);
        let mut one = Members::of(7);
        assert_eq!([one.remove(&8), one.remove(&7)], [Removed::Still, Removed::Last]);
    }
}
