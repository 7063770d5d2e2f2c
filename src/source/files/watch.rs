//! The shell: events and time in, batches out.

use super::{
    Batch, Options, Outcome, Seen, SourceError, Tree,
    events::Wanted,
    first_seen::FirstSeen,
    scan::{self, FolderId, Scan, Stamp},
    tree::{GONE_GRACE, HOLD},
};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// Events that may wait to be looked at: more are lost, and everything is
/// scanned instead.
const EVENTS_MAX: usize = 4_096;
/// Batches that may wait for the pipeline.
const BATCHES_MAX: usize = 16;
/// An event this long after the last pass comes alone: nothing is gained by
/// waiting for others.
const ALONE: Duration = Duration::from_millis(5);
/// Scans in a row while folders keep coming.
const SCANS_MAX: usize = 8;
/// How often everything is looked at while a folder cannot be watched or listed.
const UNWATCHED_RESCAN: Duration = Duration::from_secs(2);

/// Watches folders and files. The future is to be run until the receiver is
/// dropped; `now` gives unix seconds.
pub fn watch(
    roots: Vec<PathBuf>,
    options: Options,
    now: impl Fn() -> i64 + Send + 'static,
) -> Result<(mpsc::Receiver<Batch>, impl Future<Output = ()> + Send), SourceError> {
    if roots.iter().any(|root| root.as_os_str() == "-") {
        return Err(SourceError::StandardInput);
    }
    // The watcher names absolute paths.
    let absolute = |root: PathBuf| {
        std::path::absolute(&root)
            .map_err(|error| SourceError::Unreadable { path: root, message: error.to_string() })
    };
    let roots = roots.into_iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    let Options { known, settle, rescan, limits } = options;
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let lost = Arc::new(AtomicBool::new(false));
    let watcher = watcher(event_sender, lost.clone())?;
    let folders = Folders {
        roots: roots.clone(),
        tree: Tree::new(limits.clone()),
        limits,
        stamps: HashMap::new(),
        troubles: BTreeSet::new(),
        first_seen: FirstSeen::new(known),
        watcher,
        watched: BTreeMap::new(),
        unwatched: false,
        complete: Completeness::Waiting,
    };
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    let shell = Shell { roots, events, lost, settle, rescan, sender, now };
    Ok((receiver, shell.run(folders)))
}

/// The watcher's own thread hands over what matters and never waits.
fn watcher(sender: mpsc::Sender<Event>, lost: Arc<AtomicBool>) -> notify::Result<RecommendedWatcher> {
    let handler = move |event: notify::Result<Event>| {
        let event = match event {
            // Our own reads open files too.
            Ok(event) if event.kind.is_access() && !closes_writer(&event) => return,
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "Watching files failed: looking at all of them");
                Event::new(notify::EventKind::Other)
            }
        };
        if event.paths.is_empty() || sender.try_send(event).is_err() {
            lost.store(true, Ordering::Release);
            // Full means that a wake-up waits already; else this is the wake-up.
            let _ = sender.try_send(Event::new(notify::EventKind::Other));
        }
    };
    // Folders behind links are found by the scan, each watched by itself.
    RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false))
}

fn closes_writer(event: &Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

struct Shell<N> {
    roots: Vec<PathBuf>,
    events: mpsc::Receiver<Event>,
    lost: Arc<AtomicBool>,
    settle: Duration,
    rescan: Duration,
    sender: mpsc::Sender<Batch>,
    now: N,
}

impl<N: Fn() -> i64 + Send> Shell<N> {
    async fn run(mut self, mut folders: Folders) {
        let start = Instant::now();
        let mut wanted = Wanted { all: true, ..Wanted::default() };
        let mut next_scan = start + self.rescan;
        let mut recheck = None;
        let mut passed = start;
        loop {
            wanted.tick(start.elapsed());
            if recheck.is_some_and(|at| at <= Instant::now()) {
                wanted.paths.extend(folders.tree.held().map(|path| path.to_path_buf()));
            }
            wanted.all |= self.lost.swap(false, Ordering::Acquire) || next_scan <= Instant::now();
            if wanted.any() {
                let scanned = wanted.all;
                let (now, seconds) = (start.elapsed(), (self.now)());
                let looked = std::mem::take(&mut wanted);
                wanted.writing.clone_from(&looked.writing);
                // Reading thousands of files would hold up the other tasks of this thread.
                let pass = tokio::task::spawn_blocking(move || {
                    let batch = folders.pass(&looked, now, seconds);
                    (folders, batch)
                });
                let batch;
                (folders, batch) = match pass.await {
                    Ok(passed) => passed,
                    // The runtime ends.
                    Err(error) if error.is_cancelled() => return,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                };
                if let Some(batch) = batch
                    && self.sender.send(batch).await.is_err()
                {
                    return;
                }
                if scanned {
                    let pause = if folders.blind() { UNWATCHED_RESCAN } else { self.rescan };
                    next_scan = Instant::now() + pause.min(self.rescan);
                }
                passed = Instant::now();
                let held = folders.tree.held().next().is_some();
                recheck = held.then(|| Instant::now() + GONE_GRACE);
            }
            let until = [recheck, wanted.next().map(|at| start + at)].into_iter().flatten();
            let until = until.fold(next_scan, Instant::min);
            tokio::select! {
                () = self.sender.closed() => return,
                () = tokio::time::sleep_until(until) => {}
                event = self.events.recv() => match event {
                    Some(event) => self.gather(&mut wanted, &event, start, passed).await,
                    // The watcher lives as long as `folders`.
                    None => return,
                },
            }
        }
    }

    /// Takes in an event and those right behind it.
    async fn gather(&mut self, wanted: &mut Wanted, event: &Event, start: Instant, passed: Instant) {
        wanted.event(event, &self.roots, start.elapsed());
        if passed.elapsed() < ALONE {
            tokio::time::sleep(self.settle).await;
        }
        for _ in 0..EVENTS_MAX {
            match self.events.try_recv() {
                Ok(event) => wanted.event(&event, &self.roots, start.elapsed()),
                Err(_) => break,
            }
        }
    }
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

/// The files, and what is known of them.
struct Folders {
    roots: Vec<PathBuf>,
    tree: Tree,
    limits: crate::yaml::Limits,
    stamps: HashMap<PathBuf, Stamp>,
    /// Roots and folders that could not be listed last time.
    troubles: BTreeSet<PathBuf>,
    first_seen: FirstSeen,
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, FolderId>,
    /// A folder could not be watched.
    unwatched: bool,
    complete: Completeness,
}

impl Folders {
    /// Looks at what is wanted; nothing where nothing is different.
    fn pass(&mut self, wanted: &Wanted, now: Duration, seconds: i64) -> Option<Batch> {
        let mut looks = BTreeMap::new();
        if wanted.all {
            self.scan(wanted, &mut looks);
        }
        for path in &wanted.paths {
            // Beside a root that is a file there are others, which are none of ours.
            if self.roots.iter().any(|root| path.starts_with(root)) {
                self.look(path, &mut looks);
            }
        }
        self.first_seen.begin(seconds);
        let first_seen = &mut self.first_seen;
        let outcome = self.tree.pass(looks.into_iter().collect(), now, &mut |key| first_seen.age(key));
        let Outcome { changes, findings, places } = outcome;
        for change in changes.iter().filter(|change| change.fact.is_none()) {
            self.first_seen.forget(&change.key);
        }
        let whole = self.tree.whole();
        let first = self.complete == Completeness::Waiting && wanted.all && self.troubles.is_empty();
        if first {
            self.complete = Completeness::Delivered;
        }
        if self.complete == Completeness::Delivered && whole {
            self.complete = Completeness::Whole;
            self.first_seen.retain(|key| self.tree.has(key));
        }
        let seen = self.first_seen.take();
        let batch = Batch { changes, first, whole, findings, places, seen };
        let nothing = Batch { first: false, whole, ..Batch::default() };
        (batch != nothing).then_some(batch)
    }

    /// Whether something may change without an event.
    fn blind(&self) -> bool {
        self.unwatched || !self.troubles.is_empty()
    }

    /// Finds what is there; what is new or different is read.
    fn scan(&mut self, wanted: &Wanted, looks: &mut BTreeMap<Arc<Path>, Seen>) {
        let mut scan = scan::walk(&self.roots);
        for _ in 0..SCANS_MAX {
            // What came into a new folder before it was watched shows in another scan.
            if !self.watch(&scan) {
                break;
            }
            scan = scan::walk(&self.roots);
        }
        let Scan { files, folders: _, troubles } = scan;
        for (path, stamp) in &files {
            let held = self.tree.is_held(path);
            if (self.stamps.get(path) != Some(stamp) || held) && !wanted.writing.contains_key(path) {
                self.look(path, looks);
            }
        }
        let gone: Vec<PathBuf> = self
            .tree
            .paths()
            .filter(|path| !files.contains_key(&***path) && !self.troubles.contains(&***path))
            .filter(|path| !troubles.keys().any(|trouble| path.starts_with(trouble)))
            .map(|path| path.to_path_buf())
            .collect();
        for path in gone {
            self.look(&path, looks);
        }
        for path in self.troubles.iter().filter(|path| !troubles.contains_key(*path)) {
            looks.entry(Arc::from(path.as_path())).or_insert(Seen::Gone);
        }
        self.troubles = troubles.keys().cloned().collect();
        for (path, why) in troubles {
            looks.insert(Arc::from(path), Seen::Unreadable(why));
        }
    }

    fn look(&mut self, path: &Path, looks: &mut BTreeMap<Arc<Path>, Seen>) {
        let (mut seen, stamp) = scan::look(path, &self.limits);
        match stamp {
            Some(stamp) => self.stamps.insert(path.to_owned(), stamp),
            None => self.stamps.remove(path),
        };
        if seen == Seen::Gone {
            // A root that is gone is no deletion but a mishap, and so is what was in it.
            if self.roots.iter().any(|root| root == path) {
                seen = Seen::Unreadable("is not there".to_owned());
            } else if self.roots.iter().any(|root| path.starts_with(root) && !root.exists()) {
                return;
            }
        }
        looks.insert(Arc::from(path), seen);
    }

    /// Watches the folders of a scan; tells whether one is watched newly.
    fn watch(&mut self, scan: &Scan) -> bool {
        let gone: Vec<_> = self
            .watched
            .extract_if(.., |path, id| scan.folders.get(path) != Some(id))
            .map(|(path, _)| path)
            .collect();
        for path in gone {
            // It is not watched any more where it was removed.
            let _ = self.watcher.unwatch(&path);
        }
        self.unwatched = false;
        let mut new = false;
        for (path, id) in &scan.folders {
            if self.watched.contains_key(path) {
                continue;
            }
            match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), *id);
                    new = true;
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
        new
    }
}

const _: () = assert!(GONE_GRACE.as_millis() <= HOLD.as_millis());
