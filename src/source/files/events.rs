//! What a file system event asks for.

use super::scan::is_manifest;
use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

/// A file that is being written is read when its writer closes it, or after
/// this long without another write.
const WRITER_QUIET: Duration = Duration::from_secs(1);
/// A file that is written without end is read as it is after this long.
const WRITER_MAX: Duration = Duration::from_secs(10);
/// A new file is most often about to be written: its writer gets this long.
const CREATED_QUIET: Duration = Duration::from_millis(50);

/// What is to be looked at, gathered from events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Everything: folders came or went, or events were lost.
    pub(super) all: bool,
    pub(super) paths: BTreeSet<PathBuf>,
    /// Files that are being written.
    pub(super) writing: BTreeMap<PathBuf, Writing>,
}

/// Since when a file is being written, and when it is looked at all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Writing {
    since: Duration,
    until: Duration,
}

impl Wanted {
    /// Takes in an event; times are durations since any fixed instant. Roots
    /// that are files are read whatever they are called.
    pub(super) fn event(&mut self, event: &Event, roots: &[PathBuf], now: Duration) {
        if event.need_rescan() {
            self.all = true;
        }
        for path in &event.paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let root = roots.contains(path);
            match event.kind {
                EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => {
                    self.path_event(event.kind, path, root || is_manifest(&name), now);
                }
                // What a root has become, if it is there at all, a scan tells.
                _ if root => self.all = true,
                kind => self.path_event(kind, path, is_manifest(&name), now),
            }
        }
    }

    fn path_event(&mut self, kind: EventKind, path: &Path, file: bool, now: Duration) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) if file => self.look(path),
            EventKind::Access(_) => {}
            EventKind::Modify(ModifyKind::Data(_)) if file => {
                self.written(path, now, WRITER_QUIET);
            }
            EventKind::Modify(ModifyKind::Data(_)) => {}
            // The same as a From and a To, which come too.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {}
            EventKind::Create(CreateKind::File) if file => {
                self.written(path, now, CREATED_QUIET);
            }
            EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => self.all = true,
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) if file => self.look(path),
            // `..data` of a ConfigMap's folder: what its files lead to has changed.
            // Other hidden names are editors' swap files.
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
                if name.starts_with("..") || !is_scratch(&name) =>
            {
                self.all = true;
            }
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) => {}
            EventKind::Any | EventKind::Other => self.all = true,
        }
    }

    fn written(&mut self, path: &Path, now: Duration, quiet: Duration) {
        let since = self.writing.get(path).map_or(now, |writing| writing.since);
        let until = (now + quiet).min(since + WRITER_MAX);
        self.writing.insert(path.to_owned(), Writing { since, until });
    }

    fn look(&mut self, path: &Path) {
        self.writing.remove(path);
        self.paths.insert(path.to_owned());
    }

    /// Wants what has been written long enough ago.
    pub(super) fn tick(&mut self, now: Duration) {
        let due: Vec<_> =
            self.writing.extract_if(.., |_, writing| writing.until <= now).map(|(path, _)| path).collect();
        self.paths.extend(due);
    }

    /// Whether a look is due.
    pub(super) fn any(&self) -> bool {
        self.all || !self.paths.is_empty()
    }

    /// When the next file being written is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.writing.values().map(|writing| writing.until).min()
    }
}

/// What editors leave beside the file they edit.
fn is_scratch(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('#') || name.ends_with('~') || name.ends_with(".swp")
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{DataChange, Flag, MetadataKind};

    const NOW: Duration = Duration::from_secs(10);

    /// The events in order; then what is wanted: `all`, paths, `writing:` paths.
    #[track_caller]
    fn check(events: &[(EventKind, &str)], expected: &[&str]) {
        let mut wanted = Wanted::default();
        for (kind, path) in events {
            wanted.event(&Event::new(*kind).add_path(PathBuf::from(path)), &[], NOW);
        }
        let mut found: Vec<String> = Vec::new();
        found.extend(wanted.all.then(|| "all".to_owned()));
        found.extend(wanted.paths.iter().map(|path| path.display().to_string()));
        found.extend(wanted.writing.keys().map(|path| format!("writing:{}", path.display())));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_root_is_read_whatever_it_is_called() {
        let root = PathBuf::from("d/objects.conf");
        let wanted = |kind| {
            let mut wanted = Wanted::default();
            wanted.event(&Event::new(kind).add_path(root.clone()), std::slice::from_ref(&root), NOW);
            wanted
        };
        assert!(wanted(CLOSE).paths.contains(&root) && !wanted(CLOSE).all);
        assert!(wanted(EventKind::Remove(RemoveKind::File)).all);
    }

    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const FROM: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    const TO: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
    const NEW: EventKind = EventKind::Create(CreateKind::File);

    #[test]
    fn what_events_ask_for() {
        check(&[(NEW, "d/a.yaml"), (WRITE, "d/a.yaml")], &["writing:d/a.yaml"]);
        check(&[(NEW, "d/a.yaml"), (WRITE, "d/a.yaml"), (CLOSE, "d/a.yaml")], &["d/a.yaml"]);
        check(&[(FROM, "d/a.tmp~"), (TO, "d/a.yaml")], &["d/a.yaml"]);
        check(&[(FROM, "d/a.yaml"), (TO, "d/b.yaml")], &["d/a.yaml", "d/b.yaml"]);
        check(&[(EventKind::Remove(RemoveKind::File), "d/a.yaml")], &["d/a.yaml"]);
        check(&[(EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), "d/a.yaml")], &["d/a.yaml"]);
        check(&[(EventKind::Create(CreateKind::Folder), "d/sub")], &["all"]);
        check(&[(FROM, "d/sub")], &["all"]);
        check(&[(TO, "d/..data")], &["all"]);
        check(&[(NEW, "d/.a.yaml.swp"), (WRITE, "d/.a.yaml.swp"), (CLOSE, "d/.a.yaml.swp")], &[]);
        check(&[(EventKind::Access(AccessKind::Open(AccessMode::Any)), "d/a.yaml")], &[]);
        check(&[(EventKind::Access(AccessKind::Close(AccessMode::Read)), "d/a.yaml")], &[]);
    }

    #[test]
    fn lost_events_mean_everything() {
        let mut wanted = Wanted::default();
        wanted.event(&Event::new(EventKind::Other).set_flag(Flag::Rescan), &[], NOW);
        assert!(wanted.all && wanted.any());
    }

    #[test]
    fn a_writer_that_never_closes_is_read_in_the_end() {
        let mut wanted = Wanted::default();
        wanted.event(&Event::new(WRITE).add_path("a.yaml".into()), &[], NOW);
        wanted.tick(NOW);
        assert!(!wanted.any());
        assert_eq!(wanted.next(), Some(NOW + WRITER_QUIET));
        wanted.tick(NOW + WRITER_QUIET);
        assert!(wanted.any() && wanted.next().is_none());
        let mut endless = Wanted::default();
        for tenths in 0..200 {
            let now = NOW + Duration::from_millis(100 * tenths);
            endless.event(&Event::new(WRITE).add_path("a.yaml".into()), &[], now);
        }
        assert_eq!(endless.next(), Some(NOW + WRITER_MAX));
    }
}
