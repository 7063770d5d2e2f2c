//! A file of records, each with its length and a checksum: appended to, read once.

use super::Record;
use crate::base::Version;
use prost::Message;
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Bytes before each record: its length (4, little-endian) and its checksum (16).
const HEAD_BYTES: usize = 20;
/// A log is written anew when it is longer than twice what it was after the last
/// time, and this.
const SLACK_BYTES: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    /// None: it could not be written, and is not there.
    file: Option<File>,
    bytes: u64,
    /// Its length when it was last written anew.
    compact: u64,
}

impl Log {
    /// Opens, and reads up to the end or to what cannot be read, which is cut off.
    pub(super) fn open(path: &Path, mut take: impl FnMut(Record) -> bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let content = std::fs::read(path)?;
        let mut rest = content.as_slice();
        while let Some((record, after)) = next(rest)
            && take(record)
        {
            rest = after;
        }
        let bytes = (content.len() - rest.len()) as u64;
        if !rest.is_empty() {
            tracing::warn!(path = %path.display(), bytes = rest.len(), "The end of a snapshot is damaged; it is left out");
            file.set_len(bytes)?;
        }
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file: Some(file), bytes, compact: bytes })
    }

    pub(super) fn append(&mut self, record: &Record) {
        let Some(file) = &mut self.file else { return };
        let encoded = encode(record);
        match file.write_all(&encoded) {
            Ok(()) => self.bytes += encoded.len() as u64,
            Err(error) => self.give_up(&error),
        }
    }

    /// Whether it is mostly past, or was lost.
    pub(super) fn is_long(&self) -> bool {
        self.file.is_none() || self.bytes > 2 * self.compact + SLACK_BYTES
    }

    /// Replaces it by these records.
    pub(super) fn rewrite(&mut self, records: impl Iterator<Item = Record>) {
        let new = self.path.with_extension("new");
        let write = || {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            let mut to = io::BufWriter::new(file);
            let mut bytes = 0;
            for record in records {
                let encoded = encode(&record);
                to.write_all(&encoded)?;
                bytes += encoded.len() as u64;
            }
            let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
            // A crash of the machine must not leave the name without its content.
            file.sync_data()?;
            std::fs::rename(&new, &self.path)?;
            Ok((file, bytes))
        };
        match write() {
            Ok((file, bytes)) => (self.file, self.bytes, self.compact) = (Some(file), bytes, bytes),
            Err(error) => self.give_up(&error),
        }
    }

    pub(super) fn clear(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)))
        {
            self.give_up(&error);
        }
        (self.bytes, self.compact) = (0, 0);
    }

    pub(super) fn remove(self) {
        // What is not there is removed.
        let _ = std::fs::remove_file(&self.path);
    }

    /// As on a disk that went read-only.
    #[cfg(test)]
    pub(super) fn break_for_test(&mut self) {
        self.file = Some(File::open(&self.path).expect("it is there"));
    }

    fn give_up(&mut self, error: &io::Error) {
        if self.file.take().is_some() {
            tracing::warn!(path = %self.path.display(), %error,
                "The snapshot cannot be written; until it can, a restart of this engine needs the control plane");
        }
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension("new"));
    }
}

fn checksum(payload: &[u8]) -> [u8; 16] {
    Version::of(payload).0.to_le_bytes()
}

fn encode(record: &Record) -> Vec<u8> {
    let payload = record.encode_to_vec();
    let length = u32::try_from(payload.len()).expect("a response has less than 4 GiB");
    [&length.to_le_bytes()[..], &checksum(&payload), &payload].concat()
}

/// The first record and what follows it; `None` at the end, or where it is damaged.
fn next(from: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = from.split_at_checked(HEAD_BYTES)?;
    let (length, sum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let (payload, rest) = rest.split_at_checked(length)?;
    if checksum(payload) != *sum {
        return None;
    }
    Some((Record::decode(payload).ok()?, rest))
}
