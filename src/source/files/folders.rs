//! The folders and files that are watched, and what is known of them.

use super::{
    Ages, Batch, Outcome, Seen, Tree,
    events::Wanted,
    first_seen::FirstSeen,
    parallel,
    scan::{self, FolderId, Scan, Stamp},
};
use crate::yaml;
use inotify::{WatchDescriptor, WatchMask, Watches};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

/// What is read at once, where an event is noticed: so many files, each of so many bytes.
const AT_ONCE_FILES: usize = 4;
const AT_ONCE_BYTES: u64 = 32 << 10;
/// Files of the first load that are one batch: what reads batches works beside us.
const FIRST_FILES: usize = 1_000;

pub(super) struct Folders {
    roots: Vec<PathBuf>,
    tree: Tree,
    limits: yaml::Limits,
    stamps: HashMap<Arc<Path>, Stamp>,
    /// Roots and folders that could not be listed last time.
    troubles: BTreeSet<PathBuf>,
    first_seen: FirstSeen,
    /// What was known before, until it has come.
    known: Option<oneshot::Receiver<Ages>>,
    watches: Watches,
    watched: BTreeMap<PathBuf, (FolderId, WatchDescriptor)>,
    names: HashMap<WatchDescriptor, PathBuf>,
    /// A folder could not be watched.
    unwatched: bool,
    /// Some file or folder is reached by a link.
    linked: bool,
    complete: Completeness,
}

/// How far the first full list has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completeness {
    Waiting,
    /// Delivered, but something in it could not be read yet.
    Delivered,
    /// Seen whole once: what was known before and is not there is forgotten.
    Whole,
}

impl Folders {
    pub(super) fn new(
        roots: Vec<PathBuf>,
        limits: yaml::Limits,
        known: oneshot::Receiver<Ages>,
        watches: Watches,
    ) -> Self {
        Self {
            roots,
            tree: Tree::new(limits.clone()),
            limits,
            stamps: HashMap::new(),
            troubles: BTreeSet::new(),
            first_seen: FirstSeen::new(Ages::new()),
            known: Some(known),
            watches,
            watched: BTreeMap::new(),
            names: HashMap::new(),
            unwatched: false,
            linked: false,
            complete: Completeness::Waiting,
        }
    }

    /// Looks at what is wanted; nothing where nothing is different. A large first
    /// load comes in parts: all but the last go to `early`.
    pub(super) fn pass(
        &mut self,
        wanted: &Wanted,
        now: Duration,
        seconds: i64,
        early: &mut dyn FnMut(Batch),
    ) -> Option<Batch> {
        let mut looks = HashMap::new();
        if wanted.all {
            self.scan(wanted, &mut looks);
        }
        for path in &wanted.paths {
            // Beside a root that is a file there are others, which are none of ours.
            if self.roots.iter().any(|root| path.starts_with(root)) {
                looks.insert(Arc::from(path.as_path()), None);
            }
        }
        let mut looks = self.read(looks);
        if let Some(known) = self.known.take() {
            // Whoever should say it has gone: nobody waits for us.
            self.first_seen = FirstSeen::new(known.blocking_recv().ok()?);
        }
        self.first_seen.begin(seconds);
        if self.complete == Completeness::Waiting {
            // What others name comes first, so that little is made twice.
            looks.sort_by_cached_key(
                |(_, seen)| matches!(seen, Seen::Bytes(bytes) if scan::has_ingress(bytes)),
            );
            while looks.len() > FIRST_FILES {
                let rest = looks.split_off(FIRST_FILES);
                early(self.take(std::mem::replace(&mut looks, rest), now));
            }
        }
        let mut batch = self.take(looks, now);
        batch.first = self.complete == Completeness::Waiting && wanted.all && self.troubles.is_empty();
        if batch.first {
            self.complete = Completeness::Delivered;
        }
        if self.complete == Completeness::Delivered && batch.whole {
            self.complete = Completeness::Whole;
            self.first_seen.retain(|key| self.tree.has(key));
            batch.seen.extend(self.first_seen.take());
        }
        let nothing = Batch { whole: batch.whole, ..Batch::default() };
        (batch != nothing).then_some(batch)
    }

    /// Whether a pass over this takes less than another thread would.
    pub(super) fn at_once(&self, wanted: &Wanted) -> bool {
        let small =
            |path: &PathBuf| fs::metadata(path).map_or(true, |metadata| metadata.len() <= AT_ONCE_BYTES);
        !wanted.all && wanted.paths.len() <= AT_ONCE_FILES && wanted.paths.iter().all(small)
    }

    /// Whether something may change without an event.
    pub(super) fn blind(&self) -> bool {
        self.unwatched || !self.troubles.is_empty()
    }

    /// Whether files of ours may be reached by way of this path, which is none of them.
    pub(super) fn leads_on(&self, path: &Path) -> bool {
        let leads = |metadata: fs::Metadata| metadata.is_symlink() || metadata.is_dir();
        self.linked || self.watched.contains_key(path) || fs::symlink_metadata(path).is_ok_and(leads)
    }

    /// The files whose loss waits: to be looked at again.
    pub(super) fn held(&self) -> impl Iterator<Item = PathBuf> {
        self.tree.held().map(|path| path.to_path_buf())
    }

    /// The folder that events of this watch are about.
    pub(super) fn watched(&self, watch: &WatchDescriptor) -> Option<&Path> {
        self.names.get(watch).map(PathBuf::as_path)
    }

    /// Takes in looks, and tells what they change.
    fn take(&mut self, looks: Vec<(Arc<Path>, Seen)>, now: Duration) -> Batch {
        let Outcome { changes, findings, places } =
            self.tree.pass(looks, now, &|key| self.first_seen.age(key));
        for change in &changes {
            match &change.fact {
                Some(fact) => self.first_seen.note(&change.key, fact.first_seen()),
                None => self.first_seen.forget(&change.key),
            }
        }
        let seen = self.first_seen.take();
        Batch { noticed: None, changes, first: false, whole: self.tree.whole(), findings, places, seen }
    }

    /// Finds what is there; what is new or different is to be read (none).
    fn scan(&mut self, wanted: &Wanted, looks: &mut HashMap<Arc<Path>, Option<Seen>>) {
        self.unwatched = false;
        // Watched before it is listed: what comes later has an event.
        let roots = std::mem::take(&mut self.roots);
        let scan = scan::walk(&roots, &mut |path, id| self.watch(path, id));
        self.roots = roots;
        self.unwatch(&scan);
        let Scan { files, folders: _, linked, troubles } = scan;
        self.linked = linked;
        for (path, stamp) in &files {
            let held = self.tree.is_held(path);
            if (self.stamps.get(path) != Some(stamp) || held) && !wanted.writing.contains_key(&**path) {
                looks.insert(path.clone(), None);
            }
        }
        let gone = self
            .tree
            .paths()
            .filter(|path| !files.contains_key(*path) && !self.troubles.contains(&***path))
            .filter(|path| !troubles.keys().any(|trouble| path.starts_with(trouble)));
        looks.extend(gone.map(|path| (path.clone(), None)));
        for path in self.troubles.iter().filter(|path| !troubles.contains_key(*path)) {
            looks.entry(Arc::from(path.as_path())).or_insert(Some(Seen::Gone));
        }
        self.troubles = troubles.keys().cloned().collect();
        for (path, why) in troubles {
            looks.insert(Arc::from(path), Some(Seen::Unreadable(why)));
        }
    }

    /// Reads what has not been looked at yet.
    fn read(&mut self, looks: HashMap<Arc<Path>, Option<Seen>>) -> Vec<(Arc<Path>, Seen)> {
        let limits = &self.limits;
        let mut looks: Vec<_> = looks.into_iter().collect();
        // As bytes: a path as such compares part by part.
        looks.sort_unstable_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
        let read = parallel::map(looks, |(path, seen)| match seen {
            Some(seen) => (path, seen, None),
            None => {
                let (seen, stamp) = scan::look(&path, limits);
                (path, seen, Some(stamp))
            }
        });
        let mut looks = Vec::with_capacity(read.len());
        for (path, seen, stamp) in read {
            match stamp {
                Some(Some(stamp)) => drop(self.stamps.insert(path.clone(), stamp)),
                Some(None) => drop(self.stamps.remove(&path)),
                None => {}
            }
            let gone = seen == Seen::Gone && stamp.is_some();
            // A root that is gone is no deletion but a mishap, and so is what was in it.
            match self.roots.iter().find(|root| gone && path.starts_with(root)) {
                Some(root) if **root == *path => {
                    looks.push((path, Seen::Unreadable("is not there".to_owned())));
                }
                Some(root) if !root.exists() => {}
                Some(_) | None => looks.push((path, seen)),
            }
        }
        looks
    }

    /// Watches a folder that a scan has come to.
    fn watch(&mut self, path: &Path, id: FolderId) {
        if self.watched.get(path).is_some_and(|(known, _)| *known == id) {
            return;
        }
        match self.watches.add(path, asked()) {
            Ok(watch) => {
                // Also the one watch of a folder that was elsewhere.
                self.names.insert(watch.clone(), path.to_owned());
                if let Some((_, other)) = self.watched.insert(path.to_owned(), (id, watch)) {
                    self.end(path, other);
                }
            }
            Err(error) => {
                self.unwatched = true;
                tracing::warn!(
                    folder = %path.display(), %error,
                    "A folder cannot be watched: its changes are seen late; check fs.inotify.max_user_watches"
                );
            }
        }
    }

    /// Lets go of folders that are no more.
    fn unwatch(&mut self, scan: &Scan) {
        let gone = self.watched.extract_if(.., |path, (id, _)| scan.folders.get(path) != Some(id));
        for (path, (_, watch)) in gone.collect::<Vec<_>>() {
            self.end(&path, watch);
        }
    }

    /// Ends a watch, unless it goes on under another name.
    fn end(&mut self, path: &Path, watch: WatchDescriptor) {
        let named = self.names.get(&watch).is_some_and(|name| name == path);
        let used = self.watched.get(path).is_some_and(|(_, used)| *used == watch);
        if named && !used {
            self.names.remove(&watch);
            // The kernel has ended it where the folder was removed.
            let _ = self.watches.remove(watch);
        }
    }
}

/// What is asked of the kernel: not that files are opened and read, as we do that.
fn asked() -> WatchMask {
    WatchMask::ATTRIB
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MODIFY
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
}
