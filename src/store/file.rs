//! The database file: rows of a few kinds, changed together or not at all.

use super::{
    error::{Fault, StoreError, contain},
    seal::{seal, unseal},
};
use crate::failpoint;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of what the rows mean.
pub(super) const FORMAT: u64 = 1;
/// Memory for pages that were read, in bytes: the ledger is small and read once.
const CACHE_BYTES: usize = 8 << 20;

/// What a row is about. The name is also that of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    /// Address to [`crate::ipam::Entry`]: held or in quarantine, so never both.
    Address,
    /// Object to when it was first seen.
    Age,
    /// Zone to its content and serial.
    Serial,
    /// Number, as twenty digits, to what happened.
    History,
}

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Address, Self::Age, Self::Serial, Self::History];

    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Age => "age",
            Self::Serial => "serial",
            Self::History => "history",
        }
    }

    fn table(self) -> Table {
        TableDefinition::new(self.name())
    }
}

const META: &str = "meta";
const META_TABLE: Table = TableDefinition::new(META);
const HEAD: &str = "head";

/// What the whole content must add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub format: u64,
    /// Counts commits.
    pub generation: u64,
    /// How many rows there are.
    pub rows: u64,
    /// The sum of their checksums.
    #[serde(with = "hex")]
    pub sum: u128,
}

/// A row that is set or (no body) removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub kind: Kind,
    pub key: String,
    /// JSON.
    pub body: Option<Vec<u8>>,
}

/// An open file whose content has been verified.
#[derive(Debug)]
pub(super) struct File {
    /// None after a write that failed: the file may be before or behind it, and is
    /// to be opened again.
    database: Option<Database>,
    path: PathBuf,
    head: Head,
}

impl File {
    /// Makes a new file with these rows, whole or not at all: what is there is
    /// replaced only once the new one is on the disk.
    pub(super) fn create(path: &Path, generation: u64, rows: &[Change]) -> Result<(), StoreError> {
        let new = path.with_extension("redb.new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(&new)(error));
            }
            Ok(()) | Err(_) => {}
        }
        contain(&new, || {
            let database = Builder::new().set_cache_size(CACHE_BYTES).create(&new)?;
            let generation = generation.saturating_sub(1);
            let head = Head { format: FORMAT, generation, rows: 0, sum: 0 };
            write(&database, &head, rows)?;
            database.close()?;
            Ok(())
        })?;
        std::fs::rename(&new, path).map_err(StoreError::io(path))?;
        failpoint::pass("store.renamed");
        super::sync_dir(path)
    }

    /// Opens a file and verifies all of it; hands each row to `take`.
    pub(super) fn open(
        path: &Path,
        mut take: impl FnMut(Kind, &str, &[u8]) -> Result<(), String>,
    ) -> Result<Self, StoreError> {
        contain(path, || {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            let database = builder.open(path)?;
            let head = verify(&database, path, &mut take)?;
            Ok(Self { database: Some(database), path: path.to_owned(), head })
        })
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Those rows of these keys that are there, verified.
    pub(super) fn get<'k>(
        &self,
        kind: Kind,
        keys: &'k [String],
        mut take: impl FnMut(&'k str, &[u8]) -> Result<(), String>,
    ) -> Result<(), StoreError> {
        contain(&self.path, || {
            let table = self.database()?.begin_read()?.open_table(kind.table())?;
            for key in keys {
                let Some(row) = table.get(key.as_str())? else { continue };
                let (body, _) =
                    unseal(kind.name(), key, row.value()).ok_or_else(|| damaged(kind.name(), key))?;
                take(key, body).map_err(Fault::Damaged)?;
            }
            Ok(())
        })
    }

    /// All rows of a kind, verified, by key; the last first if `backwards`, until
    /// `take` answers false.
    pub(super) fn rows(
        &self,
        kind: Kind,
        backwards: bool,
        mut take: impl FnMut(&str, &[u8]) -> Result<bool, String>,
    ) -> Result<(), StoreError> {
        contain(&self.path, || {
            let table = self.database()?.begin_read()?.open_table(kind.table())?;
            let mut rows = table.iter()?;
            while let Some(row) = if backwards { rows.next_back() } else { rows.next() } {
                let (key, row) = row?;
                let (body, _) = unseal(kind.name(), key.value(), row.value())
                    .ok_or_else(|| damaged(kind.name(), key.value()))?;
                if !take(key.value(), body).map_err(Fault::Damaged)? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Writes the changes in one transaction; when this returns, they are on the
    /// disk. After an error nothing more can be written: open the file again.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let written = contain(&self.path, || write(self.database()?, &self.head, changes));
        if written.is_err() {
            self.database = None;
        }
        self.head = written?;
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.database = None;
    }

    /// Whether it is to be opened again.
    pub(super) fn closed(&self) -> bool {
        self.database.is_none()
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or_else(|| StoreError::Failed { path: self.path.clone() })
    }
}

/// Applies the changes upon `head`; gives the head after.
fn write(database: &Database, head: &Head, changes: &[Change]) -> Result<Head, Fault> {
    let Head { format, generation, mut rows, mut sum } = *head;
    let mut transaction = database.begin_write()?;
    // In one phase redb falls back to the commit before when a check of the
    // newest fails, and says nothing: an address we gave would be free again.
    transaction.set_two_phase_commit(true);
    for kind in Kind::ALL {
        let mut table = transaction.open_table(kind.table())?;
        for Change { kind: _, key, body } in changes.iter().filter(|change| change.kind == kind) {
            let old = match body {
                Some(body) => {
                    let (row, added) = seal(kind.name(), key, body);
                    sum = sum.wrapping_add(added);
                    rows += 1;
                    table.insert(key.as_str(), row.as_slice())?
                }
                None => table.remove(key.as_str())?,
            };
            if let Some(old) = old {
                let (_, removed) =
                    unseal(kind.name(), key, old.value()).ok_or_else(|| damaged(kind.name(), key))?;
                sum = sum.wrapping_sub(removed);
                rows -= 1;
            }
        }
    }
    let head = Head { format, generation: generation + 1, rows, sum };
    {
        let body = serde_json::to_vec(&head).expect("plain numbers");
        let mut table = transaction.open_table(META_TABLE)?;
        table.insert(HEAD, seal(META, HEAD, &body).0.as_slice())?;
    }
    failpoint::pass("ledger.transaction");
    transaction.commit()?;
    Ok(head)
}

fn verify(
    database: &Database,
    path: &Path,
    take: &mut impl FnMut(Kind, &str, &[u8]) -> Result<(), String>,
) -> Result<Head, Fault> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META_TABLE)?;
    let row = meta.get(HEAD)?.ok_or_else(|| Fault::Damaged("it has no head".to_owned()))?;
    let (body, _) = unseal(META, HEAD, row.value()).ok_or_else(|| damaged(META, HEAD))?;
    let head: Head =
        serde_json::from_slice(body).map_err(|error| Fault::Damaged(format!("its head: {error}")))?;
    if head.format != FORMAT {
        let path = path.to_owned();
        return Err(Fault::Other(StoreError::Format { path, found: head.format, known: FORMAT }));
    }
    let (mut rows, mut sum) = (0, 0_u128);
    for kind in Kind::ALL {
        for row in transaction.open_table(kind.table())?.iter()? {
            let (key, row) = row?;
            let key = key.value();
            let (body, added) =
                unseal(kind.name(), key, row.value()).ok_or_else(|| damaged(kind.name(), key))?;
            rows += 1;
            sum = sum.wrapping_add(added);
            take(kind, key, body).map_err(|why| {
                Fault::Damaged(format!("its {} '{}': {why}", kind.name(), key.escape_debug()))
            })?;
        }
    }
    if (rows, sum) != (head.rows, head.sum) {
        let why = format!("its rows do not add up: {rows} are there, {} were written", head.rows);
        return Err(Fault::Damaged(why));
    }
    Ok(head)
}

fn damaged(table: &str, key: &str) -> Fault {
    Fault::Damaged(format!("the checksum of its {table} '{}' is wrong", key.escape_debug()))
}

/// A sum as JSON: text, since JSON numbers end at 2^53 in many readers.
pub(super) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::store) fn serialize<S: Serializer>(sum: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{sum:032x}"))
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        u128::from_str_radix(text, 16).map_err(D::Error::custom)
    }
}
