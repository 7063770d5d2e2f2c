//! What one control plane leaves for the next: which process runs which content, and the lock
//! that keeps two of them apart.

use super::{EngineError, EngineSpec, MODULE_FILE, is_name};
use crate::base::Version;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const RECORD_FILE: &str = "process.json";
const LOCK_FILE: &str = "lock";

/// One process, written when it has been launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) pid: u32,
    /// Clock ticks since boot; with the pid, the identity of a process.
    pub(super) start_time: u64,
    /// [`content`] at the launch.
    pub(super) content: String,
    /// Enough to end the process should nobody want it any more.
    pub(super) spec: EngineSpec,
}

impl Record {
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
    pub(super) fn unwanted(home: &Path, wanted: &[EngineSpec]) -> io::Result<Vec<Self>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(home)? {
            let entry = entry?;
            if let Some(record) = Self::read(&entry.path())
                && entry.file_name() == *record.spec.name
                && is_name(&record.spec.name)
                && !wanted.iter().any(|spec| spec.name == record.spec.name)
            {
                records.push(record);
            }
        }
        Ok(records)
    }
}

/// What a process runs, as one word: the spec with its arguments, the bytes of the bootstrap and
/// of the module. Equal on both sides of a restart of ours, or the process has to be replaced.
pub(super) fn content(spec: &EngineSpec) -> io::Result<String> {
    let bootstrap = std::fs::read(&spec.bootstrap)?;
    let module = match &spec.module_directory {
        Some(directory) => Some(std::fs::read(directory.join(MODULE_FILE))?),
        None => None,
    };
    Ok(Version::of(&(spec, bootstrap, module)).to_string())
}

/// Held while engines under `home` are supervised; the kernel lets go of it when we die.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    pub(super) fn take(home: &Path) -> Result<Self, EngineError> {
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
        Ok(Self { file })
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
    use crate::engine::{AdminAddress, EnvoyLogLevel};

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
    fn content_is_all_that_the_process_runs() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path());
        std::fs::write(&spec.bootstrap, "a").unwrap();
        assert!(content(&spec).is_err(), "the module is missing");
        std::fs::write(folder.path().join(MODULE_FILE), "b").unwrap();
        let mut seen = std::collections::BTreeSet::from([content(&spec).unwrap()]);
        assert!(!seen.insert(content(&spec).unwrap()), "nothing has changed");
        std::fs::write(&spec.bootstrap, "ab").unwrap();
        assert!(seen.insert(content(&spec).unwrap()));
        std::fs::write(folder.path().join(MODULE_FILE), "c").unwrap();
        assert!(seen.insert(content(&spec).unwrap()));
        spec.log_level = EnvoyLogLevel::Debug;
        assert!(seen.insert(content(&spec).unwrap()));
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
        Record::remove(&directory);
        Record::remove(&directory);
        assert_eq!(Record::unwanted(home.path(), &[]).unwrap(), []);
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
