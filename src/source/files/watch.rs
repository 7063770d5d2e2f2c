//! The shell: events and time in, batches out.

use super::{
    Ages, Batch, Options, SourceError,
    events::Wanted,
    folders::Folders,
    tree::{GONE_GRACE, HOLD},
};
use crate::failpoint;
use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify};
use std::{path::PathBuf, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Room for events that are read at once: the longest has 272 bytes.
const EVENTS_BYTES: usize = 16 << 10;
/// Events taken in before a look: a writer without end must not put it off.
const EVENTS_MAX: usize = 4_096;
/// Batches that may wait for the pipeline.
const BATCHES_MAX: usize = 16;
/// An event this long after the last pass comes alone: nothing is gained by
/// waiting for others.
const ALONE: Duration = Duration::from_millis(5);
/// How often everything is looked at while a folder cannot be watched or listed.
const UNWATCHED_RESCAN: Duration = Duration::from_secs(2);

/// Watches folders and files: to be called inside the runtime. The future is to
/// be run until the receiver is dropped; `now` gives unix seconds. Files are read
/// at once; what they hold is told when `known` has come: when objects without a
/// creationTimestamp were first seen, as earlier batches gave it ([`Batch::seen`]).
pub fn watch(
    roots: Vec<PathBuf>,
    options: Options,
    known: oneshot::Receiver<Ages>,
    now: impl Fn() -> i64 + Send + 'static,
) -> Result<(mpsc::Receiver<Batch>, impl Future<Output = ()> + Send), SourceError> {
    if roots.iter().any(|root| root.as_os_str() == "-") {
        return Err(SourceError::StandardInput);
    }
    // Events name the paths that were watched.
    let absolute = |root: PathBuf| {
        std::path::absolute(&root)
            .map_err(|error| SourceError::Unreadable { path: root, message: error.to_string() })
    };
    let roots = roots.into_iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    let Options { settle, rescan, limits } = options;
    let inotify = Inotify::init().map_err(SourceError::Watcher)?;
    let folders = Folders::new(roots.clone(), limits, known, inotify.watches());
    let events = inotify.into_event_stream(vec![0; EVENTS_BYTES]).map_err(SourceError::Watcher)?;
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    let shell = Shell { roots, events, noticed: None, settle, rescan, sender, now };
    Ok((receiver, shell.run(folders)))
}

struct Shell<N> {
    roots: Vec<PathBuf>,
    events: EventStream<Vec<u8>>,
    /// The first event since the last look.
    noticed: Option<Instant>,
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
                recheck = None;
                wanted.paths.extend(folders.held());
            }
            wanted.all |= next_scan <= Instant::now();
            wanted.all |= std::mem::take(&mut wanted.strange).iter().any(|path| folders.leads_on(path));
            if wanted.any() {
                let scanned = wanted.all;
                let Some(back) = self.pass(&mut wanted, folders, start).await else { return };
                folders = back;
                if scanned {
                    let pause = if folders.blind() { UNWATCHED_RESCAN } else { self.rescan };
                    next_scan = Instant::now() + pause.min(self.rescan);
                }
                passed = Instant::now();
                // Other changes, however many, do not put off the second look.
                let again = recheck.unwrap_or_else(|| Instant::now() + GONE_GRACE);
                recheck = folders.held().next().is_some().then_some(again);
            } else if wanted.next().is_none() {
                // What came asks for nothing.
                self.noticed = None;
            }
            let until = [recheck, wanted.next().map(|at| start + at)].into_iter().flatten();
            let until = until.fold(next_scan, Instant::min);
            tokio::select! {
                () = self.sender.closed() => return,
                () = tokio::time::sleep_until(until) => {}
                event = self.events.next() => match event {
                    Some(event) => self.gather(&mut wanted, &folders, event, start, passed).await,
                    // The kernel ends it never; a pass tells what a new start would.
                    None => return,
                },
            }
        }
    }

    /// Looks at what is wanted. A few small files are read here and now, since
    /// another thread would cost more than they do. Nothing comes back when the
    /// runtime or whoever reads the batches ends.
    async fn pass(&mut self, wanted: &mut Wanted, mut folders: Folders, start: Instant) -> Option<Folders> {
        let noticed = Some(self.noticed.take().unwrap_or_else(Instant::now).into_std());
        let (now, seconds) = (start.elapsed(), (self.now)());
        let looked = std::mem::take(wanted);
        wanted.writing.clone_from(&looked.writing);
        let last;
        if folders.at_once(&looked) {
            last = folders.pass(&looked, now, seconds, &mut |_| {});
        } else {
            let sender = self.sender.clone();
            let pass = tokio::task::spawn_blocking(move || {
                let mut early = |batch| drop(sender.blocking_send(Batch { noticed, ..batch }));
                let last = folders.pass(&looked, now, seconds, &mut early);
                (folders, last)
            });
            (folders, last) = match pass.await {
                Ok(passed) => passed,
                // The runtime ends.
                Err(error) if error.is_cancelled() => return None,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
        }
        if let Some(batch) = last {
            failpoint::pass("source.batch");
            self.sender.send(Batch { noticed, ..batch }).await.ok()?;
            failpoint::pass("source.sent");
        }
        Some(folders)
    }

    /// Takes in an event and those right behind it.
    async fn gather(
        &mut self,
        wanted: &mut Wanted,
        folders: &Folders,
        first: std::io::Result<EventOwned>,
        start: Instant,
        passed: Instant,
    ) {
        self.noticed.get_or_insert_with(Instant::now);
        self.take(wanted, folders, first, start);
        if passed.elapsed() < ALONE {
            tokio::time::sleep(self.settle).await;
        }
        for _ in 0..EVENTS_MAX {
            let Some(Some(event)) = self.events.next().now_or_never() else { break };
            self.take(wanted, folders, event, start);
        }
    }

    fn take(
        &self,
        wanted: &mut Wanted,
        folders: &Folders,
        event: std::io::Result<EventOwned>,
        start: Instant,
    ) {
        match event {
            // It says that a watch has ended: what ended it has its own event.
            Ok(event) if event.mask.contains(EventMask::IGNORED) => {}
            Ok(EventOwned { wd, mask, cookie: _, name }) => {
                // An event of a folder that is no longer watched is late.
                let Some(folder) = folders.watched(&wd) else {
                    wanted.all |= mask.contains(EventMask::Q_OVERFLOW);
                    return;
                };
                let path = name.map_or_else(|| folder.to_owned(), |name| folder.join(name));
                wanted.event(mask, &path, &self.roots, start.elapsed());
            }
            Err(error) => {
                tracing::warn!(%error, "Watching files failed: looking at all of them");
                wanted.all = true;
            }
        }
    }
}

const _: () = assert!(GONE_GRACE.as_millis() <= HOLD.as_millis());
