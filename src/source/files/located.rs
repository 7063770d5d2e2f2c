//! Findings with the file and line they come from.

use crate::{
    base::ObjectKey,
    report::{Finding, Severity},
};
use serde::Serialize;
use std::{collections::HashMap, fmt, path::Path, sync::Arc};

/// A line of a file; prints as `FILE:LINE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    pub file: Arc<Path>,
    /// From 1; 0 for the whole file.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line } = self;
        f.write_str(&crate::report::printable(&file.to_string_lossy()))?;
        match line {
            0 => Ok(()),
            line => write!(f, ":{line}"),
        }
    }
}

/// A finding, and where to look; the place is unknown for what no file holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Located {
    pub place: Option<Place>,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum What {
    /// About an object that is known by its key.
    Object(Finding),
    /// About a file, or a part of it that is no object.
    Text { severity: Severity, message: String },
}

impl Located {
    #[must_use]
    pub fn severity(&self) -> Severity {
        match &self.what {
            What::Object(finding) => finding.severity,
            What::Text { severity, message: _ } => *severity,
        }
    }
}

/// `FILE:LINE: OBJECT FIELD: SEVERITY REASON: MESSAGE`.
impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        match &self.what {
            What::Object(finding) => write!(f, "{finding}"),
            What::Text { severity, message } => write!(f, "{severity:?}: {message}"),
        }
    }
}

/// Where each object is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Places(HashMap<ObjectKey, Place>);

impl Places {
    /// Takes in what a batch says.
    pub fn apply(&mut self, places: Vec<(ObjectKey, Option<Place>)>) {
        for (key, place) in places {
            match place {
                Some(place) => self.0.insert(key, place),
                None => self.0.remove(&key),
            };
        }
    }

    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Place> {
        self.0.get(key)
    }

    /// Any room's finding, with the place of its object.
    #[must_use]
    pub fn locate(&self, finding: Finding) -> Located {
        Located { place: self.0.get(&finding.object).cloned(), what: What::Object(finding) }
    }
}
