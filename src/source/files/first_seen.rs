//! When objects that write no creationTimestamp were first seen.

use crate::{base::ObjectKey, inputs::fact::Age};
use std::collections::BTreeMap;

/// Ages by object: all that come in one pass are equally old, and the next pass
/// is younger, also when the clock goes back.
#[derive(Debug)]
pub(super) struct FirstSeen {
    known: BTreeMap<ObjectKey, Age>,
    next: Age,
    used: bool,
    fresh: Vec<(ObjectKey, Option<Age>)>,
}

impl FirstSeen {
    pub(super) fn new(known: BTreeMap<ObjectKey, Age>) -> Self {
        let last = known.values().max().copied().unwrap_or(Age { seconds: i64::MIN, batch: 0 });
        let batch = known.values().map(|age| age.batch).max().unwrap_or(0) + 1;
        Self { known, next: Age { seconds: last.seconds, batch }, used: false, fresh: Vec::new() }
    }

    /// A pass begins at this time (unix seconds).
    pub(super) fn begin(&mut self, now: i64) {
        self.next.seconds = self.next.seconds.max(now);
        if std::mem::take(&mut self.used) {
            self.next.batch += 1;
        }
    }

    /// How old an object is that is seen now.
    pub(super) fn age(&self, key: &ObjectKey) -> Age {
        self.known.get(key).copied().unwrap_or(self.next)
    }

    /// An object is there, and this old by what [`FirstSeen::age`] said of it; none
    /// where it tells its age itself.
    pub(super) fn note(&mut self, key: &ObjectKey, age: Option<Age>) {
        if let Some(age) = age
            && self.known.get(key) != Some(&age)
        {
            self.used = true;
            self.known.insert(key.clone(), age);
            self.fresh.push((key.clone(), Some(age)));
        }
    }

    /// The object went: one of the same name is a new one.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        if self.known.remove(key).is_some() {
            self.fresh.push((key.clone(), None));
        }
    }

    /// Forgets all that this does not keep.
    pub(super) fn retain(&mut self, keep: impl Fn(&ObjectKey) -> bool) {
        let gone: Vec<_> = self.known.keys().filter(|key| !keep(key)).cloned().collect();
        for key in gone {
            self.forget(&key);
        }
    }

    /// What is to be remembered since it was last asked.
    pub(super) fn take(&mut self) -> Vec<(ObjectKey, Option<Age>)> {
        std::mem::take(&mut self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectKind;

    #[test]
    fn one_pass_is_one_age_and_later_passes_are_younger() {
        let key = |name| ObjectKey::new(ObjectKind::Ingress, "shop", name);
        let known = BTreeMap::from([(key("old"), Age { seconds: 50, batch: 3 })]);
        let mut seen = FirstSeen::new(known);
        seen.begin(100);
        assert_eq!(seen.age(&key("old")), Age { seconds: 50, batch: 3 });
        let sight = |seen: &mut FirstSeen, name| {
            let age = seen.age(&key(name));
            seen.note(&key(name), Some(age));
            age
        };
        let first = sight(&mut seen, "a");
        assert_eq!((first, sight(&mut seen, "b")), (Age { seconds: 100, batch: 4 }, first));
        seen.begin(90);
        let second = sight(&mut seen, "c");
        assert!(second > first, "the clock went back, the order did not");
        assert_eq!(sight(&mut seen, "a"), first);
        seen.note(&key("told"), None);
        assert_eq!(seen.take().len(), 3);
        seen.forget(&key("a"));
        seen.begin(110);
        assert!(sight(&mut seen, "a") > second, "it came again: it is new");
        assert_eq!(seen.take().len(), 2);
    }
}
