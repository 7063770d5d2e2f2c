//! Who reads what, in four bytes.

use super::table::Id;

/// One end of a reading: how, and the number at the other end. Among what a unit
/// reads that is a fact, a unit or an index; among readers it is a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Edge(u32);

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Fact,
    Unit,
    /// Keeps a unit alive without waking its reader.
    Demand,
    Members,
    First,
    Any,
}

const HOW: [How; 6] = [How::Fact, How::Unit, How::Demand, How::Members, How::First, How::Any];
const HOW_BITS: u32 = 3;

impl Edge {
    /// 2^29 numbers fit: more than memory holds units.
    pub(super) fn new(how: How, id: Id) -> Self {
        assert!(id < 1 << (Id::BITS - HOW_BITS), "too many facts, units or indexes");
        Self(id << HOW_BITS | how as u32)
    }

    pub(super) fn how(self) -> How {
        HOW[(self.0 & ((1 << HOW_BITS) - 1)) as usize]
    }

    pub(super) fn id(self) -> Id {
        self.0 >> HOW_BITS
    }

    /// The same reading, seen from its other end.
    pub(super) fn other_end(self, id: Id) -> Self {
        Self::new(self.how(), id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_parts() {
        for how in HOW {
            let edge = Edge::new(how, (1 << 29) - 1);
            assert_eq!((edge.how(), edge.id()), (how, (1 << 29) - 1));
            assert_eq!(edge.other_end(7), Edge::new(how, 7));
        }
    }
}
