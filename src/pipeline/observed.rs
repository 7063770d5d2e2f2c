//! What was seen of the world that is no input of the compile: where objects are
//! written, what files are wrong, what engines refused.

use crate::{
    base::{ObjectKey, Text},
    clock,
    report::{Finding, Reason, Severity},
    server::{EngineEvent, FleetEvent, Handle},
    source::files::{Located, Place, Places, What},
    status::{EngineStatus, FileStatus, Reality},
    xds::{ResourceKey, Update},
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Refusals kept: beyond this there is one cause, and it has been told.
const REFUSALS_MAX: usize = 1_024;

/// See the module.
pub struct Observed {
    fleet: Handle,
    places: Places,
    files: BTreeMap<Arc<Path>, Vec<Located>>,
    /// What an engine said of a resource that is still published.
    refused: BTreeMap<(ResourceKey, Text), Refusal>,
}

struct Refusal {
    origins: Arc<[ObjectKey]>,
    message: String,
    /// The engine's own affair: a port that is taken, a module that does not load.
    own: bool,
}

impl Observed {
    pub(super) fn new(fleet: Handle) -> Self {
        Self { fleet, places: Places::default(), files: BTreeMap::new(), refused: BTreeMap::new() }
    }

    pub(super) fn source(
        &mut self,
        findings: BTreeMap<Arc<Path>, Vec<Located>>,
        places: Vec<(ObjectKey, Option<Place>)>,
    ) {
        self.places.apply(places);
        for (file, located) in findings {
            for located in &located {
                match located.severity() {
                    Severity::Error | Severity::Warning => {
                        tracing::warn!(finding = %located, "A file has a finding")
                    }
                    Severity::Info => tracing::debug!(finding = %located, "A file has a finding"),
                }
            }
            if located.is_empty() {
                self.files.remove(&file);
            } else {
                self.files.insert(file, located);
            }
        }
    }

    /// A new version has not been refused yet.
    pub(super) fn published(&mut self, update: &Update) {
        if self.refused.is_empty() {
            return;
        }
        for key in update.set.iter().map(|resource| &resource.key).chain(&update.removed) {
            self.refused.retain(|(refused, _), _| refused != key);
        }
    }

    pub(super) fn event(&mut self, event: FleetEvent) {
        let FleetEvent { engine, what } = event;
        match what {
            EngineEvent::Connected => {
                // It is sent everything it does not hold, and may take it now.
                self.refused.retain(|(_, by), refusal| *by != engine || !refusal.own);
                tracing::info!(%engine, "An engine is connected");
            }
            EngineEvent::Disconnected => tracing::info!(%engine, "An engine is disconnected"),
            EngineEvent::Synced => tracing::debug!(%engine, "An engine is in sync"),
            EngineEvent::Refused(refused) if self.refused.len() < REFUSALS_MAX => {
                let message = refused.message.split_whitespace().collect::<Vec<_>>().join(" ");
                let refusal = Refusal { origins: refused.origins, message, own: refused.own };
                self.refused.insert((refused.key, engine), refusal);
            }
            EngineEvent::Refused(_) => {}
        }
    }

    /// What files are wrong, besides what is said on objects.
    #[must_use]
    pub fn files(&self) -> Vec<FileStatus> {
        let mut files = Vec::new();
        for (path, located) in &self.files {
            for located in located {
                if let What::Text { severity: Severity::Error | Severity::Warning, message } = &located.what {
                    let file = located
                        .place
                        .as_ref()
                        .map_or_else(|| path.display().to_string(), ToString::to_string);
                    files.push(FileStatus { file, message: message.clone() });
                }
            }
        }
        files
    }

    /// Objects that a file or an engine says something of.
    pub fn told(&self) -> impl Iterator<Item = ObjectKey> + '_ {
        let read = self.files.values().flatten().filter_map(|located| match &located.what {
            What::Object(finding) => Some(finding.object.clone()),
            What::Text { .. } => None,
        });
        read.chain(self.refused.values().flat_map(|refusal| refusal.origins.iter().cloned()))
    }

    /// Engines as their streams show them; the supervisor adds their processes.
    #[must_use]
    pub fn engines(&self) -> Vec<EngineStatus> {
        let mut engines: BTreeMap<Text, EngineStatus> = BTreeMap::new();
        for stream in self.fleet.engines() {
            let engine = engines.entry(Arc::clone(&stream.engine)).or_insert_with(|| EngineStatus {
                name: stream.engine.to_string(),
                state: "Remote".to_owned(),
                connected: true,
                ..EngineStatus::default()
            });
            engine.synced |= stream.synced;
            engine.sent += stream.sent;
        }
        for engine in engines.values_mut() {
            engine.sync = if engine.synced { "SYNCED" } else { "STALE" }.to_owned();
        }
        for ((key, engine), Refusal { origins: _, message, own }) in &self.refused {
            let Some(engine) = engines.get_mut(engine) else { continue };
            engine.nacks.push(format!("{key}: {message}"));
            if *own {
                // It lacks what it was sent, and no other version will change that.
                engine.synced = false;
                engine.sync = "UNUSABLE".to_owned();
            }
        }
        engines.into_values().collect()
    }
}

impl Reality for Observed {
    fn now(&self) -> i64 {
        clock::now_unix()
    }

    fn programmed(&self, resources: &[ResourceKey]) -> bool {
        resources.iter().all(|key| {
            let held = self.fleet.held(key);
            held.of > 0 && held.by == held.of
        })
    }

    fn findings(&self, object: &ObjectKey) -> Vec<Finding> {
        let read = self.files.values().flatten().filter_map(|located| match &located.what {
            What::Object(finding) if finding.object == *object => Some(finding.clone()),
            What::Object(_) | What::Text { .. } => None,
        });
        let refused = self.refused.iter().filter(|(_, refusal)| refusal.origins.contains(object));
        let refused = refused.map(|((key, engine), Refusal { origins: _, message, own })| Finding {
            object: object.clone(),
            severity: Severity::Error,
            reason: Reason::RefusedByEnvoy,
            field: String::new(),
            message: if *own {
                format!("engine {engine} cannot take {key}: {message}")
            } else {
                format!("engine {engine} refused {key}: {message}; what it last accepted is served")
            },
        });
        read.chain(refused).collect()
    }

    fn source(&self, object: &ObjectKey) -> Option<String> {
        self.places.get(object).map(ToString::to_string)
    }
}
