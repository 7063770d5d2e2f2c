//! What is written behind the changes it came with: first sights of objects and
//! serials of zones, those of a second in one commit.
//!
//! A crash in between costs an order among objects that came in that second, not
//! a VIP; zones take serials up so far behind that none comes twice.

use super::LedgerThread;
use crate::{
    base::ObjectKey,
    clock, failpoint,
    inputs::fact::Age,
    store::{FirstSeen, Serial},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long something waits for more to be written with it: a commit takes more
/// of a core than the change itself.
const WAIT: Duration = Duration::from_secs(1);
/// More changes than this do not wait. Each may raise a serial, and after a crash
/// zones pass over 1,000 unwritten ones.
const CHANGES_MAX: usize = 100;

pub(super) struct Behind {
    ledger: LedgerThread,
    ages: Vec<(ObjectKey, Option<FirstSeen>)>,
    serials: BTreeMap<String, Serial>,
    changes: usize,
    due: Option<Instant>,
}

impl Behind {
    pub(super) fn new(ledger: LedgerThread) -> Self {
        Self { ledger, ages: Vec::new(), serials: BTreeMap::new(), changes: 0, due: None }
    }

    /// First sights to be remembered, or (none) forgotten.
    pub(super) fn ages(&mut self, ages: Vec<(ObjectKey, Option<Age>)>) {
        let count = ages.len();
        let seen = |age: Age| FirstSeen { seconds: age.seconds, batch: age.batch };
        self.ages.extend(ages.into_iter().map(|(key, age)| (key, age.map(seen))));
        self.took(count);
    }

    /// A serial that so many changes have led to.
    pub(super) fn serial(&mut self, zone: String, serial: Serial, changes: usize) {
        self.serials.insert(zone, serial);
        self.took(changes);
    }

    fn took(&mut self, changes: usize) {
        self.changes += changes;
        if self.changes > CHANGES_MAX {
            self.write();
        } else if changes > 0 {
            self.due.get_or_insert_with(|| clock::instant() + WAIT);
        }
    }

    /// When to write what waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn write(&mut self) {
        (self.changes, self.due) = (0, None);
        let ages = std::mem::take(&mut self.ages);
        let serials: Vec<_> = std::mem::take(&mut self.serials).into_iter().collect();
        if ages.is_empty() && serials.is_empty() {
            return;
        }
        self.ledger.tell(move |store| {
            failpoint::pass("remember.before");
            if let Err(error) = store.remember(&ages, &serials) {
                tracing::error!(%error, "First sights of objects and serials could not be written");
            }
            failpoint::pass("remember.after");
        });
    }
}

/// A site that is stopped forgets nothing.
impl Drop for Behind {
    fn drop(&mut self) {
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::ObjectKind, store::Store};

    fn sight(number: usize) -> (ObjectKey, Option<Age>) {
        let key = ObjectKey::new(ObjectKind::Ingress, "shop", &format!("i{number}"));
        (key, Some(Age { seconds: 7, batch: 1 }))
    }

    #[tokio::test]
    async fn sights_of_a_second_are_one_commit_and_the_last_come_with_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let opened = Store::open(dir.path()).expect("opens");
        let (ledger, thread) = LedgerThread::start(opened.store);
        let mut behind = Behind::new(ledger.clone());
        let before = ledger.ask(|store| store.generation()).await;
        behind.ages(vec![sight(0)]);
        let due = behind.due().expect("it waits");
        behind.ages(vec![sight(1)]);
        assert_eq!(behind.due(), Some(due), "what came first waits no longer for the second");
        assert_eq!(ledger.ask(|store| store.generation()).await, before);
        behind.write();
        assert_eq!((ledger.ask(|store| store.generation()).await, behind.due()), (before + 1, None));
        behind.ages((2..200).map(sight).collect());
        assert_eq!((ledger.ask(|store| store.generation()).await, behind.due()), (before + 2, None));
        behind.ages(vec![sight(200)]);
        drop((behind, ledger));
        thread.join().expect("ends");
        assert_eq!(Store::open(dir.path()).expect("opens").ages.len(), 201);
    }
}
