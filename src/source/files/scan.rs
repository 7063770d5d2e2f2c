//! Looks at the file system: which files there are, and what is in them.

use super::Seen;
use crate::yaml;
use rustix::fs::OFlags;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Folders inside folders: deeper ones are not read.
const DEPTH_MAX: usize = 32;
/// Files and folders of all roots together.
const ENTRIES_MAX: usize = 200_000;

/// Tells whether a file is as it was: content is compared only where it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of content, and of the inode.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Which folder a path leads to.
pub(super) type FolderId = (u64, u64);

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) files: HashMap<Arc<Path>, Stamp>,
    /// Folders to be watched.
    pub(super) folders: BTreeMap<PathBuf, FolderId>,
    /// Some file or folder in a folder, or a root that is a file, is a link.
    pub(super) linked: bool,
    /// Roots and folders that cannot be listed, and why: nothing is known of
    /// what is in them.
    pub(super) troubles: BTreeMap<PathBuf, String>,
}

/// Walks the roots. Symbolic links are followed (a ConfigMap's files are links);
/// a folder that is reached twice is walked once. A file that a link reaches in a
/// folder that is not walked is seen to change at the periodic scan only. `enter`
/// is called for each folder to be watched, before it is listed.
pub(super) fn walk(roots: &[PathBuf], enter: &mut dyn FnMut(&Path, FolderId)) -> Scan {
    let mut walk = Walk { scan: Scan::default(), visited: BTreeSet::new(), enter };
    for root in roots {
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => walk.folder(root, &metadata, 0),
            Ok(metadata) => {
                walk.scan.linked |= root.is_symlink();
                let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                if let Ok(metadata) = fs::metadata(parent) {
                    walk.enter(parent, &metadata);
                }
                walk.scan.files.insert(Arc::from(root.as_path()), Stamp::of(&metadata));
            }
            Err(error) => {
                walk.scan.troubles.insert(root.clone(), error.to_string());
            }
        }
    }
    walk.scan
}

struct Walk<'a> {
    scan: Scan,
    visited: BTreeSet<FolderId>,
    enter: &'a mut dyn FnMut(&Path, FolderId),
}

impl Walk<'_> {
    fn enter(&mut self, path: &Path, metadata: &Metadata) {
        let id = folder_id(metadata);
        (self.enter)(path, id);
        self.scan.folders.insert(path.to_owned(), id);
    }

    fn folder(&mut self, path: &Path, metadata: &Metadata, depth: usize) {
        if !self.visited.insert(folder_id(metadata)) {
            return;
        }
        self.enter(path, metadata);
        if let Err(error) = self.list(path, depth) {
            self.scan.troubles.insert(path.to_owned(), error.to_string());
        }
    }

    fn list(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("is more than {DEPTH_MAX} folders deep")));
        }
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if self.scan.files.len() + self.scan.folders.len() >= ENTRIES_MAX {
                return Err(io::Error::other(format!(
                    "more than {ENTRIES_MAX} files and folders: name fewer"
                )));
            }
            let kind = entry.file_type()?;
            self.scan.linked |= kind.is_symlink();
            if kind.is_file() && !is_manifest(&name) {
                continue;
            }
            self.entry(entry.path(), is_manifest(&name), depth);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, manifest: bool, depth: usize) {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.folder(&path, &metadata, depth + 1),
            Ok(metadata) if metadata.is_file() && manifest => {
                self.scan.files.insert(Arc::from(path), Stamp::of(&metadata));
            }
            // Sockets, pipes and devices are not read.
            Ok(_) => {}
            // It went since it was listed, or is a link that leads nowhere: for
            // a manifest that is a look of its own, as it may be being replaced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.scan.troubles.insert(path, error.to_string());
            }
        }
    }
}

/// Whether a file of this name holds objects: editors' backups and swap files
/// end otherwise, and a kustomization is for kustomize.
pub(super) fn is_manifest(name: &str) -> bool {
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let hidden = stem.is_empty() || name.starts_with('.') || name.starts_with('#');
    matches!(extension, "yaml" | "yml" | "json") && !hidden && stem != "kustomization"
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn folder_id(metadata: &Metadata) -> FolderId {
    (metadata.dev(), metadata.ino())
}

/// Looks at one file; the stamp is from before its content was read, so that a
/// change meanwhile shows at the next scan.
pub(super) fn look(path: &Path, limits: &yaml::Limits) -> (Seen, Option<Stamp>) {
    // It may be no file: a pipe would wait for a writer.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let looked = opened.and_then(|file| match file.metadata()? {
        metadata if metadata.is_file() => Ok((Stamp::of(&metadata), file)),
        _ => Err(io::ErrorKind::NotFound.into()),
    });
    match looked {
        Ok((stamp, file)) => (read_bounded(file, stamp.size, limits), Some(stamp)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Seen::Gone, None),
        Err(error) => (Seen::Unreadable(error.to_string()), None),
    }
}

/// Reads a file that the user named, whatever it is.
pub(super) fn read_named(path: &Path, limits: &yaml::Limits) -> Seen {
    match File::open(path) {
        Ok(file) => read_bounded(file, 0, limits),
        Err(error) => Seen::Unreadable(error.to_string()),
    }
}

/// Reads to the end, or to one byte more than may be: enough to tell. Most often
/// that is as far as expected.
pub(super) fn read_bounded(reader: impl Read, expected: u64, limits: &yaml::Limits) -> Seen {
    let most = u64::try_from(limits.bytes).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(expected.min(most)).unwrap_or_default());
    match reader.take(most).read_to_end(&mut bytes) {
        Ok(_) => {
            // At the start, those of all files wait together.
            bytes.shrink_to_fit();
            Seen::Bytes(bytes)
        }
        Err(error) => Seen::Unreadable(error.to_string()),
    }
}

/// Whether a text seems to hold an Ingress: a guess that nothing but speed rests on.
pub(super) fn has_ingress(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == b"kind: Ingress")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_by_name() {
        for name in ["a.yaml", "b.yml", "c.json", "a.b.yaml", "kustomization-2.yaml"] {
            assert!(is_manifest(name), "{name}");
        }
        for name in [
            ".a.yaml",
            "a.yaml~",
            "a.yaml.swp",
            ".a.yaml.swp",
            "#a.yaml#",
            "a.txt",
            "yaml",
            ".yaml",
            "4913",
            "kustomization.yaml",
            "kustomization.yml",
            "a.yaml.bak",
        ] {
            assert!(!is_manifest(name), "{name}");
        }
    }

    #[test]
    fn walks_links_once_and_tells_what_it_cannot_list() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        let put = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, "").expect("a file");
        };
        put("a.yaml");
        put("sub/b.yml");
        put("sub/notes.txt");
        put(".hidden/c.yaml");
        put("..2024/data.yaml");
        std::os::unix::fs::symlink("..2024", root.join("..data")).expect("a link");
        std::os::unix::fs::symlink("..data/data.yaml", root.join("data.yaml")).expect("a link");
        std::os::unix::fs::symlink("..", root.join("sub/up")).expect("a loop");
        std::os::unix::fs::symlink("nowhere.yaml", root.join("broken.yaml")).expect("a link");
        let missing = root.join("missing");
        let mut entered = Vec::new();
        let roots = [root.clone(), missing.clone(), root.join("a.yaml")];
        let scan = walk(&roots, &mut |path, _| entered.push(path.to_owned()));
        let mut names: Vec<_> =
            scan.files.keys().map(|p| p.strip_prefix(&root).expect("below").display().to_string()).collect();
        names.sort();
        assert_eq!(names, ["a.yaml", "data.yaml", "sub/b.yml"]);
        assert_eq!(scan.folders.keys().collect::<Vec<_>>(), [&root, &root.join("sub")]);
        assert_eq!(entered, [root.clone(), root.join("sub"), root.clone()]);
        assert!(scan.linked);
        assert_eq!(scan.troubles.keys().collect::<Vec<_>>(), [&missing]);
    }

    #[test]
    fn looks() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.yaml");
        let limits = yaml::Limits { bytes: 4, ..yaml::Limits::default() };
        assert_eq!(look(&path, &limits).0, Seen::Gone);
        fs::write(&path, "abcdefgh").expect("a file");
        assert_eq!(look(&path, &limits).0, Seen::Bytes(b"abcde".to_vec()), "one more than the limit");
        assert_eq!(look(folder.path(), &limits).0, Seen::Gone, "no file is there");
    }
}
