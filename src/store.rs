//! What must survive a restart, on disk: the VIP ledger and its company.
//!
//! *Takes* plans of [`crate::ipam`], first sights, zone serials. *Gives* them back
//! after any crash: when a write has returned, it is on the disk. *Invariants*:
//! opened only when every byte of content is proven; a ledger that is damaged,
//! gone or rolled back is refused with the way back, never begun empty; the
//! fence against two owners is here, too, below whoever planned; one process
//! at a time. Everything blocks: call it off the runtime's threads. *To add
//! one*: a `Kind` in `file`, its part of the document, a method here.
//!
//! Files of a state directory: `ledger.redb`; `ledger.backup.jsonl` (see
//! `backup`); `ledger.created`, which says that a ledger must be there;
//! `ledger.lock`; `cache.redb`, which may be deleted at any time.

mod ages;
mod backup;
mod cache;
mod document;
mod error;
mod file;
mod seal;
mod serials;
#[cfg(test)]
mod tests;

pub use ages::{Ages, FirstSeen};
pub use cache::Cache;
pub use document::{AddressDoc, AgeDoc, Event, ExportDoc, HistoryEntry, SerialDoc};
pub use error::StoreError;
pub use serials::{Serial, Serials};

use crate::{
    base::{ObjectKey, Text},
    failpoint,
    ipam::{self, Entry, Ledger, Plan, Pools},
};
use backup::Backup;
use document::{history_key, number, read, row};
use file::{Change, File, Kind};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// What happened is remembered for this many events.
pub const HISTORY_MAX: usize = 10_000;

const LEDGER: &str = "ledger.redb";
const BACKUP: &str = "ledger.backup.jsonl";
const CREATED: &str = "ledger.created";
const LOCK: &str = "ledger.lock";

/// An open state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    file: File,
    /// None after it could not be written: it is begun anew with the next commit.
    backup: Option<Backup>,
    next_history: u64,
    /// First sights and serials that are not on the disk yet.
    owed_ages: BTreeMap<ObjectKey, Option<FirstSeen>>,
    owed_serials: Serials,
    /// Held as long as this lives.
    _lock: fs::File,
}

/// First sights of objects that are written in one commit.
const ROWS_PER_COMMIT_MAX: usize = 512;

/// What was on the disk.
#[derive(Debug)]
pub struct Opened {
    pub store: Store,
    pub ledger: Ledger,
    pub ages: Ages,
    pub serials: Serials,
}

impl Store {
    /// Opens a state directory, and makes it if there is none.
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        let lock = lock(dir)?;
        let path = dir.join(LEDGER);
        let (ledger, created) = (exists(&path)?, exists(&dir.join(CREATED))?);
        if !ledger && (created || exists(&dir.join(BACKUP))?) {
            return Err(StoreError::Missing { path });
        }
        if !ledger {
            failpoint::pass("store.create");
            File::create(&path, 1, &[])?;
        }
        let (file, document, next_history) = read_file(&path)?;
        judge_by_backup(dir, &file)?;
        let ledger = document.ledger().map_err(|error| corrupt(&path, &error))?;
        let mut ages = Ages::new();
        for AgeDoc { object, seen } in &document.ages {
            ages.insert(document::object(object).map_err(|why| corrupt(&path, &why))?, *seen);
        }
        let serials = document.serials.into_iter().map(|SerialDoc { zone, serial }| (zone, serial)).collect();
        let mut store = Self {
            dir: dir.to_owned(),
            file,
            backup: None,
            next_history,
            owed_ages: BTreeMap::new(),
            owed_serials: Serials::new(),
            _lock: lock,
        };
        store.backup = Some(store.begin_backup()?);
        if !created {
            mark_created(dir)?;
            failpoint::pass("store.marked");
        }
        Ok(Opened { store, ledger, ages, serials })
    }

    /// After a write that failed: opens the ledger again and gives what it holds,
    /// which may be with or without that write.
    pub fn reopen(&mut self) -> Result<Ledger, StoreError> {
        let path = self.dir.join(LEDGER);
        // A file is open once, and a plan that did not fit has not closed it.
        self.file.close();
        let (file, document, next_history) = read_file(&path)?;
        judge_by_backup(&self.dir, &file)?;
        let ledger = document.ledger().map_err(|error| corrupt(&path, &error))?;
        (self.file, self.next_history, self.backup) = (file, next_history, None);
        Ok(ledger)
    }

    /// Writes a plan: when this returns, what it gives may be announced, and the
    /// caller's ledger takes the plan. After an error neither.
    pub fn commit(&mut self, plan: &Plan) -> Result<(), StoreError> {
        if plan.is_empty() {
            return Ok(());
        }
        let mut known: Vec<(IpAddr, Entry)> = Vec::new();
        let keys: Vec<String> = plan.addresses().iter().map(IpAddr::to_string).collect();
        self.file.get(Kind::Address, &keys, |key, body| {
            known.push((document::address(key)?, read(body)?));
            Ok(())
        })?;
        let known = Ledger::new(known)?;
        known.admits(plan)?;
        let mut changes: Vec<Change> = plan
            .entries(|address| known.entry(address).cloned())
            .map(|(address, entry)| match entry {
                Some(entry) => row(Kind::Address, address.to_string(), &entry),
                None => gone(Kind::Address, address.to_string()),
            })
            .collect();
        let events = events(plan, &known);
        let count = events.len() as u64;
        for (number, event) in (self.next_history..).zip(events) {
            changes.push(row(Kind::History, history_key(number), &event));
            if let Some(old) = number.checked_sub(HISTORY_MAX as u64) {
                changes.push(gone(Kind::History, history_key(old)));
            }
        }
        self.write(&changes)?;
        self.next_history += count;
        Ok(())
    }

    /// Releases what a claim holds, for an operator: written, and to be applied
    /// to the caller's ledger.
    pub fn release(
        &mut self,
        pools: &Pools,
        ledger: &Ledger,
        claim: &Text,
        now: i64,
    ) -> Result<Plan, StoreError> {
        let plan = ipam::release(pools, ledger, claim, now);
        self.commit(&plan)?;
        Ok(plan)
    }

    /// Remembers serials of zones, and when objects were first seen, or (none) forgets
    /// it: should one come again, it is new. What a change brings is one commit. What
    /// could not be written is written with the next call.
    pub fn remember(
        &mut self,
        ages: &[(ObjectKey, Option<FirstSeen>)],
        serials: &[(String, Serial)],
    ) -> Result<(), StoreError> {
        self.owed_serials.extend(serials.iter().cloned());
        self.owed_ages.extend(ages.iter().cloned());
        if self.file.closed() {
            self.reopen()?;
        }
        while !self.owed_ages.is_empty() || !self.owed_serials.is_empty() {
            // Each row is in memory several times while it is written: not all of a first load at once.
            let some: Vec<_> = self.owed_ages.keys().take(ROWS_PER_COMMIT_MAX).cloned().collect();
            let serials = self.owed_serials.iter();
            let mut rows: Vec<Change> =
                serials.map(|(zone, serial)| row(Kind::Serial, zone.clone(), serial)).collect();
            rows.extend(some.iter().map(|object| match &self.owed_ages[object] {
                Some(seen) => row(Kind::Age, object.to_string(), seen),
                None => gone(Kind::Age, object.to_string()),
            }));
            self.write(&rows)?;
            self.owed_serials.clear();
            for object in &some {
                self.owed_ages.remove(object);
            }
        }
        Ok(())
    }

    /// The newest events first, at most `limit`, of one claim or address if named.
    pub fn history(
        &self,
        claim: Option<&str>,
        address: Option<IpAddr>,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut found = Vec::new();
        self.file.rows(Kind::History, true, |_, body| {
            let entry: HistoryEntry = read(body)?;
            if claim.is_none_or(|claim| *entry.claim == *claim)
                && address.is_none_or(|at| entry.address == at)
            {
                found.push(entry);
            }
            Ok(found.len() < limit)
        })?;
        found.truncate(limit);
        Ok(found)
    }

    /// Everything, as a document.
    pub fn export(&self) -> Result<ExportDoc, StoreError> {
        let mut document = ExportDoc::new(self.file.head().generation);
        for kind in Kind::ALL {
            self.file.rows(kind, false, |key, body| document.take(kind, key, body).map(|()| true))?;
        }
        Ok(document)
    }

    /// What the backup of a state directory tells, for a ledger that cannot be
    /// opened. Without history; up to the last write, unless that says otherwise.
    pub fn salvage(dir: &Path) -> Result<ExportDoc, StoreError> {
        let path = dir.join(BACKUP);
        let content = backup::read(&path)?;
        let content = content.ok_or_else(|| StoreError::BadBackup {
            path: path.clone(),
            why: "there is no backup".to_owned(),
        })?;
        if !content.whole {
            tracing::warn!(path = %path.display(), generation = content.generation,
                "The backup is damaged behind this generation; what was written later is not in it");
        }
        Ok(content.document)
    }

    /// Makes the ledger of a state directory anew from a document. The old file
    /// stays as `ledger.redb.replaced`.
    pub fn import(dir: &Path, document: &ExportDoc) -> Result<(), StoreError> {
        let _lock = lock(dir)?;
        let rows = document.rows()?;
        // Later than anything the backup knows, or the next start would take
        // this for a rollback.
        let known = backup::read(&dir.join(BACKUP)).ok().flatten().map_or(0, |content| content.generation);
        let (path, generation) = (dir.join(LEDGER), document.generation.max(known).saturating_add(1));
        let replaced = path.with_extension("redb.replaced");
        if exists(&path)? {
            if exists(&replaced)? {
                fs::remove_file(&replaced).map_err(StoreError::io(&replaced))?;
            }
            // A second name, so that there is a ledger at every moment.
            fs::hard_link(&path, &replaced).map_err(StoreError::io(&replaced))?;
        }
        File::create(&path, generation, &rows)?;
        let file = File::open(&path, |_, _, _| Ok(()))?;
        Backup::begin(&dir.join(BACKUP), &file.head(), &rows)?;
        mark_created(dir)
    }

    /// How many writes led here.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.file.head().generation
    }

    /// The one way in: the file, then the backup. A backup that cannot be
    /// written does not undo what is on the disk.
    fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        failpoint::pass("ledger.before");
        if let Err(error) = self.file.commit(changes) {
            // What comes next is not what follows its last line.
            self.backup = None;
            return Err(error);
        }
        failpoint::pass("ledger.committed");
        let written = match self.backup.take() {
            Some(mut backup) if !backup.outgrown() => {
                backup.append(&self.file.head(), changes).map(|()| backup)
            }
            Some(_) | None => self.begin_backup(),
        };
        match written {
            Ok(backup) => self.backup = Some(backup),
            Err(error) => {
                tracing::warn!(%error, "The backup of the VIP ledger could not be written; the ledger was");
            }
        }
        failpoint::pass("ledger.after");
        Ok(())
    }

    fn begin_backup(&self) -> Result<Backup, StoreError> {
        let mut all = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::History) {
            self.file.rows(kind, false, |key, body| {
                all.push(Change { kind, key: key.to_owned(), body: Some(body.to_vec()) });
                Ok(true)
            })?;
        }
        Backup::begin(&self.dir.join(BACKUP), &self.file.head(), &all)
    }
}

/// The file, all it holds but history, and the number of the next event of that.
fn read_file(path: &Path) -> Result<(File, ExportDoc, u64), StoreError> {
    let mut document = ExportDoc::new(0);
    let mut next_history = 0;
    let file = File::open(path, |kind, key, body| {
        if kind == Kind::History {
            next_history = number(key)? + 1;
            // Read for its errors; there may be much of it.
            return read::<HistoryEntry>(body).map(drop);
        }
        document.take(kind, key, body)
    })?;
    Ok((file, document, next_history))
}

/// A ledger that is whole can still be an old one: its backup, written after
/// each commit, is never ahead of it.
fn judge_by_backup(dir: &Path, file: &File) -> Result<(), StoreError> {
    let path = file.path().to_owned();
    let content = match backup::read(&dir.join(BACKUP)) {
        Ok(content) => content,
        Err(error @ StoreError::BadBackup { .. }) => {
            tracing::warn!(%error, "The backup of the VIP ledger is damaged; it is made anew of the ledger");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Some(content) = content else { return Ok(()) };
    let head = file.head();
    if head.generation < content.generation {
        return Err(StoreError::Behind { path, ledger: head.generation, backup: content.generation });
    }
    if head.generation == content.generation && head.sum != content.sum {
        let why = "it and its backup differ in what one write wrote".to_owned();
        return Err(StoreError::Corrupt { path, why });
    }
    Ok(())
}

/// What a plan does, as history tells it.
fn events(plan: &Plan, before: &Ledger) -> Vec<HistoryEntry> {
    let at = plan.at;
    let released = plan.release.iter().map(|release| {
        let event = Event::Released { until: release.until };
        HistoryEntry { at, address: release.address, claim: release.claim.clone(), event }
    });
    let freed = plan.forget.iter().filter_map(|address| {
        let claim = before.entry(*address)?.claim.clone();
        Some(HistoryEntry { at, address: *address, claim, event: Event::Freed })
    });
    let allocated = plan.allocate.iter().map(|allocation| {
        let event = Event::Allocated { pool: allocation.pool.clone() };
        HistoryEntry { at, address: allocation.address, claim: allocation.claim.clone(), event }
    });
    released.chain(freed).chain(allocated).collect()
}

fn gone(kind: Kind, key: String) -> Change {
    Change { kind, key, body: None }
}

fn corrupt(path: &Path, why: &impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), why: why.to_string() }
}

fn lock(dir: &Path) -> Result<fs::File, StoreError> {
    fs::create_dir_all(dir).map_err(StoreError::io(dir))?;
    let path = dir.join(LOCK);
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(StoreError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(StoreError::io(&path)(error)),
    }
}

/// Also a file that cannot be looked at is an error, not an absence.
fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io(path))
}

fn mark_created(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(CREATED);
    let text = "A VIP ledger was made here: without ledger.redb nothing starts in this directory.\n";
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(StoreError::io(&path))?;
    sync_dir(&path)
}

/// Makes a rename or a new name in a file's directory durable.
fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(path);
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io(dir))
}
