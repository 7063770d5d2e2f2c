//! Keys by number: who refers to a fact, an index or a unit holds four bytes.

use hashbrown::HashTable;
use std::{
    hash::{BuildHasher, Hash, RandomState},
    ops::{Index, IndexMut},
};

/// The number of a key while its table holds it; given again when it is free.
pub(super) type Id = u32;

/// Places of a page. A table grows by a page: it is never copied to grow, and
/// never has more empty places than have been given back and one page.
const PAGE: usize = 256;

/// Keys with what is kept of each, both once.
pub(super) struct Table<K, V> {
    pages: Vec<Vec<Option<(K, V)>>>,
    free: Vec<Id>,
    ids: HashTable<Id>,
    hasher: RandomState,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), ids: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<K, V> Table<K, V> {
    /// A number that was given and not given back.
    pub(super) fn key(&self, id: Id) -> &K {
        &pair(&self.pages, id).0
    }

    pub(super) fn get(&self, id: Id) -> Option<&V> {
        let (page, place) = split(id);
        self.pages.get(page)?.get(place)?.as_ref().map(|(_, value)| value)
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pages.iter().flatten().flatten().map(|(key, value)| (key, value))
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    pub(super) fn find(&self, key: &K) -> Option<Id> {
        self.ids.find(self.hasher.hash_one(key), |id| self.key(*id) == key).copied()
    }

    /// The number of a key; it is put in if it is not there.
    pub(super) fn number(&mut self, key: &K) -> Id
    where
        K: Clone,
        V: Default,
    {
        let hash = self.hasher.hash_one(key);
        if let Some(id) = self.ids.find(hash, |id| self.key(*id) == key) {
            return *id;
        }
        let id = self.place((key.clone(), V::default()));
        let Self { pages, free: _, ids, hasher } = self;
        ids.insert_unique(hash, id, |id| hasher.hash_one(&pair(pages, *id).0));
        id
    }

    fn place(&mut self, entry: (K, V)) -> Id {
        if let Some(id) = self.free.pop() {
            let (page, place) = split(id);
            self.pages[page][place] = Some(entry);
            return id;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let before = (self.pages.len() - 1) * PAGE;
        let page = self.pages.last_mut().expect("there is one with room now");
        page.push(Some(entry));
        Id::try_from(before + page.len() - 1).expect("memory ends before the numbers do")
    }

    /// Gives a number back, and what was kept.
    pub(super) fn remove(&mut self, id: Id) -> (K, V) {
        let (page, place) = split(id);
        let entry = self.pages[page][place].take().expect(GIVEN);
        let known = self.ids.find_entry(self.hasher.hash_one(&entry.0), |known| *known == id);
        known.expect("each key is found by its hash").remove();
        self.free.push(id);
        entry
    }
}

impl<K, V> Index<Id> for Table<K, V> {
    type Output = V;

    fn index(&self, id: Id) -> &V {
        &pair(&self.pages, id).1
    }
}

impl<K, V> IndexMut<Id> for Table<K, V> {
    fn index_mut(&mut self, id: Id) -> &mut V {
        let (page, place) = split(id);
        &mut self.pages[page][place].as_mut().expect(GIVEN).1
    }
}

const GIVEN: &str = "a number is used between being given and given back";

fn pair<K, V>(pages: &[Vec<Option<(K, V)>>], id: Id) -> &(K, V) {
    let (page, place) = split(id);
    pages[page][place].as_ref().expect(GIVEN)
}

fn split(id: Id) -> (usize, usize) {
    let id = id as usize;
    (id / PAGE, id % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_and_given_again() {
        let mut table: Table<String, u32> = Table::default();
        let ids: Vec<_> = (0..1_000).map(|n| table.number(&format!("key {n}"))).collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(table.number(&format!("key {n}")), *id);
            table[*id] = *id;
        }
        for id in ids.iter().step_by(2) {
            assert_eq!(table.remove(*id).1, *id);
            assert!(table.get(*id).is_none());
        }
        assert_eq!(table.find(&"key 0".to_owned()), None);
        assert_eq!(table.find(&"key 1".to_owned()), Some(ids[1]));
        assert_eq!(table.iter().count(), 500);
        let new = table.number(&"new".to_owned());
        assert!(ids.contains(&new), "a free number first");
        assert_eq!(table[new], 0, "with nothing of who had it before");
    }
}
