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

mod cost;
mod edge;
mod members;
mod readers;
mod table;

pub use cost::Cost;
use cost::Costs;
use edge::{Edge, How};
use members::{Effect, Members};
use readers::Readers;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    hash::Hash,
    time::Duration,
};
use table::{Id, Table};

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
    /// The names of the kinds of units, each of which is counted by itself.
    const KINDS: &'static [&'static str];
    /// Where in [`Program::KINDS`] the unit's kind is.
    fn kind(unit: &Self::Unit) -> usize;
    /// Time that only runs forward, since any instant; it measures, and decides nothing.
    fn now(&self) -> Duration;
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

/// Facts, indexes and units of one program. Whatever has a number refers to what
/// else has one by that.
pub struct Graph<P: Program> {
    facts: Table<P::Fact, FactSlot<P>>,
    indexes: Table<P::Index, IndexSlot<P>>,
    units: Table<P::Unit, UnitSlot<P>>,
    dirty: Vec<BTreeSet<Id>>,
    /// Units that may have lost their last reader or root.
    doubtful: BTreeSet<Id>,
    changed: BTreeMap<P::Unit, Change>,
    costs: Costs,
}

/// Is there while there is an input or a reader.
struct FactSlot<P: Program> {
    input: Option<P::Input>,
    readers: Readers,
}

/// Is there while there is a member or a reader.
struct IndexSlot<P: Program> {
    members: Option<Members<P::Entry>>,
    readers: Readers,
}

struct UnitSlot<P: Program> {
    /// None until its first run is over.
    value: Option<P::Value>,
    notes: Box<[P::Note]>,
    /// Sorted.
    reads: Box<[Edge]>,
    readers: Readers,
    roots: u32,
}

impl<P: Program> Default for FactSlot<P> {
    fn default() -> Self {
        Self { input: None, readers: Readers::default() }
    }
}

impl<P: Program> Default for IndexSlot<P> {
    fn default() -> Self {
        Self { members: None, readers: Readers::default() }
    }
}

impl<P: Program> Default for UnitSlot<P> {
    fn default() -> Self {
        Self {
            value: None,
            notes: Box::default(),
            reads: Box::default(),
            readers: Readers::default(),
            roots: 0,
        }
    }
}

impl<P: Program> UnitSlot<P> {
    fn is_wanted(&self) -> bool {
        self.roots > 0 || !self.readers.is_empty()
    }
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub value: bool,
    pub notes: bool,
}

/// The facts and units a unit may look at; what it looked at is recorded.
///
/// What is looked at has a number, although nobody may read it until the run is
/// recorded. None is given back meanwhile: only what is recorded again lets go.
pub struct View<'a, P: Program> {
    graph: &'a mut Graph<P>,
    program: &'a P,
    level: usize,
    reads: Vec<Edge>,
}

impl<P: Program> View<'_, P> {
    /// A fact, or that there is none.
    pub fn fact(&mut self, fact: &P::Fact) -> Option<P::Input> {
        let id = self.graph.facts.number(fact);
        self.reads.push(Edge::new(How::Fact, id));
        self.graph.facts[id].input.clone()
    }

    /// The value of a unit of a lower level; it is made if nobody asked before.
    pub fn unit(&mut self, unit: &P::Unit) -> P::Value {
        let id = self.require(unit);
        self.reads.push(Edge::new(How::Unit, id));
        self.graph.units[id].value.clone().expect("what is required has been run")
    }

    /// Keeps a unit of a lower level alive without being woken by it.
    pub fn demand(&mut self, unit: &P::Unit) {
        let id = self.require(unit);
        self.reads.push(Edge::new(How::Demand, id));
    }

    fn require(&mut self, unit: &P::Unit) -> Id {
        assert!(P::level(unit) < self.level, "a unit reads lower levels alone: {unit:?}");
        let id = self.graph.units.number(unit);
        if self.graph.units[id].value.is_none() {
            let asker = self.graph.costs.running();
            self.graph.compute(self.program, id);
            self.graph.costs.turn(asker, || self.program.now());
            // Nobody reads it until this run is recorded: let the sweep look at it.
            self.graph.doubtful.insert(id);
        }
        id
    }

    /// All members of an index, sorted.
    pub fn members(&mut self, index: &P::Index) -> Vec<P::Entry> {
        self.ask(How::Members, index).map(Members::to_vec).unwrap_or_default()
    }

    /// The least member of an index.
    pub fn first(&mut self, index: &P::Index) -> Option<P::Entry> {
        self.ask(How::First, index).and_then(|set| set.first().cloned())
    }

    /// Whether an index has a member.
    pub fn any(&mut self, index: &P::Index) -> bool {
        self.ask(How::Any, index).is_some()
    }

    fn ask(&mut self, how: How, index: &P::Index) -> Option<&Members<P::Entry>> {
        let level = P::index_level(index);
        assert!(level == 0 || level < self.level, "an index is read above those who fill it: {index:?}");
        let id = self.graph.indexes.number(index);
        self.reads.push(Edge::new(how, id));
        self.graph.indexes[id].members.as_ref()
    }
}

impl<P: Program> Default for Graph<P> {
    fn default() -> Self {
        Self {
            facts: Table::default(),
            indexes: Table::default(),
            units: Table::default(),
            dirty: (0..P::LEVELS).map(|_| BTreeSet::new()).collect(),
            doubtful: BTreeSet::new(),
            changed: BTreeMap::new(),
            costs: Costs::new(P::KINDS.len()),
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
    ) -> BTreeMap<P::Unit, Change> {
        for (fact, input) in facts {
            self.set_fact(&fact, input);
        }
        loop {
            for level in 0..P::LEVELS {
                while let Some(id) = self.dirty[level].pop_first() {
                    self.compute(program, id);
                }
            }
            self.costs.turn(None, || program.now());
            // Dropping a unit may empty an index that others read.
            if !self.sweep() {
                return std::mem::take(&mut self.changed);
            }
        }
    }

    /// The value of a unit that lives.
    pub fn value(&self, unit: &P::Unit) -> Option<&P::Value> {
        self.units[self.units.find(unit)?].value.as_ref()
    }

    /// What a unit has to say.
    pub fn notes(&self, unit: &P::Unit) -> &[P::Note] {
        self.units.find(unit).map_or(&[], |id| &self.units[id].notes)
    }

    /// A fact as it is now.
    pub fn fact(&self, fact: &P::Fact) -> Option<&P::Input> {
        self.facts[self.facts.find(fact)?].input.as_ref()
    }

    /// All facts, in no order.
    pub fn facts(&self) -> impl Iterator<Item = (&P::Fact, &P::Input)> {
        self.facts.iter().filter_map(|(fact, slot)| Some((fact, slot.input.as_ref()?)))
    }

    /// All units with their values, in no order.
    pub fn units(&self) -> impl Iterator<Item = (&P::Unit, &P::Value)> {
        self.units.iter().filter_map(|(unit, slot)| Some((unit, slot.value.as_ref()?)))
    }

    /// What units cost so far, by the names of their kinds.
    pub fn costs(&self) -> impl Iterator<Item = (&'static str, Cost)> {
        P::KINDS.iter().copied().zip(self.costs.kinds().iter().copied())
    }

    fn set_fact(&mut self, fact: &P::Fact, input: Option<P::Input>) {
        if self.fact(fact) == input.as_ref() {
            return;
        }
        let id = self.facts.number(fact);
        let entries = |input: &P::Input| P::fact_entries(fact, input);
        let after = input.as_ref().map(entries).unwrap_or_default();
        let is = input.is_some();
        let old = std::mem::replace(&mut self.facts[id].input, input);
        let before = old.as_ref().map(entries).unwrap_or_default();
        self.exchange(before, &after);
        if let (Some(root), true) = (P::fact_root(fact), old.is_some() != is) {
            self.root(&root, is);
        }
        self.wake(How::Fact, id);
        self.drop_idle_fact(id);
    }

    fn drop_idle_fact(&mut self, id: Id) {
        let FactSlot { input, readers } = &self.facts[id];
        if input.is_none() && readers.is_empty() {
            self.facts.remove(id);
        }
    }

    fn drop_idle_index(&mut self, id: Id) {
        let IndexSlot { members, readers } = &self.indexes[id];
        if members.is_none() && readers.is_empty() {
            self.indexes.remove(id);
        }
    }

    /// Runs a unit and records what it read.
    fn compute(&mut self, program: &P, id: Id) {
        let slot = &self.units[id];
        if slot.value.is_some() && !slot.is_wanted() {
            // Left as it is, somebody could read what it was before this change.
            self.discard(id);
            return;
        }
        let unit = self.units.key(id).clone();
        let kind = P::kind(&unit);
        self.costs.turn(Some(kind), || program.now());
        self.costs.count(kind);
        let mut view = View { graph: self, program, level: P::level(&unit), reads: Vec::new() };
        let run = std::panic::AssertUnwindSafe(|| program.run(&unit, &mut view));
        let outcome = std::panic::catch_unwind(run).ok();
        let mut reads = std::mem::take(&mut view.reads);
        reads.sort_unstable();
        reads.dedup();
        let (value, notes) = match (outcome, &self.units[id]) {
            (Some((value, notes)), _) => (value, notes.into()),
            // A defect of ours on one object: its last good value stays.
            (None, UnitSlot { value: Some(value), notes, .. }) => (value.clone(), notes.clone()),
            (None, UnitSlot { value: None, .. }) => (P::broken(&unit), Box::default()),
        };
        self.store(id, &unit, value, notes, reads.into());
    }

    fn store(&mut self, id: Id, unit: &P::Unit, value: P::Value, notes: Box<[P::Note]>, reads: Box<[Edge]>) {
        let slot = &mut self.units[id];
        let change = Change { value: slot.value.as_ref() != Some(&value), notes: slot.notes != notes };
        slot.notes = notes;
        let old_reads = std::mem::take(&mut slot.reads);
        for edge in reads.iter().filter(|edge| old_reads.binary_search(edge).is_err()) {
            self.readers_of(*edge).insert(edge.other_end(id));
        }
        for edge in old_reads.iter().filter(|edge| reads.binary_search(edge).is_err()) {
            self.forget(*edge, id);
        }
        let slot = &mut self.units[id];
        slot.reads = reads;
        if change.value {
            // Entries are made again where they are needed: kept, they were a tenth of all memory.
            let after = P::unit_entries(unit, &value);
            let old = slot.value.replace(value);
            let before = old.map(|old| P::unit_entries(unit, &old)).unwrap_or_default();
            self.exchange(before, &after);
            self.wake(How::Unit, id);
        }
        self.note(unit, change);
    }

    fn note(&mut self, unit: &P::Unit, change: Change) {
        if change.value || change.notes {
            let entry = self.changed.entry(unit.clone()).or_insert(Change { value: false, notes: false });
            entry.value |= change.value;
            entry.notes |= change.notes;
        }
    }

    fn readers_of(&mut self, edge: Edge) -> &mut Readers {
        let id = edge.id();
        match edge.how() {
            How::Fact => &mut self.facts[id].readers,
            How::Unit | How::Demand => &mut self.units[id].readers,
            How::Members | How::First | How::Any => &mut self.indexes[id].readers,
        }
    }

    fn forget(&mut self, edge: Edge, reader: Id) {
        self.readers_of(edge).remove(edge.other_end(reader));
        match edge.how() {
            How::Fact => self.drop_idle_fact(edge.id()),
            How::Unit | How::Demand => {
                self.doubtful.insert(edge.id());
            }
            How::Members | How::First | How::Any => self.drop_idle_index(edge.id()),
        }
    }

    fn wake(&mut self, how: How, id: Id) {
        let Self { facts, indexes, units, dirty, .. } = self;
        let readers = match how {
            How::Fact => &facts[id].readers,
            How::Unit | How::Demand => &units[id].readers,
            How::Members | How::First | How::Any => &indexes[id].readers,
        };
        for reader in readers.iter().filter(|reader| reader.how() == how) {
            dirty[P::level(units.key(reader.id()))].insert(reader.id());
        }
    }

    fn root(&mut self, unit: &P::Unit, more: bool) {
        if !more {
            let Some(id) = self.units.find(unit) else { return };
            self.units[id].roots -= 1;
            self.doubtful.insert(id);
            return;
        }
        let id = self.units.number(unit);
        let slot = &mut self.units[id];
        slot.roots += 1;
        if slot.value.is_none() {
            // Its first run comes with its level; until then it has no value.
            slot.value = Some(P::broken(unit));
            self.note(unit, Change { value: true, notes: false });
            self.dirty[P::level(unit)].insert(id);
        }
    }

    /// Replaces entries of one contributor, and wakes those whose answer changed.
    fn exchange(&mut self, before: Entries<P>, after: &Entries<P>) {
        for (index, entry) in after {
            self.add_entry(index, entry);
        }
        for (index, entry) in before {
            self.remove_entry(&index, &entry);
        }
    }

    fn add_entry(&mut self, index: &P::Index, entry: &P::Entry) {
        let id = self.indexes.number(index);
        match &mut self.indexes[id].members {
            Some(members) => {
                let effect = members.add(entry);
                self.answer_changed(id, effect, false);
            }
            none => {
                *none = Some(Members::new(entry.clone()));
                self.answer_changed(id, Effect { members: true, first: true }, true);
                if let Some(root) = P::index_root(index) {
                    self.root(&root, true);
                }
            }
        }
    }

    fn remove_entry(&mut self, index: &P::Index, entry: &P::Entry) {
        let Some(id) = self.indexes.find(index) else { return };
        let Some(members) = self.indexes[id].members.take() else { return };
        let (left, effect) = members.remove(entry);
        let empty = left.is_none();
        self.indexes[id].members = left;
        self.answer_changed(id, effect, empty);
        if empty {
            self.drop_idle_index(id);
            if let Some(root) = P::index_root(index) {
                self.root(&root, false);
            }
        }
    }

    fn answer_changed(&mut self, id: Id, effect: Effect, any: bool) {
        let Effect { members, first } = effect;
        for (how, changed) in [(How::Members, members), (How::First, first), (How::Any, any)] {
            if changed {
                self.wake(how, id);
            }
        }
    }

    fn discard(&mut self, id: Id) {
        let (unit, slot) = self.units.remove(id);
        let UnitSlot { value, notes, reads, readers: _, roots: _ } = slot;
        for edge in reads {
            self.forget(edge, id);
        }
        self.dirty[P::level(&unit)].remove(&id);
        let entries = value.map(|value| P::unit_entries(&unit, &value));
        self.exchange(entries.unwrap_or_default(), &Vec::new());
        self.note(&unit, Change { value: true, notes: !notes.is_empty() });
    }

    /// Drops what nobody reads and nothing roots. Whether that woke a unit.
    fn sweep(&mut self) -> bool {
        while let Some(id) = self.doubtful.pop_first() {
            // A number may be another unit's by now: that is looked at alike.
            if self.units.get(id).is_some_and(|slot| !slot.is_wanted()) {
                self.discard(id);
            }
        }
        self.dirty.iter().any(|level| !level.is_empty())
    }
}
