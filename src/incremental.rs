//! Units on fixed levels, recomputed only when something they read has changed.
//!
//! *Takes* changed facts. *Gives* the units whose value changed. *Invariants*:
//! a unit reads through its [`View`] alone, and only what lies on lower levels;
//! a level is drained before the next, so each unit runs at most once a change;
//! a unit whose value is equal wakes nobody; the outcome depends on the facts
//! and not on the order in which they came. Knows nothing of what units mean.
//! *To add one*: a variant of the program's unit (see `compile`).
//!
//! A unit lives while it has a root (a fact, or an index that is not empty) or a
//! reader; upstreams and certificates are so counted by the hosts that name them.
//!
//! An index is a set kept up by facts and units; a unit may read its members, its
//! first member, or whether it has any, and is woken only when that answer
//! changes: a read over all hosts of a gateway costs O(change), not O(hosts).

mod members;
mod readers;

use members::{Effect, Members};
use readers::Readers;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
};

/// What keys must be able to do.
pub trait Key: Clone + Eq + Ord + Hash + Debug {}
impl<T: Clone + Eq + Ord + Hash + Debug> Key for T {}

/// Entries a value keeps in indexes.
pub type Entries<P> = Vec<(<P as Program>::Index, <P as Program>::Entry)>;

/// What is computed: the domain behind the machinery.
pub trait Program: Sized {
    type Fact: Key;
    type Input: Clone + PartialEq;
    type Unit: Key;
    /// Cheap to clone.
    type Value: Clone + PartialEq;
    type Index: Key;
    type Entry: Key;
    /// What a unit has to say to people; changes of it wake no unit.
    type Note: Clone + PartialEq;

    /// How many levels there are.
    const LEVELS: usize;
    /// The level of a unit, below [`Program::LEVELS`].
    fn level(unit: &Self::Unit) -> usize;
    /// The level whose units (or 0: only facts) fill an index; its readers are above.
    fn index_level(index: &Self::Index) -> usize;
    /// The unit's value: a pure function of what the view shows.
    fn run(&self, unit: &Self::Unit, view: &mut View<'_, Self>) -> (Self::Value, Vec<Self::Note>);
    /// The value of a unit whose run panicked and that has no last good one.
    fn broken(unit: &Self::Unit) -> Self::Value;
    /// Index entries of a fact.
    fn fact_entries(fact: &Self::Fact, input: &Self::Input) -> Entries<Self>;
    /// Index entries of a unit's value.
    fn unit_entries(unit: &Self::Unit, value: &Self::Value) -> Entries<Self>;
    /// The unit that lives as long as the fact.
    fn fact_root(fact: &Self::Fact) -> Option<Self::Unit>;
    /// The unit that lives as long as the index has a member.
    fn index_root(index: &Self::Index) -> Option<Self::Unit>;
}

/// Facts, indexes and units of one program.
pub struct Graph<P: Program> {
    facts: HashMap<P::Fact, P::Input>,
    indexes: HashMap<P::Index, Members<P::Entry>>,
    units: HashMap<Arc<P::Unit>, Slot<P>>,
    readers: HashMap<Arc<Node<P>>, Readers<P::Unit>>,
    dirty: Vec<BTreeSet<Arc<P::Unit>>>,
    /// Units that may have lost their last reader or root.
    doubtful: BTreeSet<Arc<P::Unit>>,
    changed: BTreeMap<Arc<P::Unit>, Change>,
    /// Runs so far: what a change cost, for tests and metrics.
    runs: u64,
}

struct Slot<P: Program> {
    value: P::Value,
    notes: Box<[P::Note]>,
    /// Sorted; each node is shared with all its readers.
    reads: Box<[Arc<Node<P>>]>,
    roots: u32,
}

/// What a unit may read, and be woken by.
enum Node<P: Program> {
    Fact(P::Fact),
    Unit(Arc<P::Unit>),
    /// Keeps the unit alive without waking its reader.
    Demand(Arc<P::Unit>),
    Members(P::Index),
    First(P::Index),
    Any(P::Index),
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub value: bool,
    pub notes: bool,
}

/// The facts and units a unit may look at; what it looked at is recorded.
pub struct View<'a, P: Program> {
    graph: &'a mut Graph<P>,
    program: &'a P,
    level: usize,
    reads: Vec<Node<P>>,
}

impl<P: Program> View<'_, P> {
    /// A fact, or that there is none.
    pub fn fact(&mut self, fact: &P::Fact) -> Option<P::Input> {
        self.reads.push(Node::Fact(fact.clone()));
        self.graph.facts.get(fact).cloned()
    }

    /// The value of a unit of a lower level; it is made if nobody asked before.
    pub fn unit(&mut self, unit: &P::Unit) -> P::Value {
        let (unit, value) = self.require(unit);
        self.reads.push(Node::Unit(unit));
        value
    }

    /// Keeps a unit of a lower level alive without being woken by it.
    pub fn demand(&mut self, unit: &P::Unit) {
        let (unit, _) = self.require(unit);
        self.reads.push(Node::Demand(unit));
    }

    fn require(&mut self, unit: &P::Unit) -> (Arc<P::Unit>, P::Value) {
        assert!(P::level(unit) < self.level, "a unit reads lower levels alone: {unit:?}");
        if let Some((key, slot)) = self.graph.units.get_key_value(unit) {
            return (Arc::clone(key), slot.value.clone());
        }
        let key = Arc::new(unit.clone());
        self.graph.compute(self.program, &key);
        // Nobody reads it until this run is recorded: let the sweep look at it.
        self.graph.doubtful.insert(Arc::clone(&key));
        let value = self.graph.units[&key].value.clone();
        (key, value)
    }

    /// All members of an index, sorted.
    pub fn members(&mut self, index: &P::Index) -> Vec<P::Entry> {
        self.check(index);
        self.reads.push(Node::Members(index.clone()));
        self.graph.indexes.get(index).map(Members::to_vec).unwrap_or_default()
    }

    /// The least member of an index.
    pub fn first(&mut self, index: &P::Index) -> Option<P::Entry> {
        self.check(index);
        self.reads.push(Node::First(index.clone()));
        self.graph.indexes.get(index).and_then(|set| set.first().cloned())
    }

    /// Whether an index has a member.
    pub fn any(&mut self, index: &P::Index) -> bool {
        self.check(index);
        self.reads.push(Node::Any(index.clone()));
        self.graph.indexes.contains_key(index)
    }

    fn check(&self, index: &P::Index) {
        let level = P::index_level(index);
        assert!(level == 0 || level < self.level, "an index is read above those who fill it: {index:?}");
    }
}

impl<P: Program> Default for Graph<P> {
    fn default() -> Self {
        Self {
            facts: HashMap::new(),
            indexes: HashMap::new(),
            units: HashMap::new(),
            readers: HashMap::new(),
            dirty: (0..P::LEVELS).map(|_| BTreeSet::new()).collect(),
            doubtful: BTreeSet::new(),
            changed: BTreeMap::new(),
            runs: 0,
        }
    }
}

impl<P: Program> Graph<P> {
    /// Takes changed facts in and brings every unit up to date. Gives the units
    /// whose value or notes changed; one that is gone is among them and has no
    /// value any more.
    pub fn apply(
        &mut self,
        program: &P,
        facts: impl IntoIterator<Item = (P::Fact, Option<P::Input>)>,
    ) -> BTreeMap<Arc<P::Unit>, Change> {
        for (fact, input) in facts {
            self.set_fact(fact, input);
        }
        loop {
            for level in 0..P::LEVELS {
                while let Some(unit) = self.dirty[level].pop_first() {
                    self.compute(program, &unit);
                }
            }
            // Dropping a unit may empty an index that others read.
            if !self.sweep() {
                return std::mem::take(&mut self.changed);
            }
        }
    }

    /// The value of a unit that lives.
    pub fn value(&self, unit: &P::Unit) -> Option<&P::Value> {
        self.units.get(unit).map(|slot| &slot.value)
    }

    /// What a unit has to say.
    pub fn notes(&self, unit: &P::Unit) -> &[P::Note] {
        self.units.get(unit).map_or(&[], |slot| &slot.notes)
    }

    /// A fact as it is now.
    pub fn fact(&self, fact: &P::Fact) -> Option<&P::Input> {
        self.facts.get(fact)
    }

    /// All facts, in no order.
    pub fn facts(&self) -> impl Iterator<Item = (&P::Fact, &P::Input)> {
        self.facts.iter()
    }

    /// All units with their values, in no order.
    pub fn units(&self) -> impl Iterator<Item = (&P::Unit, &P::Value)> {
        self.units.iter().map(|(unit, slot)| (unit.as_ref(), &slot.value))
    }

    /// How often a unit has run.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    fn set_fact(&mut self, fact: P::Fact, input: Option<P::Input>) {
        if self.facts.get(&fact) == input.as_ref() {
            return;
        }
        let before = self.facts.get(&fact).map(|old| P::fact_entries(&fact, old)).unwrap_or_default();
        let after = input.as_ref().map(|new| P::fact_entries(&fact, new)).unwrap_or_default();
        let (was, is) = (self.facts.contains_key(&fact), input.is_some());
        match input {
            Some(input) => self.facts.insert(fact.clone(), input),
            None => self.facts.remove(&fact),
        };
        self.exchange(before, &after);
        if let (Some(root), true) = (P::fact_root(&fact), was != is) {
            self.root(&root, is);
        }
        self.wake(&Node::Fact(fact));
    }

    /// Runs a unit and records what it read.
    fn compute(&mut self, program: &P, unit: &Arc<P::Unit>) {
        let rooted = self.units.get(unit).is_some_and(|slot| slot.roots > 0);
        if !rooted && self.units.contains_key(unit) && !self.is_read(unit) {
            // Left as it is, somebody could read what it was before this change.
            self.discard(unit);
            return;
        }
        self.runs += 1;
        let level = P::level(unit);
        let mut view = View { graph: self, program, level, reads: Vec::new() };
        let run = std::panic::AssertUnwindSafe(|| program.run(unit, &mut view));
        let outcome = std::panic::catch_unwind(run).ok();
        let mut reads = std::mem::take(&mut view.reads);
        reads.sort_unstable();
        reads.dedup();
        let slot = self.units.get(unit);
        let (value, notes) = outcome.unwrap_or_else(|| match slot {
            // A defect of ours on one object: its last good value stays.
            Some(slot) => (slot.value.clone(), slot.notes.to_vec()),
            None => (P::broken(unit), Vec::new()),
        });
        self.store(unit, value, notes.into(), reads);
    }

    fn store(&mut self, unit: &Arc<P::Unit>, value: P::Value, notes: Box<[P::Note]>, reads: Vec<Node<P>>) {
        let reads: Box<[_]> = reads.into_iter().map(|node| self.shared(node)).collect();
        let old = self.units.remove(unit);
        let change = Change {
            value: old.as_ref().is_none_or(|slot| slot.value != value),
            notes: old.as_ref().map_or(!notes.is_empty(), |slot| slot.notes != notes),
        };
        // Entries are made again where they are needed: kept, they were a tenth of all memory.
        let entries = |value| if change.value { P::unit_entries(unit, value) } else { Vec::new() };
        let after = entries(&value);
        let (old_reads, before, roots) = match old {
            Some(slot) => (slot.reads, entries(&slot.value), slot.roots),
            None => (Box::default(), Vec::new(), 0),
        };
        for node in reads.iter().filter(|node| old_reads.binary_search(node).is_err()) {
            self.readers.entry(Arc::clone(node)).or_default().insert(unit);
        }
        for node in old_reads.iter().filter(|node| reads.binary_search(node).is_err()) {
            self.forget(node, unit);
        }
        self.units.insert(Arc::clone(unit), Slot { value, notes, reads, roots });
        if change.value {
            self.exchange(before, &after);
            self.wake(&Node::Unit(Arc::clone(unit)));
        }
        self.note(unit, change);
    }

    fn shared(&self, node: Node<P>) -> Arc<Node<P>> {
        match self.readers.get_key_value(&node) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(node),
        }
    }

    fn note(&mut self, unit: &Arc<P::Unit>, change: Change) {
        if change.value || change.notes {
            let entry = self.changed.entry(Arc::clone(unit)).or_insert(Change { value: false, notes: false });
            entry.value |= change.value;
            entry.notes |= change.notes;
        }
    }

    fn is_read(&self, unit: &Arc<P::Unit>) -> bool {
        let node = |node| self.readers.contains_key(&node);
        node(Node::Unit(Arc::clone(unit))) || node(Node::Demand(Arc::clone(unit)))
    }

    fn forget(&mut self, node: &Node<P>, reader: &Arc<P::Unit>) {
        if let Some(readers) = self.readers.get_mut(node) {
            readers.remove(reader);
            if readers.is_empty() {
                self.readers.remove(node);
            }
        }
        if let Node::Unit(unit) | Node::Demand(unit) = node {
            self.doubtful.insert(Arc::clone(unit));
        }
    }

    fn wake(&mut self, node: &Node<P>) {
        let Some(readers) = self.readers.get(node) else { return };
        for reader in readers.iter() {
            self.dirty[P::level(reader)].insert(Arc::clone(reader));
        }
    }

    fn root(&mut self, unit: &P::Unit, more: bool) {
        let key = match self.units.get_key_value(unit) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(unit.clone()),
        };
        match self.units.get_mut(&key) {
            Some(slot) if more => slot.roots += 1,
            Some(slot) => slot.roots -= 1,
            None if more => {
                // Its first run comes with its level; until then it has no value.
                let slot =
                    Slot { value: P::broken(unit), notes: Box::default(), reads: Box::default(), roots: 1 };
                self.units.insert(Arc::clone(&key), slot);
                self.note(&key, Change { value: true, notes: false });
                self.dirty[P::level(unit)].insert(Arc::clone(&key));
            }
            None => {}
        }
        if !more {
            self.doubtful.insert(key);
        }
    }

    /// Replaces entries of one contributor, and wakes those whose answer changed.
    fn exchange(&mut self, before: Entries<P>, after: &Entries<P>) {
        for (index, entry) in after {
            self.add_entry(index, entry);
        }
        for (index, entry) in before {
            self.remove_entry(index, &entry);
        }
    }

    fn add_entry(&mut self, index: &P::Index, entry: &P::Entry) {
        if let Some(set) = self.indexes.get_mut(index) {
            let effect = set.add(entry);
            self.answer_changed(index, effect, false);
            return;
        }
        self.indexes.insert(index.clone(), Members::new(entry.clone()));
        self.answer_changed(index, Effect { members: true, first: true }, true);
        if let Some(root) = P::index_root(index) {
            self.root(&root, true);
        }
    }

    fn remove_entry(&mut self, index: P::Index, entry: &P::Entry) {
        let Some(set) = self.indexes.remove(&index) else { return };
        let (left, effect) = set.remove(entry);
        let empty = left.is_none();
        if let Some(left) = left {
            self.indexes.insert(index.clone(), left);
        }
        self.answer_changed(&index, effect, empty);
        if empty && let Some(root) = P::index_root(&index) {
            self.root(&root, false);
        }
    }

    fn answer_changed(&mut self, index: &P::Index, effect: Effect, any: bool) {
        let Effect { members, first } = effect;
        if members {
            self.wake(&Node::Members(index.clone()));
        }
        if first {
            self.wake(&Node::First(index.clone()));
        }
        if any {
            self.wake(&Node::Any(index.clone()));
        }
    }

    fn discard(&mut self, unit: &Arc<P::Unit>) {
        let Some(slot) = self.units.remove(unit) else { return };
        for node in &slot.reads {
            self.forget(node, unit);
        }
        self.dirty[P::level(unit)].remove(unit);
        self.exchange(P::unit_entries(unit, &slot.value), &Vec::new());
        self.note(unit, Change { value: true, notes: !slot.notes.is_empty() });
    }

    /// Drops what nobody reads and nothing roots. Whether that woke a unit.
    fn sweep(&mut self) -> bool {
        while let Some(unit) = self.doubtful.pop_first() {
            let Some(slot) = self.units.get(&unit) else { continue };
            if slot.roots > 0 || self.is_read(&unit) {
                continue;
            }
            self.discard(&unit);
        }
        self.dirty.iter().any(|level| !level.is_empty())
    }
}

/// A rank and the key, so that nodes of different kinds compare.
type Rank<'a, P> = (
    u8,
    Option<&'a <P as Program>::Fact>,
    Option<&'a <P as Program>::Unit>,
    Option<&'a <P as Program>::Index>,
);

impl<P: Program> Node<P> {
    fn rank(&self) -> Rank<'_, P> {
        match self {
            Self::Fact(fact) => (0, Some(fact), None, None),
            Self::Unit(unit) => (1, None, Some(unit), None),
            Self::Demand(unit) => (2, None, Some(unit), None),
            Self::Members(index) => (3, None, None, Some(index)),
            Self::First(index) => (4, None, None, Some(index)),
            Self::Any(index) => (5, None, None, Some(index)),
        }
    }
}

impl<P: Program> Clone for Node<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Fact(fact) => Self::Fact(fact.clone()),
            Self::Unit(unit) => Self::Unit(Arc::clone(unit)),
            Self::Demand(unit) => Self::Demand(Arc::clone(unit)),
            Self::Members(index) => Self::Members(index.clone()),
            Self::First(index) => Self::First(index.clone()),
            Self::Any(index) => Self::Any(index.clone()),
        }
    }
}

impl<P: Program> PartialEq for Node<P> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<P: Program> Eq for Node<P> {}

impl<P: Program> PartialOrd for Node<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Program> Ord for Node<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<P: Program> Hash for Node<P> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
    }
}
