//! Looks at the file system: which files there are, and what is in them.

use super::Seen;
use crate::yaml;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
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
    pub(super) files: BTreeMap<PathBuf, Stamp>,
    /// Folders to be watched.
    pub(super) folders: BTreeMap<PathBuf, FolderId>,
    /// Roots and folders that cannot be listed, and why: nothing is known of
    /// what is in them.
    pub(super) troubles: BTreeMap<PathBuf, String>,
}

/// Walks the roots. Symbolic links are followed (a ConfigMap's files are links);
/// a folder that is reached twice is walked once. A file that a link reaches in a
/// folder that is not walked is seen to change at the periodic scan only.
pub(super) fn walk(roots: &[PathBuf]) -> Scan {
    let mut scan = Scan::default();
    let mut visited = BTreeSet::new();
    for root in roots {
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => folder(root, &metadata, 0, &mut visited, &mut scan),
            Ok(metadata) => {
                scan.files.insert(root.clone(), Stamp::of(&metadata));
                let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                if let Ok(metadata) = fs::metadata(parent) {
                    scan.folders.insert(parent.to_owned(), folder_id(&metadata));
                }
            }
            Err(error) => {
                scan.troubles.insert(root.clone(), error.to_string());
            }
        }
    }
    scan
}

fn folder(path: &Path, metadata: &Metadata, depth: usize, visited: &mut BTreeSet<FolderId>, scan: &mut Scan) {
    if !visited.insert(folder_id(metadata)) {
        return;
    }
    scan.folders.insert(path.to_owned(), folder_id(metadata));
    if let Err(error) = list(path, depth, visited, scan) {
        scan.troubles.insert(path.to_owned(), error.to_string());
    }
}

fn list(path: &Path, depth: usize, visited: &mut BTreeSet<FolderId>, scan: &mut Scan) -> io::Result<()> {
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
        if scan.files.len() + scan.folders.len() >= ENTRIES_MAX {
            return Err(io::Error::other(format!("more than {ENTRIES_MAX} files and folders: name fewer")));
        }
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_file() && !is_manifest(&name) {
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folder(&path, &metadata, depth + 1, visited, scan),
            Ok(metadata) if metadata.is_file() && is_manifest(&name) => {
                scan.files.insert(path, Stamp::of(&metadata));
            }
            // Sockets, pipes and devices are not read.
            Ok(_) => {}
            // It went since it was listed, or is a link that leads nowhere: for
            // a manifest that is a look of its own, as it may be being replaced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                scan.troubles.insert(path, error.to_string());
            }
        }
    }
    Ok(())
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
    // Not opened before it is known to be a file: a pipe would wait for a writer.
    let opened = fs::metadata(path).and_then(|metadata| match metadata.is_file() {
        true => File::open(path),
        false => Err(io::ErrorKind::NotFound.into()),
    });
    match opened.and_then(|file| Ok((Stamp::of(&file.metadata()?), file))) {
        Ok((stamp, file)) => (read_bounded(file, limits), Some(stamp)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Seen::Gone, None),
        Err(error) => (Seen::Unreadable(error.to_string()), None),
    }
}

/// Reads a file that the user named, whatever it is.
pub(super) fn read_named(path: &Path, limits: &yaml::Limits) -> Seen {
    match File::open(path) {
        Ok(file) => read_bounded(file, limits),
        Err(error) => Seen::Unreadable(error.to_string()),
    }
}

/// Reads to the end, or to one byte more than may be: enough to tell.
pub(super) fn read_bounded(reader: impl Read, limits: &yaml::Limits) -> Seen {
    let mut bytes = Vec::new();
    let most = u64::try_from(limits.bytes).unwrap_or(u64::MAX).saturating_add(1);
    match reader.take(most).read_to_end(&mut bytes) {
        Ok(_) => {
            // At the start, those of all files wait together.
            bytes.shrink_to_fit();
            Seen::Bytes(bytes)
        }
        Err(error) => Seen::Unreadable(error.to_string()),
    }
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
        let scan = walk(&[root.clone(), missing.clone(), root.join("a.yaml")]);
        let names: Vec<_> =
            scan.files.keys().map(|p| p.strip_prefix(&root).expect("below").display().to_string()).collect();
        assert_eq!(names, ["a.yaml", "data.yaml", "sub/b.yml"]);
        assert_eq!(scan.folders.keys().collect::<Vec<_>>(), [&root, &root.join("sub")]);
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
