//! One fleet: its cache, its streams, and what the rest of the program asks of it.

use super::{
    cache::{Cache, LastGood},
    session::{Closed, Event, Refused, Session, Step},
};
use crate::{
    base::Text,
    failpoint,
    xds::{ResourceKey, ResourceKind, Update},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::{Notify, mpsc, watch};

/// Streams of one fleet: 10,000 engines, and as many again while they reconnect.
pub const STREAMS_MAX: usize = 20_000;
/// Events kept for the reader; older state can be asked for, so the newest are dropped.
const EVENTS_MAX: usize = 4_096;

/// What happened on an engine's stream.
#[derive(Debug, Clone)]
pub struct FleetEvent {
    pub engine: Text,
    pub what: EngineEvent,
}

#[derive(Debug, Clone)]
pub enum EngineEvent {
    Connected,
    Synced,
    Refused(Refused),
    Disconnected,
}

/// One stream as `status` shows it.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    pub engine: Text,
    pub connected_since: Instant,
    /// Resources not yet accepted, in the order of [`ResourceKind::ALL`].
    pub pending: [usize; ResourceKind::ALL.len()],
    pub synced: bool,
    /// Proven refusals on this stream.
    pub refusals: u64,
    /// Resources and removals sent on this stream.
    pub sent: u64,
}

/// How many of the connected engines hold the published version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub by: usize,
    pub of: usize,
}

#[derive(Debug)]
pub(super) struct Stream {
    engine: Text,
    since: Instant,
    /// Written by its own task alone; read for status.
    session: RwLock<Session>,
}

/// Locks are taken in the order cache, streams, session.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) name: Text,
    cache: RwLock<Cache>,
    changed: watch::Sender<u64>,
    streams: RwLock<BTreeMap<u64, Arc<Stream>>>,
    next: AtomicU64,
    events: mpsc::Sender<FleetEvent>,
    /// Peers that claimed to be another than their certificate says.
    impostors: AtomicU64,
    stepped: Notify,
}

/// The way in for the pipeline and for status. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    fleet: Arc<Fleet>,
}

impl Handle {
    pub(super) fn new(name: Text) -> (Arc<Fleet>, Self, mpsc::Receiver<FleetEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let fleet = Arc::new(Fleet {
            name,
            cache: RwLock::default(),
            changed: watch::Sender::new(0),
            streams: RwLock::default(),
            next: AtomicU64::new(0),
            events,
            impostors: AtomicU64::new(0),
            stepped: Notify::new(),
        });
        (fleet.clone(), Self { fleet }, receiver)
    }

    /// Publishes what changed. Before the first call no engine is answered, so
    /// the first update must be the whole world. Returns the epoch.
    #[expect(clippy::must_use_candidate, reason = "most callers publish and go on")]
    pub fn publish(&self, update: Update) -> u64 {
        let epoch = write(&self.fleet.cache).apply(update);
        self.fleet.changed.send_replace(epoch);
        epoch
    }

    /// Whether the first update was published.
    #[must_use]
    pub fn ready(&self) -> bool {
        read(&self.fleet.cache).complete()
    }

    /// Publishes some of a first state that comes in parts: see [`Cache::apply_part`].
    pub fn publish_part(&self, kind: ResourceKind, update: Update) {
        let epoch = write(&self.fleet.cache).apply_part(kind, update);
        self.fleet.changed.send_replace(epoch);
    }

    /// All parts are published.
    pub fn finish(&self) {
        let epoch = write(&self.fleet.cache).finish();
        self.fleet.changed.send_replace(epoch);
    }

    /// Waits until some stream has moved on since it was last asked.
    pub async fn stepped(&self) {
        self.fleet.stepped.notified().await;
    }

    /// Asks the cache and the newest stream's session. No stream moves meanwhile.
    pub fn look<T>(&self, ask: impl FnOnce(&Cache, Option<&Session>) -> T) -> T {
        let cache = read(&self.fleet.cache);
        let streams = read(&self.fleet.streams);
        let session = streams.values().next_back().map(|stream| read(&stream.session));
        ask(&cache, session.as_deref())
    }

    /// What was refused before a restart; before the first [`Handle::publish`].
    pub fn restore(&self, known: impl IntoIterator<Item = LastGood>) {
        write(&self.fleet.cache).restore(known);
    }

    /// What is refused now, to be kept over a restart.
    #[must_use]
    pub fn last_good(&self) -> Vec<LastGood> {
        read(&self.fleet.cache).last_good().collect()
    }

    /// Engines that refused the published version of this key.
    #[must_use]
    pub fn refused_by(&self, key: &ResourceKey) -> BTreeSet<Text> {
        read(&self.fleet.cache).refused_by(key).cloned().unwrap_or_default()
    }

    #[must_use]
    pub fn engines(&self) -> Vec<EngineStatus> {
        let streams = read(&self.fleet.streams);
        let status = |stream: &Arc<Stream>| {
            let Stream { engine, since, session } = &**stream;
            let session = read(session);
            EngineStatus {
                engine: engine.clone(),
                connected_since: *since,
                pending: session.pending(),
                synced: session.synced(),
                refusals: session.refusals(),
                sent: session.sent(),
            }
        };
        streams.values().map(status).collect()
    }

    /// How many connected engines hold the published version, or the absence,
    /// of this key. One lookup an engine. A stream that has not yet read the
    /// newest change counts as not holding it.
    #[must_use]
    pub fn held(&self, key: &ResourceKey) -> Held {
        let cache = read(&self.fleet.cache);
        self.fleet.held(&cache, key)
    }

    /// The number after that of the newest stream; nothing where there are none.
    #[must_use]
    pub fn joined(&self) -> Option<u64> {
        read(&self.fleet.streams).last_key_value().map(|(id, _)| id + 1)
    }

    /// The first of these streams whose engine has not taken all as of this epoch.
    /// Whoever asks again may begin there: those before never fall behind it.
    #[must_use]
    pub fn behind(&self, epoch: u64, among: Range<u64>) -> Option<u64> {
        let streams = read(&self.fleet.streams);
        let lacks = |(_, stream): &(_, &Arc<Stream>)| !read(&stream.session).settled(epoch);
        streams.range(among).find(lacks).map(|(id, _)| *id)
    }

    /// Peers refused because their node id is not their certificate's engine.
    #[must_use]
    pub fn impostors(&self) -> u64 {
        self.fleet.impostors.load(Ordering::Relaxed)
    }
}

impl Fleet {
    fn held(&self, cache: &Cache, key: &ResourceKey) -> Held {
        let streams = read(&self.streams);
        let holds = |stream: &&Arc<Stream>| {
            let session = read(&stream.session);
            !cache.withdrawn(key) && session.up_to_date(cache) && session.in_order(key)
        };
        Held { by: streams.values().filter(holds).count(), of: streams.len() }
    }

    /// Once a second.
    pub(super) fn tick(&self) {
        let mut cache = write(&self.cache);
        let before = cache.head();
        let held = |key: &ResourceKey| {
            let streams = read(&self.streams);
            streams.values().all(|stream| {
                let session = read(&stream.session);
                session.seen_all(before) && session.in_order(key)
            })
        };
        cache.tick(held);
        let head = cache.head();
        drop(cache);
        if head != before {
            self.changed.send_replace(head);
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// `None` where the fleet has as many streams as it may.
    pub(super) fn join(self: &Arc<Self>, engine: Text, now: Instant) -> Option<Member> {
        let mut streams = write(&self.streams);
        if streams.len() >= STREAMS_MAX {
            return None;
        }
        let session = RwLock::new(Session::new(engine.clone()));
        let stream = Arc::new(Stream { engine, since: now, session });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        streams.insert(id, stream.clone());
        drop(streams);
        self.tell(&stream.engine, EngineEvent::Connected);
        Some(Member { fleet: self.clone(), id, stream })
    }

    pub(super) fn count_impostor(&self) {
        self.impostors.fetch_add(1, Ordering::Relaxed);
    }

    /// A reader that lags misses events, never state: that can be asked for.
    fn tell(&self, engine: &Text, what: EngineEvent) {
        let event = FleetEvent { engine: engine.clone(), what };
        if self.events.try_send(event).is_err() {
            tracing::debug!(%engine, "An event found no reader");
        }
    }

    fn take(&self, engine: &Text, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Accepted(accepted) => {
                    let mut cache = write(&self.cache);
                    for (key, version) in accepted {
                        cache.acked(&key, version);
                    }
                    failpoint::pass("answer.accepted");
                }
                Event::Refused(refused) => {
                    tracing::warn!(%engine, key = %refused.key, version = %refused.version,
                        message = refused.message, own = refused.own, "An engine refused a resource");
                    if !refused.own {
                        let mut cache = write(&self.cache);
                        cache.quarantine(&refused.key, refused.version, engine.clone());
                        let head = cache.head();
                        drop(cache);
                        self.changed.send_replace(head);
                    }
                    failpoint::pass("answer.refused");
                    self.tell(engine, EngineEvent::Refused(refused));
                }
                Event::Synced => self.tell(engine, EngineEvent::Synced),
            }
        }
    }
}

/// One stream's place in the fleet, until dropped.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) fleet: Arc<Fleet>,
    id: u64,
    stream: Arc<Stream>,
}

impl Member {
    /// Moves the session on and passes its events to the fleet; returns the
    /// responses and when to call again.
    pub(super) fn step(
        &self,
        act: impl FnOnce(&mut Session, &Cache) -> Result<Step, Closed>,
    ) -> Result<(Vec<super::frame::Response>, Option<Instant>), Closed> {
        let (step, wake) = {
            let cache = read(&self.fleet.cache);
            let mut session = write(&self.stream.session);
            let step = act(&mut session, &cache)?;
            (step, session.next_wake())
        };
        let Step { responses, events } = step;
        self.fleet.take(&self.stream.engine, events);
        self.fleet.stepped.notify_one();
        Ok((responses, wake))
    }

    pub(super) fn engine(&self) -> &Text {
        &self.stream.engine
    }

    pub(super) fn synced(&self) -> bool {
        read(&self.stream.session).synced()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        write(&self.fleet.streams).remove(&self.id);
        self.fleet.tell(&self.stream.engine, EngineEvent::Disconnected);
    }
}

/// A panic under a lock leaves the state as it was between two statements that
/// do not panic by themselves: it is read on.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
