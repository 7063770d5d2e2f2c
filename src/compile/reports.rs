//! Findings by object, kept up as units say something else.

use super::Unit;
use crate::{base::ObjectKey, report::Finding};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Which units say what of which object.
#[derive(Default)]
pub(super) struct Reports {
    by_object: BTreeMap<ObjectKey, BTreeMap<Unit, Vec<Finding>>>,
    /// The objects a unit speaks of.
    told: HashMap<Unit, BTreeSet<ObjectKey>>,
}

impl Reports {
    /// Puts what a unit says now in the place of what it said before.
    pub(super) fn replace(&mut self, unit: &Unit, findings: &[Finding], reported: &mut BTreeSet<ObjectKey>) {
        for object in self.told.remove(unit).unwrap_or_default() {
            if let Some(units) = self.by_object.get_mut(&object) {
                units.remove(unit);
                if units.is_empty() {
                    self.by_object.remove(&object);
                }
            }
            reported.insert(object);
        }
        for finding in findings {
            let units = self.by_object.entry(finding.object.clone()).or_default();
            units.entry(unit.clone()).or_default().push(finding.clone());
            self.told.entry(unit.clone()).or_default().insert(finding.object.clone());
            reported.insert(finding.object.clone());
        }
    }

    /// What is said of an object: each thing once, the worst first.
    pub(super) fn of(&self, object: &ObjectKey) -> Vec<Finding> {
        let all = self.by_object.get(object).into_iter().flat_map(BTreeMap::values).flatten();
        let mut findings: Vec<_> = all.cloned().collect();
        findings.sort_unstable_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
        findings.dedup();
        findings
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_object.keys()
    }
}
