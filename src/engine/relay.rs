//! The relay between the control plane and the one Envoy beside it, without I/O.
//!
//! *Upward* it is a delta client that asks for everything its fleet has;
//! *downward* the session server of `server` works from the cache that this one
//! fills. A response is answered when Envoy has said what it thinks of it, so
//! that what the control plane knows of this engine is what Envoy knows.

use crate::{
    base::{Text, Version},
    server::{
        cache::Cache,
        relay::{self, Refusal},
        session::{Refused, Session},
    },
    xds::{Name, ResourceKey, ResourceKind, Update},
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Route tables that Envoy has not asked for so long after they came, with nothing
/// else before them, are not waited for: no scope of its leads there.
const UNASKED_MAX: Duration = Duration::from_secs(1);
/// In place of the version of what Envoy may have or not: no version, so that the
/// control plane sends it again, or its removal, and is answered.
const UNSURE: &str = "unsure";

/// See the module.
#[derive(Debug)]
pub struct Relay {
    engine: Text,
    fleet: Text,
    /// Responses of the control plane that are not answered yet.
    flights: VecDeque<Flight>,
    /// What Envoy said of versions that it refused.
    refused: BTreeMap<ResourceKey, (Version, String)>,
}

#[derive(Debug)]
struct Flight {
    kind: ResourceKind,
    nonce: String,
    /// What it sets; removals are not waited for, since Envoy cannot refuse them.
    names: Vec<(Name, Version)>,
    /// The first name of which Envoy's word is due.
    at: usize,
    refused: Vec<Refusal>,
    /// Since when it is for Envoy to ask.
    unasked: Option<Instant>,
}

/// What a response asks of the cache, the snapshot and the stream.
#[derive(Debug)]
pub enum Received {
    /// To be kept, then published.
    Part(ResourceKind, Update),
    /// Everything has come.
    Complete,
    /// Nothing that a control plane of ours sends.
    Foreign(String),
}

/// Where a flight stands.
enum Outcome {
    Open,
    Held,
    /// Why.
    Refused(String),
}

impl Relay {
    /// The relay of an engine. Nothing is known of a control plane yet.
    #[must_use]
    pub fn new(fleet: Text, engine: Text) -> Self {
        Self { engine, fleet, flights: VecDeque::new(), refused: BTreeMap::new() }
    }

    /// The first requests on a new stream: all of each kind, with the versions
    /// that Envoy holds. What the stream before left open is void.
    pub fn hello(&mut self, cache: &Cache, session: Option<&Session>) -> Vec<DeltaDiscoveryRequest> {
        self.flights.clear();
        let mut node = Some(Node {
            id: self.engine.to_string(),
            cluster: self.fleet.to_string(),
            user_agent_name: "tidegate engine".to_owned(),
            client_features: vec![relay::FEATURE.to_owned()],
            ..Node::default()
        });
        let request = |kind: ResourceKind| DeltaDiscoveryRequest {
            node: node.take(),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: versions(cache, session, kind),
            ..DeltaDiscoveryRequest::default()
        };
        ResourceKind::ALL.into_iter().map(request).collect()
    }

    /// Takes in what the control plane sent.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Received {
        let DeltaDiscoveryResponse { type_url, nonce, resources, removed_resources, .. } = response;
        if type_url == relay::COMPLETE {
            return Received::Complete;
        }
        let Some(kind) = ResourceKind::from_type_url(&type_url) else {
            return Received::Foreign(format!("resources of type {type_url}"));
        };
        let mut set = Vec::with_capacity(resources.len());
        for wire in resources {
            let name = wire.name.clone();
            match relay::read(kind, wire) {
                Some(resource) => set.push(resource),
                None => return Received::Foreign(format!("{kind:?} {name}, which cannot be read")),
            }
        }
        let names = set.iter().map(|resource| (resource.key.name.clone(), resource.version)).collect();
        self.flights.push_back(Flight { kind, nonce, names, at: 0, refused: Vec::new(), unasked: None });
        let key = |name: String| ResourceKey { kind, name: name.into() };
        let removed: Vec<_> = removed_resources.into_iter().map(key).collect();
        for key in set.iter().map(|resource| &resource.key).chain(&removed) {
            if let Some((version, _)) = self.refused.get(key)
                && !set.iter().any(|resource| resource.key == *key && resource.version == *version)
            {
                self.refused.remove(key);
            }
        }
        Received::Part(kind, Update { set, removed })
    }

    /// Envoy refused a version. True where no open response can tell that to the
    /// control plane, which takes the version for held: then a new stream will.
    #[must_use]
    pub fn on_refused(&mut self, refused: Refused) -> bool {
        let Refused { key, version, message, origins: _, own: _ } = refused;
        let waits = |flight: &Flight| {
            flight.kind == key.kind
                && flight.names[flight.at..].iter().any(|(name, sent)| *name == key.name && *sent == version)
        };
        let waited_for = self.flights.iter().any(waits);
        let before = self.refused.insert(key, (version, message));
        !waited_for && before.is_none_or(|(known, _)| known != version)
    }

    /// The answers that are due now, and when to ask again if nothing happens.
    pub fn answers(
        &mut self,
        cache: &Cache,
        session: Option<&Session>,
        now: Instant,
    ) -> (Vec<DeltaDiscoveryRequest>, Option<Instant>) {
        let (mut answers, mut wake) = (Vec::new(), None);
        let mut open = VecDeque::new();
        for mut flight in std::mem::take(&mut self.flights) {
            if self.judge(&mut flight, cache, session, now) {
                answers.push(answer(flight));
            } else {
                let due = flight.unasked.map(|since| since + UNASKED_MAX);
                wake = wake.into_iter().chain(due).min();
                open.push_back(flight);
            }
        }
        self.flights = open;
        (answers, wake)
    }

    /// Whether Envoy's word is known of all of it.
    fn judge(&mut self, flight: &mut Flight, cache: &Cache, session: Option<&Session>, now: Instant) -> bool {
        while let Some((name, version)) = flight.names.get(flight.at) {
            let key = ResourceKey { kind: flight.kind, name: name.clone() };
            let current = cache.entry(key.kind, name).is_some_and(|entry| entry.resource.version == *version);
            if current {
                match self.held(&key, *version, cache, session, &mut flight.unasked, now) {
                    Outcome::Open => return false,
                    Outcome::Held => {}
                    Outcome::Refused(message) => {
                        flight.refused.push(Refusal { name: name.to_string(), message });
                    }
                }
            }
            flight.at += 1;
        }
        true
    }

    fn held(
        &mut self,
        key: &ResourceKey,
        version: Version,
        cache: &Cache,
        session: Option<&Session>,
        unasked: &mut Option<Instant>,
        now: Instant,
    ) -> Outcome {
        let told = self.refused.get(key).filter(|(refused, _)| *refused == version);
        let session = session.filter(|session| session.up_to_date(cache));
        let holds = session.is_some_and(|session| holds(session, key));
        let asked = session.is_some_and(|session| session.asked_for(key));
        if asked && holds {
            self.refused.remove(key);
            return Outcome::Held;
        }
        if let Some((_, message)) = told {
            return Outcome::Refused(message.clone());
        }
        if let Some(need) = session.and_then(|session| session.waits_for(cache, key)) {
            return Outcome::Refused(relay::waits(&need));
        }
        if session.is_some_and(|session| session.keeps_its_own(key)) {
            return Outcome::Held;
        }
        // The scope that leads to a table comes beside it: Envoy is about to ask.
        let waits = key.kind == ResourceKind::Route && now < *unasked.get_or_insert(now) + UNASKED_MAX;
        if holds && !waits { Outcome::Held } else { Outcome::Open }
    }
}

/// Whether Envoy holds what the cache has under a key, as far as it asked for it.
fn holds(session: &Session, key: &ResourceKey) -> bool {
    if session.asked_for(key) {
        return session.in_order(key);
    }
    match key.kind {
        // Envoy asks for these when it has what leads to them, which is told of by itself.
        ResourceKind::Endpoints | ResourceKind::Secret | ResourceKind::Route => true,
        ResourceKind::Cluster | ResourceKind::Listener | ResourceKind::ScopedRoute => false,
    }
}

/// The versions of a kind: of a refused resource, of what is served in its place.
fn versions(cache: &Cache, session: Option<&Session>, kind: ResourceKind) -> HashMap<String, String> {
    let session = session.filter(|session| session.up_to_date(cache));
    let known = cache.entries(kind).filter(|(_, entry)| !entry.withdrawn()).filter_map(|(name, entry)| {
        let held = if entry.quarantined() { entry.last_good()? } else { &entry.resource };
        let sure = session.is_some_and(|session| entry.quarantined() || holds(session, &entry.resource.key));
        let version = if sure { held.version.to_string() } else { UNSURE.to_owned() };
        Some((name.to_string(), version))
    });
    known.collect()
}

fn answer(flight: Flight) -> DeltaDiscoveryRequest {
    let Flight { kind, nonce, names: _, at: _, refused, unasked: _ } = flight;
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        response_nonce: nonce,
        error_detail: (!refused.is_empty()).then(|| relay::refusal(refused)),
        ..DeltaDiscoveryRequest::default()
    }
}
