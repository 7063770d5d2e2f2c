//! A set of addresses as runs without gaps, so that "the next that is free" is
//! one look-up however many are taken.

use super::range::{after, before};
use std::{collections::BTreeMap, net::IpAddr};

/// First to last address of each run; no run touches the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs(BTreeMap<IpAddr, IpAddr>);

impl Runs {
    /// The last address of the run that holds this one.
    pub(super) fn end(&self, address: IpAddr) -> Option<IpAddr> {
        let (_, last) = self.0.range(..=address).next_back()?;
        (*last >= address).then_some(*last)
    }

    pub(super) fn insert(&mut self, address: IpAddr) {
        if self.end(address).is_some() {
            return;
        }
        let follows = after(address).and_then(|next| self.0.remove(&next));
        let last = follows.unwrap_or(address);
        let precedes = before(address).and_then(|previous| {
            let (first, last) = self.0.range(..=previous).next_back()?;
            (*last == previous).then_some(*first)
        });
        self.0.insert(precedes.unwrap_or(address), last);
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        let Some((&first, &last)) = self.0.range(..=address).next_back() else { return };
        if last < address {
            return;
        }
        self.0.remove(&first);
        if let Some(before) = before(address).filter(|_| first < address) {
            self.0.insert(first, before);
        }
        if let Some(after) = after(address).filter(|_| address < last) {
            self.0.insert(after, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, net::Ipv4Addr};

    proptest! {
        /// The same as a plain set, whatever is done to it.
        #[test]
        fn is_a_set(steps in prop::collection::vec((any::<bool>(), 0_u8..24), 0..80)) {
            let address = |last: u8| IpAddr::from(Ipv4Addr::new(255, 255, 255, 232 + last));
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (insert, last) in steps {
                if insert {
                    runs.insert(address(last));
                    set.insert(last);
                } else {
                    runs.remove(address(last));
                    set.remove(&last);
                }
                for last in 0..24 {
                    let end = (last..24).take_while(|at| set.contains(at)).last();
                    prop_assert_eq!(runs.end(address(last)), end.map(address));
                }
                let starts = set.iter().filter(|at| **at == 0 || !set.contains(&(**at - 1))).count();
                prop_assert_eq!(runs.0.len(), starts);
            }
        }
    }
}
