//! Last-good xDS resources: a cache. Whatever is wrong with it, it is thrown
//! away and begun anew.

use super::{
    error::{Fault, StoreError, contain},
    seal::{seal, unseal},
};
use crate::failpoint;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

const FILE: &str = "cache.redb";
const TABLE_NAME: &str = "last-good";
const TABLE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new(TABLE_NAME);
/// Memory for pages that were read, in bytes.
const CACHE_BYTES: usize = 8 << 20;

/// Bytes by key, opaque to the store. Never for private keys. The file is open only
/// while it is read or written, which is seldom: so a disk that was full is no
/// trouble any more once it has space.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    /// The cache of a state directory with what it holds: nothing, where it was
    /// damaged. An error means that the disk cannot be used, or that another process
    /// has it open.
    pub fn open(dir: &Path) -> Result<(Self, BTreeMap<String, Vec<u8>>), StoreError> {
        let path = dir.join(FILE);
        let (_, content) = read_or_begin(&path)?;
        Ok((Self { path }, content))
    }

    /// Sets or (`None`) removes, in one durable write.
    pub fn write(&self, changes: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        let (database, _) = read_or_begin(&self.path)?;
        contain(&self.path, || {
            failpoint::pass("last-good.before");
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(TABLE)?;
                for (key, body) in changes {
                    match body {
                        Some(body) => table.insert(*key, seal(TABLE_NAME, key, body).0.as_slice())?,
                        None => table.remove(*key)?,
                    };
                }
            }
            transaction.commit()?;
            failpoint::pass("last-good.after");
            Ok(())
        })
    }
}

/// Opens the file; where it is damaged or not there, another is begun.
fn read_or_begin(path: &Path) -> Result<(Database, BTreeMap<String, Vec<u8>>), StoreError> {
    match read(path) {
        Ok(opened) => return Ok(opened),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error @ (StoreError::InUse { .. } | StoreError::Io { .. })) => return Err(error),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "The cache of last good resources is begun anew");
            std::fs::remove_file(path).map_err(StoreError::io(path))?;
        }
    }
    let database = contain(path, || {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(database)
    })?;
    Ok((database, BTreeMap::new()))
}

fn read(path: &Path) -> Result<(Database, BTreeMap<String, Vec<u8>>), StoreError> {
    contain(path, || {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.open(path)?;
        let mut content = BTreeMap::new();
        for row in database.begin_read()?.open_table(TABLE)?.iter()? {
            let (key, row) = row?;
            let key = key.value();
            let (body, _) = unseal(TABLE_NAME, key, row.value()).ok_or_else(|| {
                Fault::Damaged(format!("the checksum of '{}' is wrong", key.escape_debug()))
            })?;
            content.insert(key.to_owned(), body.to_vec());
        }
        Ok((database, content))
    })
}
