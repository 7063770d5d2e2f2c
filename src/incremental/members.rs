//! The members of an index: mostly one, sometimes all there are.

use std::collections::BTreeMap;

/// A sorted set that counts its contributors. One member is kept without a tree:
/// a tree's node has room for eleven, and there are several indexes a host.
#[expect(clippy::box_collection, reason = "there is an index for each host, and few hold a tree")]
pub(super) enum Members<E> {
    /// Apart: a member may take 200 bytes, and the table of indexes has empty places.
    One(Box<(E, u32)>),
    Many(Box<BTreeMap<E, u32>>),
}

/// What a change did to the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effect {
    /// The set of members changed.
    pub(super) members: bool,
    /// The least member changed.
    pub(super) first: bool,
}

impl<E: Ord + Clone> Members<E> {
    pub(super) fn new(entry: E) -> Self {
        Self::One(Box::new((entry, 1)))
    }

    pub(super) fn add(&mut self, entry: &E) -> Effect {
        match self {
            Self::One(one) if one.0 == *entry => {
                one.1 += 1;
                Effect { members: false, first: false }
            }
            Self::One(one) => {
                let first = *entry < one.0;
                *self = Self::Many(Box::new([(**one).clone(), (entry.clone(), 1)].into()));
                Effect { members: true, first }
            }
            Self::Many(many) => {
                let count = many.entry(entry.clone()).or_insert(0);
                *count += 1;
                let members = *count == 1;
                Effect { members, first: members && many.keys().next() == Some(entry) }
            }
        }
    }

    /// Takes one contributor's entry away; nothing is left when that was the last.
    pub(super) fn remove(mut self, entry: &E) -> (Option<Self>, Effect) {
        let unchanged = Effect { members: false, first: false };
        match &mut self {
            Self::One(one) if one.0 != *entry => (Some(self), unchanged),
            Self::One(one) if one.1 == 1 => (None, Effect { members: true, first: true }),
            Self::One(one) => {
                one.1 -= 1;
                (Some(self), unchanged)
            }
            Self::Many(many) => {
                let Some(count) = many.get_mut(entry) else { return (Some(self), unchanged) };
                *count -= 1;
                if *count > 0 {
                    return (Some(self), unchanged);
                }
                let first = many.keys().next() == Some(entry);
                many.remove(entry);
                let left = if many.len() == 1 {
                    many.pop_first().map(|one| Self::One(Box::new(one)))
                } else {
                    Some(self)
                };
                (left, Effect { members: true, first })
            }
        }
    }

    pub(super) fn first(&self) -> Option<&E> {
        match self {
            Self::One(one) => Some(&one.0),
            Self::Many(many) => many.keys().next(),
        }
    }

    pub(super) fn to_vec(&self) -> Vec<E> {
        match self {
            Self::One(one) => vec![one.0.clone()],
            Self::Many(many) => many.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_contributors_and_tells_what_changed() {
        let mut set = Members::new(5);
        assert_eq!(set.add(&5), Effect { members: false, first: false });
        assert_eq!(set.add(&7), Effect { members: true, first: false });
        assert_eq!(set.add(&3), Effect { members: true, first: true });
        assert_eq!(set.to_vec(), [3, 5, 7]);
        let (set, effect) = set.remove(&5);
        assert_eq!(effect, Effect { members: false, first: false });
        let (set, effect) = set.expect("members").remove(&5);
        assert_eq!(effect, Effect { members: true, first: false });
        let (set, effect) = set.expect("members").remove(&3);
        assert_eq!(effect, Effect { members: true, first: true });
        let set = set.expect("members");
        assert_eq!(set.first(), Some(&7));
        assert!(set.remove(&7).0.is_none());
    }
}
