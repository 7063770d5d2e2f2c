//! What the control plane sent last, kept so that a restarted engine serves it
//! while the control plane is away.
//!
//! A log of what changed, written before Envoy is told, so that an engine that
//! was killed never offers its Envoy something older than it has. A log is read
//! up to its first damage: what it then says was true once. Private keys are in
//! a log of their own, in memory (tmpfs) alone.

mod log;

use super::EngineError;
use crate::{
    base::Version,
    server::{cache::Cache, relay::Key},
    xds::{Resource, ResourceKey, ResourceKind, Update},
};
use bytes::Bytes;
use log::Log;
use prost::Message;
use rustix::fs::{FsWord, statfs};
use std::{
    collections::BTreeMap,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

/// `statfs.f_type` of file systems without a disk behind them (statfs(2)).
const MEMORY_FILE_SYSTEMS: [FsWord; 2] = [0x0102_1994, 0x8584_58f6];
/// Resources in one record when a log is written anew.
const RECORD_RESOURCES_MAX: usize = 256;

/// One record: what one response brought.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(message, repeated, tag = "1")]
    set: Vec<Kept>,
    #[prost(message, repeated, tag = "2")]
    removed: Vec<Key>,
    /// From here on it is all there is.
    #[prost(bool, tag = "3")]
    complete: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, optional, tag = "1")]
    key: Option<Key>,
    #[prost(bytes = "vec", tag = "2")]
    version: Vec<u8>,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
    #[prost(message, repeated, tag = "4")]
    needs: Vec<Key>,
}

/// See the module.
#[derive(Debug)]
pub struct Snapshot {
    public: Log,
    /// None: there is no tmpfs for it, and a restart forgets the keys.
    secret: Option<Log>,
    complete: bool,
}

impl Snapshot {
    /// Opens what is kept in `folder` and, of keys, in `memory` (a folder of ours
    /// alone on a tmpfs), and gives the state that was complete.
    ///
    /// # Errors
    /// `folder` cannot be written, or `memory` is no place for keys.
    pub fn open(folder: &Path, memory: Option<&Path>) -> Result<(Self, Option<Update>), EngineError> {
        let mut known = BTreeMap::new();
        let mut complete = false;
        let mut open = |folder: &Path, name: &str| {
            let path = folder.join(name);
            let read = Log::open(&path, |record| replay(record, &mut known, &mut complete));
            read.map_err(|source| EngineError::Folder { path, source })
        };
        let public = open(folder, "snapshot.log")?;
        let secret = match memory {
            Some(memory) => {
                check_memory(memory)?;
                Some(open(memory, "keys.log")?)
            }
            None => None,
        };
        let state = complete.then(|| Update { set: known.into_values().collect(), removed: Vec::new() });
        let mut snapshot = Self { public, secret, complete };
        if !complete {
            // Half a state is none: it would let Envoy begin with it.
            snapshot.each(Log::clear);
        }
        Ok((snapshot, state))
    }

    /// Whether what is kept is a whole state.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Keeps what changed, before Envoy is told. A log that cannot be written is
    /// removed: an old state must not come back.
    pub fn keep(&mut self, update: &Update) {
        let (secret, public): (Vec<_>, Vec<_>) =
            update.set.iter().partition(|resource| is_secret(&resource.key));
        let (gone_secret, gone_public): (Vec<_>, Vec<_>) =
            update.removed.iter().partition(|key| is_secret(key));
        if !public.is_empty() || !gone_public.is_empty() {
            self.public.append(&record(&public, &gone_public));
        }
        if let Some(log) = &mut self.secret
            && !(secret.is_empty() && gone_secret.is_empty())
        {
            log.append(&record(&secret, &gone_secret));
        }
    }

    /// From here on it is all there is.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.complete, true) {
            self.public.append(&Record { complete: true, ..Record::default() });
        }
    }

    /// Writes a log anew that is mostly past, or that was lost.
    pub fn tidy(&mut self, cache: &Cache) {
        if self.public.is_long() {
            let kinds = ResourceKind::ALL.into_iter().filter(|kind| *kind != ResourceKind::Secret);
            let end = Record { complete: self.complete, ..Record::default() };
            self.public.rewrite(kinds.flat_map(|kind| live(cache, kind)).chain([end]));
        }
        if let Some(log) = self.secret.as_mut().filter(|log| log.is_long()) {
            log.rewrite(live(cache, ResourceKind::Secret));
        }
    }

    /// The engine ends for good: its keys go with it.
    pub fn forget_keys(self) {
        if let Some(log) = self.secret {
            log.remove();
        }
    }

    fn each(&mut self, act: impl Fn(&mut Log)) {
        act(&mut self.public);
        self.secret.iter_mut().for_each(act);
    }
}

fn is_secret(key: &ResourceKey) -> bool {
    key.kind == ResourceKind::Secret
}

/// What is held of a kind; of a refused resource, what is served in its place.
fn live(cache: &Cache, kind: ResourceKind) -> impl Iterator<Item = Record> + '_ {
    let held = cache
        .entries(kind)
        .filter_map(|(_, entry)| if entry.quarantined() { entry.last_good() } else { Some(&entry.resource) });
    let mut held = held.peekable();
    std::iter::from_fn(move || {
        held.peek()?;
        let some: Vec<_> = held.by_ref().take(RECORD_RESOURCES_MAX).collect();
        Some(record(&some, &[]))
    })
}

fn record(set: &[&Resource], removed: &[&ResourceKey]) -> Record {
    let kept = |resource: &&Resource| {
        let Resource { key, version, body, needs, origins: _ } = resource;
        Kept {
            key: Some(key.into()),
            version: version.0.to_be_bytes().to_vec(),
            body: body.bytes(),
            needs: needs.iter().map(Key::from).collect(),
        }
    };
    Record {
        set: set.iter().map(kept).collect(),
        removed: removed.iter().map(|key| Key::from(*key)).collect(),
        complete: false,
    }
}

/// Takes one record in; false where it is none of ours.
fn replay(record: Record, known: &mut BTreeMap<ResourceKey, Resource>, complete: &mut bool) -> bool {
    let Record { set, removed, complete: end } = record;
    for kept in set {
        let Some(resource) = resource(kept) else { return false };
        known.insert(resource.key.clone(), resource);
    }
    for key in removed {
        let Some(key) = key.read() else { return false };
        known.remove(&key);
    }
    *complete |= end;
    true
}

fn resource(kept: Kept) -> Option<Resource> {
    let Kept { key, version, body, needs } = kept;
    Some(Resource {
        key: key?.read()?,
        version: Version(u128::from_be_bytes(version.try_into().ok()?)),
        body: body.into(),
        needs: needs.into_iter().map(Key::read).collect::<Option<_>>()?,
        origins: [].into(),
    })
}

/// Makes the folder, and makes sure that it is ours alone and not on a disk.
fn check_memory(folder: &Path) -> Result<(), EngineError> {
    let failed = |source| EngineError::Folder { path: folder.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let about = std::fs::symlink_metadata(folder).map_err(failed)?;
    let ours =
        about.is_dir() && about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o077 == 0;
    let kind = statfs(folder).map_err(|error| failed(error.into()))?.f_type;
    if ours && MEMORY_FILE_SYSTEMS.contains(&kind) {
        Ok(())
    } else {
        Err(EngineError::NoPlaceForKeys(folder.to_owned()))
    }
}

#[cfg(test)]
mod tests;
