//! What one control plane leaves for the next: which process runs which content, and the lock
//! that keeps two of them apart.

use super::{EngineError, is_name, program::Program};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const RECORD_FILE: &str = "process.json";
const LOCK_FILE: &str = "lock";

/// One process, written when it has been launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record<P> {
    pub(super) pid: u32,
    /// Clock ticks since boot; with the pid, the identity of a process.
    pub(super) start_time: u64,
    /// [`Program::content`] at the launch.
    pub(super) content: String,
    /// Enough to end the process should nobody want it any more.
    pub(super) spec: P,
}

impl<P: Program> Record<P> {
    /// None if there is none, or none that can be read: it is ours alone and replaced as a whole,
    /// so what is unreadable was written by another version of us.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join(RECORD_FILE)).ok()?).ok()
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join(RECORD_FILE);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }

    pub(super) fn remove(directory: &Path) {
        match std::fs::remove_file(directory.join(RECORD_FILE)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Harmless: the start time in it fits no later process.
            Err(error) => tracing::debug!(%error, "Record not removed"),
        }
    }

    /// Records in `home` whose engine is not wanted.
    pub(super) fn unwanted(home: &Path, wanted: &[P]) -> io::Result<Vec<Self>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(home)? {
            let entry = entry?;
            if let Some(record) = Self::read(&entry.path())
                && entry.file_name() == *record.spec.name()
                && is_name(record.spec.name())
                && !wanted.iter().any(|spec| spec.name() == record.spec.name())
            {
                records.push(record);
            }
        }
        Ok(records)
    }
}

/// Made of the owner alone: logs hold client addresses, an admin socket is power over Envoy.
pub(super) fn make_directory(path: &Path) -> Result<(), EngineError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(folder_error(path))
}

pub(super) fn folder_error(path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Folder { path, source }
}

/// Held while programs under a home are supervised; the kernel lets go of it when we die.
#[derive(Debug)]
pub struct Lock {
    file: File,
    pub(super) home: PathBuf,
}

impl Lock {
    /// Takes a home, which is made if need be (mode 0700).
    ///
    /// # Errors
    /// Another process has it, or it cannot be used.
    pub fn take(home: &Path) -> Result<Self, EngineError> {
        // A program is started in its own folder, where relative paths would be others.
        let home = &std::path::absolute(home).map_err(folder_error(home))?;
        make_directory(home)?;
        let path = home.join(LOCK_FILE);
        let failed = |source| EngineError::Folder { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(locked(home, &mut file)),
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { file, home: home.clone() })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, were it not for children: between fork and exec another thread's child
        // holds the file too, and with it the lock.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn locked(home: &Path, file: &mut File) -> EngineError {
    let mut holder = String::new();
    let read = file.take(20).read_to_string(&mut holder);
    if read.is_err() || holder.is_empty() {
        holder = "unknown".into();
    }
    EngineError::Locked { home: PathBuf::from(home), holder }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{AdminAddress, EngineSpec, EnvoyLogLevel};

    fn spec(folder: &Path) -> EngineSpec {
        EngineSpec {
            name: "edge".into(),
            envoy: "/envoy".into(),
            bootstrap: folder.join("bootstrap.yaml"),
            admin: AdminAddress::Unix(folder.join("admin.sock")),
            module_directory: Some(folder.into()),
            concurrency: None,
            log_level: EnvoyLogLevel::Info,
        }
    }

    #[test]
    fn unwanted_are_those_without_a_spec() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("edge");
        std::fs::create_dir_all(home.path().join("empty")).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        let spec = spec(&directory);
        let record = Record { pid: 1, start_time: 2, content: "c".into(), spec: spec.clone() };
        record.write(&directory).unwrap();
        assert_eq!(Record::read(&directory).as_ref(), Some(&record));
        assert_eq!(Record::unwanted(home.path(), &[]).unwrap(), [record]);
        assert_eq!(Record::unwanted(home.path(), &[spec]).unwrap(), []);
        Record::<EngineSpec>::remove(&directory);
        Record::<EngineSpec>::remove(&directory);
        assert_eq!(Record::<EngineSpec>::unwanted(home.path(), &[]).unwrap(), []);
    }

    #[test]
    fn one_lock_a_home() {
        let home = tempfile::tempdir().unwrap();
        let lock = Lock::take(home.path()).unwrap();
        let error = Lock::take(home.path()).expect_err("held").to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(lock);
        Lock::take(home.path()).unwrap();
    }
}
