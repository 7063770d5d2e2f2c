//! All facts, by key: what tests of sources follow changes with.

use super::{Change, Fact};
use crate::base::{ObjectKey, ObjectKind, Text};
use std::collections::BTreeMap;

/// The facts of all sources together. Ordered, so that whoever walks it walks it
/// in the same order on every replica.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Inputs(BTreeMap<ObjectKey, Fact>);

impl Inputs {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes a change in; tells whether anything is different now.
    pub(crate) fn apply(&mut self, change: Change) -> bool {
        let Change { key, fact } = change;
        match fact {
            None => self.0.remove(&key).is_some(),
            Some(fact) if self.0.get(&key) == Some(&fact) => false,
            Some(fact) => {
                self.0.insert(key, fact);
                true
            }
        }
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Fact> {
        self.0.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Fact)> {
        self.0.iter()
    }

    /// Those of one kind, by namespace and name.
    pub(crate) fn of_kind(&self, kind: ObjectKind) -> impl Iterator<Item = (&ObjectKey, &Fact)> {
        let empty = || Text::from("");
        let first = ObjectKey { kind, namespace: empty(), name: empty() };
        self.0.range(first..).take_while(move |(key, _)| key.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::fact::Namespace;
    use std::sync::Arc;

    fn namespace(name: &str, setting: Option<&str>) -> Change {
        let fact = Namespace { labels: BTreeMap::new(), setting: setting.map(Text::from) };
        let key = ObjectKey::cluster(ObjectKind::Namespace, name);
        Change { key, fact: Some(Fact::Namespace(Arc::new(fact))) }
    }

    #[test]
    fn tells_what_is_different() {
        let mut inputs = Inputs::new();
        assert!(inputs.apply(namespace("a", None)));
        assert!(!inputs.apply(namespace("a", None)), "an equal fact is no change");
        assert!(inputs.apply(namespace("a", Some("fast"))));
        let gone = Change { fact: None, ..namespace("a", None) };
        assert!(inputs.apply(gone.clone()));
        assert!(!inputs.apply(gone));
        assert!(inputs.is_empty());
    }

    #[test]
    fn walks_one_kind() {
        let mut inputs = Inputs::new();
        inputs.apply(namespace("b", None));
        inputs.apply(namespace("a", None));
        let secret =
            |name| Change { key: ObjectKey::new(ObjectKind::Secret, "a", name), ..namespace("a", None) };
        inputs.apply(secret("x"));
        let names: Vec<&str> =
            inputs.of_kind(ObjectKind::Namespace).map(|(key, _)| key.name.as_ref()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(inputs.of_kind(ObjectKind::Secret).count(), 1);
        assert_eq!(inputs.of_kind(ObjectKind::Ingress).count(), 0);
        assert_eq!((inputs.len(), inputs.iter().count()), (3, 3));
    }
}
