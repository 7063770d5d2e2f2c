//! Folders of YAML as a source: the same objects a user would `kubectl apply`.
//!
//! *Takes* folders (recursive) and single files. *Gives* changes of facts, what
//! is wrong with which line of which file, and where each object is written.
//! *Invariants*: a file that does not parse, a folder that cannot be listed and
//! a file half-written delete nothing; an object's identity is its key, never
//! its file; the decisions are in [`Tree`], which does no I/O and takes the time
//! as an argument. *To add one*: what an event means is a row in `events`; what
//! a look at a file means is a case of [`Seen`].

mod events;
mod first_seen;
mod folders;
mod located;
mod parallel;
mod parse;
mod print;
mod scan;
mod tree;
mod watch;

use crate::{
    base::ObjectKey,
    inputs::{Change, fact::Age},
    yaml,
};
pub use located::{Located, Place, Places, What};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
pub use tree::{Outcome, Seen, Tree};
pub use watch::watch;

/// Why the source cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{path}: {message}; check the path and that this user may read it", path = path.display())]
    Unreadable { path: PathBuf, message: String },
    #[error("files cannot be watched: {0}; check fs.inotify.max_user_instances")]
    Watcher(std::io::Error),
    #[error("standard input can be read once, by commands that end; name a folder to watch")]
    StandardInput,
}

/// When objects were first seen.
pub type Ages = BTreeMap<ObjectKey, Age>;

/// How folders are watched.
#[derive(Debug, Clone)]
pub struct Options {
    /// In a burst of events, those this close together are one batch; an event
    /// that comes alone is looked at at once.
    pub settle: Duration,
    /// Everything is looked at this often, whatever events say.
    pub rescan: Duration,
    pub limits: yaml::Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(1),
            rescan: Duration::from_secs(30),
            limits: yaml::Limits::default(),
        }
    }
}

/// What one pass over the files found different.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// When the first event of it came, or the look that found it began.
    pub noticed: Option<Instant>,
    /// Sorted by key, each key once.
    pub changes: Vec<Change>,
    /// Set once: every root has been seen whole by now.
    pub first: bool,
    /// Whether every file, folder and document can be read at present. While it
    /// is false, what is absent may only be unreadable: release nothing for it.
    pub whole: bool,
    /// The findings of each file whose findings changed; empty where mended.
    pub findings: BTreeMap<Arc<Path>, Vec<Located>>,
    /// Where objects are written now; none for those that went.
    pub places: Vec<(ObjectKey, Option<Place>)>,
    /// First-seen ages to be remembered, or (none) forgotten.
    pub seen: Vec<(ObjectKey, Option<Age>)>,
}

/// Everything in some files, read once.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Sorted by key.
    pub changes: Vec<Change>,
    /// By file and line.
    pub findings: Vec<Located>,
    pub places: Places,
}

/// Reads folders, files and `-` (standard input) once. Objects without a
/// creationTimestamp are `now` (unix seconds) old, all alike.
pub fn load_once(paths: &[PathBuf], now: i64, limits: &yaml::Limits) -> Result<Loaded, SourceError> {
    let (standard_input, roots): (Vec<_>, Vec<_>) =
        paths.iter().cloned().partition(|path| path.as_os_str() == "-");
    let scan = scan::walk(&roots, &mut |_, _| {});
    if let Some((path, message)) = scan.troubles.into_iter().next() {
        return Err(SourceError::Unreadable { path, message });
    }
    let mut looks = parallel::map(scan.files.into_keys().collect(), |path: Arc<Path>| {
        // What is named may be a pipe, as a shell's `<(command)`; what is found may not.
        let seen = match roots.iter().any(|root| **root == *path) {
            true => scan::read_named(&path, limits),
            false => scan::look(&path, limits).0,
        };
        (path, seen)
    });
    if !standard_input.is_empty() {
        looks.push((Arc::from(Path::new("-")), scan::read_bounded(std::io::stdin().lock(), 0, limits)));
    }
    let mut tree = Tree::new(limits.clone());
    let outcome = tree.pass(looks, Duration::ZERO, &|_| Age { seconds: now, batch: 0 });
    let mut places = Places::default();
    places.apply(outcome.places);
    let findings = outcome.findings.into_values().flatten().collect();
    Ok(Loaded { changes: outcome.changes, findings, places })
}

#[cfg(test)]
mod tests;
