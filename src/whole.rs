//! Files that are whole or not there.
//!
//! *Takes* a path and bytes. *Gives* the file. *Invariants*: whoever opens the path
//! sees what was there before or all of what is new, also after a crash or a power
//! loss, and while others write it too; bytes are never in a file that more may read
//! than the mode says. *To add one*: nothing; a file that is appended to is written
//! by who owns it.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner: private keys, and what lies beside them.
    Owner,
    /// Whom the umask of the process lets.
    All,
}

/// Writes a file, in the place of what is there.
///
/// # Errors
/// It cannot be written; what was there still is.
pub fn replace(path: &Path, readers: Readers, bytes: &[u8]) -> io::Result<()> {
    beside(path, readers, bytes)?.persist(path)?;
    settle(path)
}

/// Writes a file where there is none.
///
/// # Errors
/// It cannot be written, or is there already ([`io::ErrorKind::AlreadyExists`]).
pub fn create(path: &Path, readers: Readers, bytes: &[u8]) -> io::Result<()> {
    beside(path, readers, bytes)?.persist_noclobber(path)?;
    settle(path)
}

/// A file of no name of ours, whole and on the disk; removed if it comes to nothing.
fn beside(path: &Path, readers: Readers, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::All => 0o666,
    };
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// The name is on the disk as well.
fn settle(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        fs,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect()
    }

    /// Enough for more than one page, so that half of one could be seen.
    fn content(n: u8) -> Vec<u8> {
        vec![n; 100_000]
    }

    #[test]
    fn readers_see_no_half() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        replace(&path, Readers::Owner, &content(0)).expect("written");
        let read = AtomicBool::new(false);
        let write = |n| {
            while !read.load(Ordering::Relaxed) {
                replace(&path, Readers::Owner, &content(n)).expect("written");
            }
        };
        thread::scope(|scope| {
            // Two at once, as two commands on one folder.
            let writers = [1, 2].map(|n| scope.spawn(move || write(n)));
            let reader = scope.spawn(|| {
                let (mut seen, mut looks) = (BTreeSet::new(), 0);
                while seen.len() < 2 || looks < 200 {
                    let bytes = fs::read(&path).expect("it is always there");
                    assert_eq!(bytes, content(bytes[0]), "whole");
                    seen.insert(bytes[0]);
                    looks += 1;
                }
            });
            let reader = reader.join();
            read.store(true, Ordering::Relaxed);
            reader.expect("it read");
            writers.into_iter().for_each(|writer| writer.join().expect("it wrote"));
        });
        assert_eq!(names(folder.path()), ["key"], "nothing is left beside it");
    }

    #[test]
    fn a_key_is_its_owners_also_where_it_was_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        // Who has the old file open reads no key through it.
        let mut old = File::open(&path).expect("open");
        replace(&path, Readers::Owner, b"new").expect("written");
        let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
        assert_eq!((mode, fs::read(&path).expect("a file")), (0o600, b"new".to_vec()));
        assert_eq!(io::read_to_string(&mut old).expect("read"), "old");
    }

    #[test]
    fn what_is_there_is_not_created_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.crt");
        create(&path, Readers::Owner, b"first").expect("written");
        let again = create(&path, Readers::Owner, b"second").expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("a file"), b"first");
        assert_eq!(names(folder.path()), ["ca.crt"]);
    }
}
