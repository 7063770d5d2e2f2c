//! The API server: what is true, and how word of it reaches the control plane:
//! late, out of order, twice, or not at all until a list is read again.

use crate::{alphabet, dice::Dice, swarm::Swarm};
use std::collections::{BTreeMap, VecDeque};
use tidegate::{
    base::ObjectKey,
    inputs::{Change, Fact},
};

/// Objects as they are.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) objects: BTreeMap<ObjectKey, Fact>,
}

impl Truth {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let mut truth = Self::default();
        for change in alphabet::beginning(dice) {
            truth.apply(&change);
        }
        truth
    }

    pub(crate) fn apply(&mut self, change: &Change) -> bool {
        let Change { key, fact } = change;
        let before = match fact {
            Some(fact) => self.objects.insert(key.clone(), fact.clone()),
            None => self.objects.remove(key),
        };
        before != *fact
    }
}

/// What a source hands to the control plane.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) changes: Vec<Change>,
    pub(crate) first: bool,
    pub(crate) whole: bool,
}

/// One control plane's watch.
#[derive(Debug)]
pub(crate) struct Feed {
    /// What is left of the first list.
    list: Option<Vec<(ObjectKey, Fact)>>,
    /// Events not delivered yet: those of one object keep their order.
    queued: BTreeMap<ObjectKey, VecDeque<Option<Fact>>>,
    view: BTreeMap<ObjectKey, Fact>,
    lost: bool,
}

impl Feed {
    pub(crate) fn new(truth: &Truth, dice: &mut Dice) -> Self {
        let mut list: Vec<_> = truth.objects.clone().into_iter().collect();
        dice.shuffle(&mut list);
        Self { list: Some(list), queued: BTreeMap::new(), view: BTreeMap::new(), lost: false }
    }

    /// Whether the first list is delivered.
    pub(crate) fn listed(&self) -> bool {
        self.list.is_none()
    }

    pub(crate) fn event(&mut self, change: &Change, swarm: &Swarm, dice: &mut Dice) {
        if dice.chance(swarm.lost) {
            self.lost = true;
            return;
        }
        let queue = self.queued.entry(change.key.clone()).or_default();
        queue.push_back(change.fact.clone());
        if dice.chance(swarm.duplicated) {
            queue.push_back(change.fact.clone());
        }
    }

    /// Something happened while the list was read: it may or may not be in it.
    pub(crate) fn missed(&mut self) {
        self.lost = true;
    }

    pub(crate) fn pending(&self) -> bool {
        self.list.is_some() || self.lost || !self.queued.is_empty()
    }

    /// Something of what is under way arrives.
    pub(crate) fn deliver(&mut self, truth: &Truth, swarm: &Swarm, dice: &mut Dice) -> Batch {
        if let Some(mut list) = self.list.take() {
            let some = list.split_off(list.len() - (1 + dice.below(list.len().max(1))).min(list.len()));
            let batch = self.take(some.into_iter().map(|(key, fact)| (key, Some(fact))).collect());
            let first = list.is_empty();
            self.list = (!first).then_some(list);
            return Batch { first, whole: first, ..batch };
        }
        let mut changes = Vec::new();
        let keys: Vec<_> = self.queued.keys().cloned().collect();
        for key in keys {
            if dice.chance(swarm.late) {
                continue;
            }
            changes.extend(self.next(&key).map(|fact| (key, fact)));
        }
        dice.shuffle(&mut changes);
        if changes.is_empty() && self.lost {
            return self.relist(truth);
        }
        self.take(changes)
    }

    fn next(&mut self, key: &ObjectKey) -> Option<Option<Fact>> {
        let queue = self.queued.get_mut(key)?;
        let fact = queue.pop_front();
        if queue.is_empty() {
            self.queued.remove(key);
        }
        fact
    }

    /// Everything is read again: what is there, and what is gone.
    fn relist(&mut self, truth: &Truth) -> Batch {
        self.lost = false;
        self.queued.clear();
        let gone = self.view.keys().filter(|key| !truth.objects.contains_key(*key));
        let mut changes: Vec<_> = gone.map(|key| (key.clone(), None)).collect();
        let there = truth.objects.iter().filter(|(key, fact)| self.view.get(*key) != Some(*fact));
        changes.extend(there.map(|(key, fact)| (key.clone(), Some(fact.clone()))));
        self.take(changes)
    }

    fn take(&mut self, changes: Vec<(ObjectKey, Option<Fact>)>) -> Batch {
        for (key, fact) in &changes {
            match fact {
                Some(fact) => self.view.insert(key.clone(), fact.clone()),
                None => self.view.remove(key),
            };
        }
        let changes = changes.into_iter().map(|(key, fact)| Change { key, fact }).collect();
        Batch { changes, first: false, whole: true }
    }
}
