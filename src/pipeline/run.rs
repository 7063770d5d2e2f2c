//! The loop itself: one task that owns everything between sources and outputs.

use super::{
    Course, Kept, LedgerThread, Next, Stages,
    behind::Behind,
    journey::{Awaited, Journeys},
    observed::Observed,
};
use crate::{
    base::{Hostname, ObjectKey, Text},
    clock,
    desired::{Desired, Publication, ZoneChange},
    dns::{self, SharedZones, ZoneSerial},
    failpoint,
    ipam::Plan,
    report::{Finding, Severity},
    server::{EngineEvent, FleetEvent, Handle},
    source::files::Batch,
    store::{Serial, Serials},
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep_until,
};
use tracing::{Instrument, debug_span};

/// A question to the loop's state, answered between two batches.
pub type Query = Box<dyn FnOnce(&mut Pipeline) + Send>;

/// What the loop listens to.
pub struct Inlets {
    pub batches: mpsc::Receiver<Batch>,
    pub events: mpsc::Receiver<FleetEvent>,
    pub queries: mpsc::Receiver<Query>,
}

/// The loop's state.
pub struct Pipeline {
    course: Course,
    ledger: LedgerThread,
    zones: SharedZones,
    fleet: Handle,
    observed: Observed,
    kept: Kept,
    serials: Serials,
    behind: Behind,
    journeys: Journeys,
    /// Releases an operator asked for, and who waits to hear of them.
    releases: Vec<(Text, oneshot::Sender<Released>)>,
    /// What was last logged of an object.
    told: BTreeMap<ObjectKey, Vec<Finding>>,
}

/// Batches taken in together when they queue up.
const BATCHES_MAX: usize = 64;

impl Pipeline {
    #[must_use]
    pub fn new(
        desired: Desired,
        ledger: LedgerThread,
        zones: SharedZones,
        fleet: Handle,
        kept: Kept,
        serials: Serials,
    ) -> Self {
        let behind = Behind::new(ledger.clone());
        Self {
            course: Course::new(desired),
            ledger,
            zones,
            observed: Observed::new(fleet.clone()),
            fleet,
            kept,
            serials,
            behind,
            journeys: Journeys::new(),
            releases: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// Runs until the source ends.
    pub async fn run(mut self, inlets: Inlets) {
        let Inlets { mut batches, mut events, mut queries } = inlets;
        loop {
            let (wake, behind) = (self.course.wake_at(), self.behind.due());
            tokio::select! {
                batch = batches.recv() => {
                    let Some(batch) = batch else { return };
                    let mut all = vec![batch];
                    while all.len() < BATCHES_MAX && let Ok(batch) = batches.try_recv() {
                        all.push(batch);
                    }
                    self.collect(all).await;
                }
                Some(event) = events.recv() => {
                    self.event(event);
                }
                Some(query) = queries.recv() => {
                    query(&mut self);
                    self.release_asked().await;
                }
                () = clock::sleep_until(wake.unwrap_or(i64::MAX)), if wake.is_some() => {
                    self.settle().await;
                }
                () = sleep_until(behind.unwrap_or_else(clock::instant).into()), if behind.is_some() => self.behind.write(),
            }
        }
    }

    /// Has the addresses of a claim released that no object stands behind.
    pub fn ask_release(&mut self, claim: Text, tell: oneshot::Sender<Released>) {
        self.releases.push((claim, tell));
    }

    async fn release_asked(&mut self) {
        for (claim, tell) in std::mem::take(&mut self.releases) {
            let released = self.release(&claim).await;
            let _ = tell.send(released);
        }
    }

    async fn release(&mut self, claim: &Text) -> Released {
        let plan = self.course.release(claim, clock::now_unix())?;
        let to_write = plan.clone();
        let written = self.ledger.ask(move |store| store.commit(&to_write)).await;
        written.map_err(|error| error.to_string())?;
        self.course.released(&plan);
        self.settle().await;
        Ok(plan.release.iter().map(|release| release.address).collect())
    }

    fn event(&mut self, event: FleetEvent) {
        let moved = matches!(event.what, EngineEvent::Synced | EngineEvent::Disconnected);
        let refused = matches!(event.what, EngineEvent::Refused(_));
        self.observed.event(event);
        if refused {
            self.keep_last_good();
        }
        if moved {
            self.engines_moved();
        }
    }

    fn engines_moved(&mut self) {
        let behind = |wait: &Awaited| self.fleet.behind(wait.epoch, wait.streams.clone());
        self.journeys.moved(clock::instant(), behind);
    }

    async fn collect(&mut self, batches: Vec<Batch>) {
        let taken = clock::instant();
        let noticed = batches.iter().filter_map(|batch| batch.noticed).min().unwrap_or(taken);
        let objects = batches.iter().map(|batch| batch.changes.len()).sum();
        let span = self.journeys.begin(noticed, taken, batches.len(), objects);
        self.take(batches).instrument(span).await;
    }

    async fn take(&mut self, batches: Vec<Batch>) {
        tracing::debug!("Changes came");
        failpoint::pass("batch.came");
        let mut ages = Vec::new();
        debug_span!("compile").in_scope(|| {
            for batch in batches {
                let Batch { noticed: _, changes, first, whole, findings, places, seen } = batch;
                self.observed.source(findings, places);
                self.course.take(changes, first, whole);
                ages.extend(seen);
            }
        });
        failpoint::pass("batch.taken");
        self.settle().await;
        self.behind.ages(ages);
    }

    /// Plans, writes and publishes until nothing is left to do.
    async fn settle(&mut self) {
        let mut next = self.course.next(clock::now_unix());
        loop {
            next = match next {
                Next::Write(plan) => self.write(plan).instrument(debug_span!("write")).await,
                Next::Publish { publication, first } => {
                    self.journeys.compiled(clock::instant());
                    let resources = publication.resources.set.len() + publication.resources.removed.len();
                    let awaited = debug_span!("publish").in_scope(|| self.publish(publication, first));
                    self.journeys.published(clock::instant(), resources, awaited);
                    // Equal versions are no change: nobody will say a word.
                    return self.engines_moved();
                }
                Next::Rest => {
                    self.journeys.compiled(clock::instant());
                    return self.journeys.rested();
                }
            };
        }
    }

    async fn write(&mut self, plan: Plan) -> Next {
        let (to_write, start) = (plan.clone(), clock::instant());
        let written = self
            .ledger
            .ask(move |store| store.commit(&to_write).map_err(|error| Box::new((error, store.reopen()))));
        let written = written.await;
        self.journeys.wrote(clock::instant().saturating_duration_since(start));
        let (error, reread) = match written {
            Ok(()) => {
                failpoint::pass("plan.written");
                self.course.written(&plan);
                return self.course.next(clock::now_unix());
            }
            Err(failed) => *failed,
        };
        tracing::error!(%error, "The VIP ledger could not be written; nothing of it is announced");
        self.course.refused(&plan, &error.to_string());
        if let Err(error) = &reread {
            tracing::error!(%error, "The VIP ledger could not be opened again");
        }
        self.course.unwritten(reread.ok(), clock::now_unix())
    }

    /// Gives whom to wait for where engines are sent something.
    fn publish(&mut self, publication: Publication, first: bool) -> Option<Awaited> {
        failpoint::pass("publish.before");
        let Publication { resources, records, zones, reported } = publication;
        self.observed.published(&resources);
        let mut awaited = None;
        if first || !resources.set.is_empty() || !resources.removed.is_empty() {
            let (set, removed) = (resources.set.len(), resources.removed.len());
            let epoch = self.fleet.publish(resources);
            awaited = self.fleet.joined().map(|joined| Awaited { epoch, streams: 0..joined });
            tracing::debug!(set, removed, "Resources were published");
            failpoint::pass("publish.resources");
            self.keep_last_good();
        }
        if !records.is_empty() || !zones.is_empty() {
            self.publish_dns(records, zones, first);
        }
        failpoint::pass("publish.after");
        self.log(reported);
        awaited
    }

    fn keep_last_good(&mut self) {
        if let Some(write) = self.kept.changes(&self.fleet) {
            self.ledger.tell(move |_| write());
        }
    }

    fn publish_dns(&mut self, records: Records, changes: Vec<ZoneChange>, first: bool) {
        let count = records.len() + changes.len();
        let serials = self.zones.update(|zones| {
            for change in changes {
                match change {
                    ZoneChange::Set(zone) => zones.set_zone(zone.as_ref().clone()),
                    ZoneChange::Removed(apex) => zones.remove_zone(&apex),
                }
            }
            for (host, set) in records {
                match set {
                    Some(set) => zones.set_records(set.as_ref().clone()),
                    None => zones.remove_records(&host),
                }
            }
            if first {
                restore_serials(&self.serials, zones);
            }
            zones.serials()
        });
        for known in serials {
            let serial = Serial { content: known.content, serial: known.serial };
            let zone = known.apex.to_string();
            if self.serials.get(&zone) != Some(&serial) {
                self.serials.insert(zone.clone(), serial);
                self.behind.serial(zone, serial, count);
            }
        }
    }

    /// Logs what is new among the findings of objects.
    fn log(&mut self, reported: BTreeSet<ObjectKey>) {
        for object in reported {
            let findings = self.course.desired().compiled().findings(&object);
            let before = self.told.remove(&object).unwrap_or_default();
            for finding in findings.iter().filter(|finding| !before.contains(finding)) {
                let Finding { object, severity, reason, field, message } = finding;
                match severity {
                    Severity::Error | Severity::Warning => {
                        tracing::warn!(%object, ?reason, field, message, "An object has a finding");
                    }
                    Severity::Info => {
                        tracing::debug!(%object, ?reason, field, message, "An object has a finding")
                    }
                }
            }
            if !findings.is_empty() {
                self.told.insert(object, findings);
            }
        }
    }

    #[must_use]
    pub fn desired(&self) -> &Desired {
        self.course.desired()
    }

    /// How long changes took, stage by stage.
    #[must_use]
    pub fn stages(&self) -> &Stages {
        self.journeys.stages()
    }

    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Whether the first full sync is published.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.course.synced() && self.fleet.ready()
    }
}

/// The addresses released, or why none were.
pub type Released = Result<Vec<std::net::IpAddr>, String>;

type Records = Vec<(crate::base::HostPattern, Option<std::sync::Arc<crate::ir::RecordSet>>)>;

/// Gives zones the serials that the store remembers of them.
fn restore_serials(serials: &Serials, zones: &mut dns::Zones) {
    for (zone, serial) in serials {
        if let Ok(apex) = Hostname::parse(zone) {
            zones.restore_serial(&ZoneSerial { apex, content: serial.content, serial: serial.serial });
        }
    }
}
