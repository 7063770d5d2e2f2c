//! Who reads a node: mostly one or two units, sometimes all of them.

use super::edge::Edge;
use std::collections::HashSet;

/// A set that is small when it has few members, and quick when it has many.
#[expect(clippy::box_collection, reason = "each node has readers, and few have a set of them")]
pub(super) enum Readers {
    Few(u8, [Edge; FEW_MAX]),
    Many(Box<HashSet<Edge>>),
}

/// As many as take the room that a set beside them needs anyway.
const FEW_MAX: usize = 3;

impl Default for Readers {
    fn default() -> Self {
        Self::Few(0, [Edge::default(); FEW_MAX])
    }
}

impl Readers {
    pub(super) fn insert(&mut self, edge: Edge) {
        match self {
            Self::Few(len, edges) => {
                let known = usize::from(*len);
                if edges[..known].contains(&edge) {
                    return;
                }
                if known < FEW_MAX {
                    edges[known] = edge;
                    *len += 1;
                } else {
                    *self = Self::Many(Box::new(edges.iter().copied().chain([edge]).collect()));
                }
            }
            Self::Many(many) => {
                many.insert(edge);
            }
        }
    }

    pub(super) fn remove(&mut self, edge: Edge) {
        match self {
            Self::Few(len, edges) => {
                let known = usize::from(*len);
                if let Some(at) = edges[..known].iter().position(|known| *known == edge) {
                    edges.swap(at, known - 1);
                    *len -= 1;
                }
            }
            Self::Many(many) => {
                many.remove(&edge);
                if many.is_empty() {
                    *self = Self::default();
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(len, _) => *len == 0,
            Self::Many(many) => many.is_empty(),
        }
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Edge> + '_ {
        let (few, many) = match self {
            Self::Few(len, edges) => (&edges[..usize::from(*len)], None),
            Self::Many(many) => (&[][..], Some(many.iter())),
        };
        few.iter().chain(many.into_iter().flatten()).copied()
    }
}

const _: () = assert!(size_of::<Readers>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incremental::edge::How;

    #[test]
    fn is_a_set_of_any_size() {
        let edge = |id| Edge::new(How::Fact, id);
        let mut readers = Readers::default();
        for size in [0, 1, 3, 4, 50] {
            for _ in 0..2 {
                (0..size).for_each(|id| readers.insert(edge(id)));
            }
            let mut all: Vec<_> = readers.iter().map(Edge::id).collect();
            all.sort_unstable();
            assert_eq!(all, (0..size).collect::<Vec<_>>());
            (0..size).for_each(|id| readers.remove(edge(id)));
            readers.remove(edge(99));
            assert!(readers.is_empty());
        }
    }
}
