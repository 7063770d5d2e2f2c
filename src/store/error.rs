//! What can go wrong with the state on disk, and what to do about it.

use crate::ipam::Broken;
use std::{any::Any, io, panic, path::PathBuf};

/// Errors of the store. None of them is ever answered by starting empty.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: another process has this state open; stop it, or give this one another --state", path.display())]
    InUse { path: PathBuf },
    #[error(
        "the VIP ledger {} is damaged ({why}); nothing was started and no address given, so that nobody \
         gets an address twice; `tidegate vip export --state {dir}` prints what its backup holds, and \
         `tidegate vip import --state {dir}` makes a ledger of that", path.display(), dir = dir(path)
    )]
    Corrupt { path: PathBuf, why: String },
    #[error(
        "the VIP ledger {} is gone, although this state directory had one; put the file back, or \
         `tidegate vip import --state {dir}` makes one of its backup; only if no address was ever given, \
         take an empty directory", path.display(), dir = dir(path)
    )]
    Missing { path: PathBuf },
    #[error(
        "the VIP ledger {} is older (generation {ledger}) than its backup (generation {backup}): it was \
         rolled back or restored, and addresses given since would be given twice; \
         `tidegate vip import --state {dir}` makes a ledger of the backup", path.display(), dir = dir(path)
    )]
    Behind { path: PathBuf, ledger: u64, backup: u64 },
    #[error("{}: format {found}, and this version reads {known}; use the version that wrote it", path.display())]
    Format { path: PathBuf, found: u64, known: u64 },
    #[error("{}: {source}; check free space, permissions and the disk", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the plan does not fit the ledger on disk: {0}; it was made from an older one")]
    Conflict(#[from] Broken),
    #[error("{}: an earlier write failed, and what it holds is not known yet; check free space and the disk", path.display())]
    Failed { path: PathBuf },
    #[error("this export cannot be imported: {0}")]
    BadImport(String),
    #[error("{}: {why}; without a backup, import an export of your own", path.display())]
    BadBackup { path: PathBuf, why: String },
}

impl StoreError {
    /// Whether trying the same again may help: after space was made, or the other
    /// process has gone.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::Io { .. } | Self::Failed { .. } | Self::Conflict(_) => true,
            Self::Corrupt { .. }
            | Self::Missing { .. }
            | Self::Behind { .. }
            | Self::Format { .. }
            | Self::BadImport(_)
            | Self::BadBackup { .. } => false,
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn dir(path: &std::path::Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// What work inside a database file meets.
pub(super) enum Fault {
    Database(redb::Error),
    /// The file reads well and its content is wrong.
    Damaged(String),
    Other(StoreError),
}

impl Fault {
    pub(super) fn at(self, path: &std::path::Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Other(error) => error,
            Self::Damaged(why) => StoreError::Corrupt { path, why },
            Self::Database(redb::Error::DatabaseAlreadyOpen) => StoreError::InUse { path },
            Self::Database(redb::Error::UpgradeRequired(found)) => {
                StoreError::Corrupt { path, why: format!("written by an unknown database format {found}") }
            }
            Self::Database(redb::Error::PreviousIo) => StoreError::Failed { path },
            Self::Database(redb::Error::Io(source)) => match source.kind() {
                // Reading beyond the end: the file is shorter than it says.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                    StoreError::Corrupt { path, why: source.to_string() }
                }
                _ => StoreError::Io { path, source },
            },
            Self::Database(other) => StoreError::Corrupt { path, why: other.to_string() },
        }
    }
}

macro_rules! faults {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}
faults!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

/// Runs work on a database file. redb promises errors, not panics, for the
/// integrity check alone; a file made to deceive it must not take the process.
pub(super) fn contain<T>(
    path: &std::path::Path,
    work: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, StoreError> {
    match panic::catch_unwind(panic::AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|fault| fault.at(path)),
        Err(panic) => {
            let why = format!("the database library stopped: {}", words(&*panic));
            Err(StoreError::Corrupt { path: path.to_owned(), why })
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}
