//! What the admin API knows of this site: the pipeline's state, the engines'
//! processes, the DNS server's counters.

use super::metrics::Scrape;
use crate::{
    base::{ObjectKey, Text},
    dns,
    pipeline::{LedgerThread, Pipeline, Query, Released},
    report::Severity,
    server::Handle,
    status::{self, EngineStatus, ObjectStatus, Status, VipStatus},
    store::{HistoryEntry, StoreError},
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// An engine whose process we run.
#[derive(Debug, Clone)]
pub struct Supervised {
    pub name: String,
    pub state: String,
    pub pid: Option<u32>,
    /// What it last said when it failed.
    pub last_error: Option<String>,
}

/// Asks for the processes of engines.
pub type Processes = Arc<dyn Fn() -> Vec<Supervised> + Send + Sync>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    pub queries: mpsc::Sender<Query>,
    pub fleet: Handle,
    pub ledger: LedgerThread,
    pub dns: Arc<dns::Counters>,
    pub processes: Processes,
}

impl Site {
    /// Asks the pipeline; nothing when it has ended.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Pipeline) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let query: Query = Box::new(move |pipeline| {
            let _ = sender.send(question(pipeline));
        });
        self.queries.send(query).await.ok()?;
        receiver.await.ok()
    }

    pub(super) async fn status(&self) -> Status {
        let status = self.ask(|pipeline| Status {
            objects: status::objects(pipeline.desired(), pipeline.observed(), pipeline.observed().told()),
            engines: pipeline.observed().engines(),
            vips: status::vips(pipeline.desired()),
            files: pipeline.observed().files(),
        });
        let mut status = status.await.unwrap_or_default();
        self.add_processes(&mut status.engines);
        status
    }

    pub(super) async fn object(&self, object: ObjectKey) -> Option<ObjectStatus> {
        self.ask(move |pipeline| status::object_status(pipeline.desired(), pipeline.observed(), &object))
            .await
            .flatten()
    }

    pub(super) async fn vips(&self) -> Vec<VipStatus> {
        self.ask(|pipeline| status::vips(pipeline.desired())).await.unwrap_or_default()
    }

    pub(super) async fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.ledger.ask(move |store| store.history(None, None, limit)).await
    }

    /// Takes its addresses from a claim that nobody uses any more.
    pub(super) async fn release(&self, claim: Text) -> Released {
        let (sender, receiver) = oneshot::channel();
        let asked = self.ask(move |pipeline| pipeline.ask_release(claim, sender)).await;
        asked.ok_or("the control plane is stopping")?;
        receiver.await.map_err(|_| "the control plane is stopping".to_owned())?
    }

    /// Why it is not ready, or nothing.
    pub(super) async fn unready(&self) -> Option<String> {
        let asked = self.ask(|pipeline| (pipeline.synced(), pipeline.observed().engines())).await;
        let Some((synced, mut engines)) = asked else {
            return Some("the control plane is stopping".to_owned());
        };
        if !synced {
            return Some("the first full read of the sources is not complete".to_owned());
        }
        self.add_processes(&mut engines);
        let behind = engines.iter().find(|engine| !engine.synced)?;
        let said = behind.nacks.first().map(|nack| format!(": {nack}")).unwrap_or_default();
        Some(format!("engine {} is not in sync ({}, {}){said}", behind.name, behind.state, behind.sync))
    }

    fn add_processes(&self, engines: &mut Vec<EngineStatus>) {
        for Supervised { name, state, pid, last_error } in (self.processes)() {
            let found = engines.iter_mut().find(|engine| engine.name == name);
            let engine = match found {
                Some(engine) => engine,
                None => {
                    engines.push(EngineStatus {
                        name,
                        sync: "NOT SENT".to_owned(),
                        ..EngineStatus::default()
                    });
                    engines.last_mut().expect("one was pushed")
                }
            };
            engine.state = state;
            engine.pid = pid;
            engine.nacks.extend(last_error);
        }
    }

    pub(super) async fn metrics(&self) -> String {
        let mut scrape = Scrape::new();
        let counts = self.ask(|pipeline| {
            let desired = pipeline.desired();
            let held = desired.ledger().claims().map(|(_, addresses)| addresses.len()).sum::<usize>();
            let errors = desired.compiled().all_findings().filter(|f| f.severity == Severity::Error).count();
            let costs: Vec<_> = desired.compiled().costs().collect();
            (costs, pipeline.stages().clone(), held, desired.desk().waiting().count(), errors)
        });
        if let Some((costs, stages, held, waiting, errors)) = counts.await {
            scrape.changes(stages);
            scrape.units(costs.into_iter().map(|(kind, cost)| (kind, cost.runs, cost.time)));
            scrape.gauge("vips_held", "Addresses held by claims", held);
            scrape.gauge("claims_waiting", "Claims that lack an address", waiting);
            scrape.gauge("object_errors", "Findings of severity Error", errors);
        }
        let engines = self.fleet.engines();
        let synced = engines.iter().filter(|engine| engine.synced).count();
        scrape.gauge("engines_connected", "xDS streams", engines.len());
        scrape.gauge("engines_synced", "xDS streams with nothing outstanding", synced);
        scrape.counter("xds_impostors", "Peers refused for their identity", self.fleet.impostors());
        scrape.dns(self.dns.samples());
        scrape.text()
    }
}
