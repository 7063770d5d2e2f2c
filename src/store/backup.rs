//! The backup beside the ledger: a second copy to import from, and the witness
//! of how far the ledger had come.
//!
//! A text file of lines, each a checksum, a blank and JSON: first one line with
//! all rows, then one a commit. It is begun anew, and replaced in one step,
//! whenever the ledger is opened and when the commits have outgrown the rows.

use super::{
    document::ExportDoc,
    error::StoreError,
    file::{Change, Head, Kind, hex},
    seal::checksum,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Commits may always take this many bytes before the file is begun anew.
const COMMITS_BYTES_MIN: u64 = 1 << 20;
/// Hex digits of a line's checksum.
const CHECKSUM_DIGITS: usize = 32;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    generation: u64,
    /// The ledger's own sum at this generation.
    #[serde(with = "hex")]
    sum: u128,
    /// Whether these are all rows, or those that changed.
    whole: bool,
    rows: Vec<(Kind, String, Option<serde_json::Value>)>,
}

/// What a backup says.
#[derive(Debug)]
pub(super) struct Content {
    pub generation: u64,
    pub sum: u128,
    pub document: ExportDoc,
    /// Whether it was read to its end: a crash may leave half a line there.
    pub whole: bool,
}

/// A backup that is being written.
#[derive(Debug)]
pub(super) struct Backup {
    path: PathBuf,
    file: fs::File,
    rows_bytes: u64,
    commits_bytes: u64,
}

impl Backup {
    /// Replaces the backup by one with these rows.
    pub(super) fn begin(path: &Path, head: &Head, rows: &[Change]) -> Result<Self, StoreError> {
        let new = path.with_extension("jsonl.new");
        let line = print(head, true, rows);
        let written = || -> io::Result<fs::File> {
            let mut file = fs::File::create(&new)?;
            file.write_all(line.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            OpenOptions::new().append(true).open(path)
        };
        let file = written().map_err(StoreError::io(path))?;
        super::sync_dir(path)?;
        Ok(Self { path: path.to_owned(), file, rows_bytes: line.len() as u64, commits_bytes: 0 })
    }

    /// Adds what a commit changed; when this returns, addresses are on the disk.
    /// What else changes with every object follows with them, or when the system
    /// writes it: the ledger has it, and a backup may be behind. After an error it
    /// is to be begun anew: half a line may stand at its end.
    pub(super) fn append(&mut self, head: &Head, changes: &[Change]) -> Result<(), StoreError> {
        let line = print(head, false, changes);
        self.commits_bytes += line.len() as u64;
        let addresses = changes.iter().any(|change| change.kind == Kind::Address);
        let sync = |()| if addresses { self.file.sync_data() } else { Ok(()) };
        let written = (&self.file).write_all(line.as_bytes()).and_then(sync);
        written.map_err(StoreError::io(&self.path))
    }

    pub(super) fn outgrown(&self) -> bool {
        self.commits_bytes > self.rows_bytes.max(COMMITS_BYTES_MIN)
    }
}

fn print(head: &Head, whole: bool, rows: &[Change]) -> String {
    // History is not in it: it would outgrow what matters.
    let rows = rows.iter().filter(|row| row.kind != Kind::History).map(|Change { kind, key, body }| {
        let body = body.as_ref().map(|body| serde_json::from_slice(body).expect("rows are JSON"));
        (*kind, key.clone(), body)
    });
    let line = Line { generation: head.generation, sum: head.sum, whole, rows: rows.collect() };
    let json = serde_json::to_string(&line).expect("values with text keys are JSON");
    format!("{:032x} {json}\n", checksum(&[json.as_bytes()]))
}

fn parse(line: &str) -> Option<Line> {
    let (sum, json) = line.split_at_checked(CHECKSUM_DIGITS)?;
    let json = json.strip_prefix(' ')?;
    let sum = u128::from_str_radix(sum, 16).ok()?;
    (checksum(&[json.as_bytes()]) == sum).then(|| serde_json::from_str(json).ok())?
}

/// Reads a backup; none where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Content>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(path)(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.split_inclusive('\n').map(|line| line.strip_suffix('\n').and_then(parse));
    let bad = |why: &str| StoreError::BadBackup { path: path.to_owned(), why: why.to_owned() };
    let first = lines.next().flatten().filter(|line| line.whole);
    let Line { mut generation, mut sum, whole: _, rows } =
        first.ok_or_else(|| bad("the backup's first line is damaged, so that none of it can be used"))?;
    let mut all: BTreeMap<(Kind, String), serde_json::Value> =
        rows.into_iter().filter_map(|(kind, key, body)| Some(((kind, key), body?))).collect();
    let mut whole = true;
    for line in lines {
        let Some(line) = line.filter(|line| !line.whole && line.generation == generation + 1) else {
            whole = false;
            break;
        };
        (generation, sum) = (line.generation, line.sum);
        for (kind, key, body) in line.rows {
            match body {
                Some(body) => all.insert((kind, key), body),
                None => all.remove(&(kind, key)),
            };
        }
    }
    let mut document = ExportDoc::new(generation);
    for ((kind, key), body) in &all {
        let body = serde_json::to_vec(body).expect("a value is JSON");
        document.take(*kind, key, &body).map_err(|why| bad(&format!("the backup's row '{key}': {why}")))?;
    }
    Ok(Some(Content { generation, sum, document, whole }))
}
