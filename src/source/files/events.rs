//! What a file system event asks for.

use super::scan::is_manifest;
use inotify::EventMask;
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
    /// Names that are no manifests: everything, should one be a link to a folder.
    pub(super) strange: BTreeSet<PathBuf>,
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
    /// Takes in what happened at a path; times are durations since any fixed
    /// instant. Roots that are files are read whatever they are called.
    pub(super) fn event(&mut self, mask: EventMask, path: &Path, roots: &[PathBuf], now: Duration) {
        let of_folder = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT;
        if mask.intersects(of_folder | EventMask::Q_OVERFLOW) {
            self.all = true;
            return;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let root = roots.iter().any(|root| root == path);
        let folder = mask.contains(EventMask::ISDIR);
        let file = !folder && (root || is_manifest(&name));
        if mask.contains(EventMask::CLOSE_WRITE) {
            if file {
                self.look(path);
            }
        } else if mask.contains(EventMask::MODIFY) {
            if file {
                self.written(path, now, WRITER_QUIET);
            }
        } else if root {
            // What a root has become, if it is there at all, a scan tells.
            self.all = true;
        } else if mask.contains(EventMask::CREATE) && file {
            self.written(path, now, CREATED_QUIET);
        } else if file {
            self.look(path);
        } else if name.starts_with("..") {
            // `..data` of a ConfigMap's folder: what its files lead to has changed.
            self.all = true;
        } else if folder {
            self.all |= !is_scratch(&name);
        } else if !is_scratch(&name) {
            self.strange.insert(path.to_owned());
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
        self.all || !self.paths.is_empty() || !self.strange.is_empty()
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

    const NOW: Duration = Duration::from_secs(10);

    /// The events in order; then what is wanted: `all`, paths, `strange:` and `writing:` paths.
    #[track_caller]
    fn check(events: &[(EventMask, &str)], expected: &[&str]) {
        let mut wanted = Wanted::default();
        for (mask, path) in events {
            wanted.event(*mask, Path::new(path), &[], NOW);
        }
        let mut found: Vec<String> = Vec::new();
        found.extend(wanted.all.then(|| "all".to_owned()));
        found.extend(wanted.paths.iter().map(|path| path.display().to_string()));
        found.extend(wanted.strange.iter().map(|path| format!("strange:{}", path.display())));
        found.extend(wanted.writing.keys().map(|path| format!("writing:{}", path.display())));
        assert_eq!(found, expected);
    }

    const CREATE: EventMask = EventMask::CREATE;
    const WRITE: EventMask = EventMask::MODIFY;
    const CLOSE: EventMask = EventMask::CLOSE_WRITE;
    const FROM: EventMask = EventMask::MOVED_FROM;
    const TO: EventMask = EventMask::MOVED_TO;
    const ATTRIB: EventMask = EventMask::ATTRIB;
    const DELETE: EventMask = EventMask::DELETE;

    fn folder(mask: EventMask) -> EventMask {
        mask | EventMask::ISDIR
    }

    #[test]
    fn a_root_is_read_whatever_it_is_called() {
        let root = PathBuf::from("d/objects.conf");
        let wanted = |mask| {
            let mut wanted = Wanted::default();
            wanted.event(mask, &root, std::slice::from_ref(&root), NOW);
            wanted
        };
        assert!(wanted(CLOSE).paths.contains(&root) && !wanted(CLOSE).all);
        assert!(wanted(DELETE).all);
    }

    #[test]
    fn what_events_ask_for() {
        check(&[(CREATE, "d/a.yaml"), (WRITE, "d/a.yaml")], &["writing:d/a.yaml"]);
        check(&[(CREATE, "d/a.yaml"), (WRITE, "d/a.yaml"), (CLOSE, "d/a.yaml")], &["d/a.yaml"]);
        check(&[(FROM, "d/a.tmp~"), (TO, "d/a.yaml")], &["d/a.yaml"]);
        check(&[(FROM, "d/a.yaml"), (TO, "d/b.yaml")], &["d/a.yaml", "d/b.yaml"]);
        check(&[(DELETE, "d/a.yaml")], &["d/a.yaml"]);
        check(&[(ATTRIB, "d/a.yaml")], &["d/a.yaml"]);
        check(&[(folder(CREATE), "d/sub")], &["all"]);
        check(&[(folder(FROM), "d/sub")], &["all"]);
        check(&[(folder(DELETE), "d/.git")], &[]);
        check(&[(TO, "d/..data")], &["all"]);
        check(&[(EventMask::MOVE_SELF, "d")], &["all"]);
        check(&[(CREATE, "d/.a.yaml.swp"), (WRITE, "d/.a.yaml.swp"), (CLOSE, "d/.a.yaml.swp")], &[]);
    }

    #[test]
    fn what_is_written_beside_manifests_is_asked_about_not_scanned_for() {
        check(&[(CREATE, "d/a.tmp"), (WRITE, "d/a.tmp"), (CLOSE, "d/a.tmp")], &["strange:d/a.tmp"]);
        check(&[(CREATE, "d/a.tmp"), (FROM, "d/a.tmp"), (TO, "d/a.yaml")], &["d/a.yaml", "strange:d/a.tmp"]);
    }

    #[test]
    fn lost_events_mean_everything() {
        let mut wanted = Wanted::default();
        wanted.event(EventMask::Q_OVERFLOW, Path::new(""), &[], NOW);
        assert!(wanted.all && wanted.any());
    }

    #[test]
    fn a_writer_that_never_closes_is_read_in_the_end() {
        let mut wanted = Wanted::default();
        wanted.event(WRITE, Path::new("a.yaml"), &[], NOW);
        wanted.tick(NOW);
        assert!(!wanted.any());
        assert_eq!(wanted.next(), Some(NOW + WRITER_QUIET));
        wanted.tick(NOW + WRITER_QUIET);
        assert!(wanted.any() && wanted.next().is_none());
        let mut endless = Wanted::default();
        for tenths in 0..200 {
            let now = NOW + Duration::from_millis(100 * tenths);
            endless.event(WRITE, Path::new("a.yaml"), &[], now);
        }
        assert_eq!(endless.next(), Some(NOW + WRITER_MAX));
    }
}
