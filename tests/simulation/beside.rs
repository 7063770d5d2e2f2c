//! The relay beside an Envoy: `engine::relay` as it is, over a cache and a
//! session of its own; what its shell (`engine::link`) does between them is
//! done here, without sockets and with a snapshot in memory.

use crate::{envoy::Envoy, hop::Hop, outside::say, scheduler::short};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tidegate::{
    engine::relay::{Received, Relay},
    server::{
        cache::Cache,
        frame::Response,
        session::{Event, Session, Step},
    },
    xds::{Name, Resource, ResourceKey, Update},
};

/// How long the first requests wait for an Envoy that comes back.
const GREET_MAX: Duration = Duration::from_secs(10);
/// Responses to and fro until both are silent: a world here has a few hundred names.
const ROUNDS_MAX: usize = 2_000;
/// Ticks that are made up for when much time passes at once.
const TICKS_MAX: u64 = 70;

/// See the module.
pub(crate) struct Relayed {
    envoy: Envoy,
    relay: Relay,
    cache: Cache,
    session: Session,
    /// What a relay that starts anew begins with, once it was complete.
    snapshot: BTreeMap<ResourceKey, Resource>,
    complete: bool,
    connected: bool,
    greet_by: Option<Instant>,
    hangs_up: bool,
    now: Instant,
    up: Vec<DeltaDiscoveryRequest>,
}

impl Relayed {
    pub(crate) fn new(envoy: Envoy, now: Instant) -> Self {
        let name = envoy.name.as_str();
        let mut relayed = Self {
            relay: Relay::new("edge".into(), name.into()),
            session: Session::new(name.into()),
            envoy,
            cache: Cache::new(),
            snapshot: BTreeMap::new(),
            complete: false,
            connected: false,
            greet_by: None,
            hangs_up: false,
            now,
            up: Vec::new(),
        };
        relayed.attach();
        relayed
    }

    /// Envoy opens its stream to the relay.
    fn attach(&mut self) {
        self.envoy.disconnected();
        self.session = Session::new(self.envoy.name.as_str().into());
        self.envoy.connected();
        self.work();
    }

    fn keep(&mut self, update: &Update) {
        for resource in &update.set {
            self.snapshot.insert(resource.key.clone(), resource.clone());
        }
        for key in &update.removed {
            self.snapshot.remove(key);
        }
    }

    /// Envoy and its session talk until both are silent; then the control plane is answered.
    fn work(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "liveness: {} and its relay never rest", self.envoy.name);
            let requests: Vec<_> = self.envoy.requests().collect();
            let step = self.session.on_change(&self.cache, self.now).expect("the stream lives");
            let mut more = self.step(step);
            for request in requests {
                say(|| format!("    {} => {}", self.envoy.name, short(&request)));
                let step = self.session.on_request(&self.cache, request, self.now);
                more |= self.step(step.expect("the stream lives"));
            }
            if !more {
                break;
            }
        }
        self.answer();
    }

    /// What a step of the session brought about; whether it was anything.
    fn step(&mut self, step: Step) -> bool {
        let Step { responses, events } = step;
        let mut any = !responses.is_empty();
        for event in events {
            match event {
                Event::Accepted(accepted) => {
                    accepted.iter().for_each(|(key, version)| self.cache.acked(key, *version));
                }
                Event::Refused(refused) => {
                    any = true;
                    if !refused.own {
                        self.cache.quarantine(&refused.key, refused.version, "envoy".into());
                        self.keep_instead(&refused.key);
                    }
                    self.hangs_up |= self.relay.on_refused(refused) && self.connected;
                }
                Event::Synced => {}
            }
        }
        for response in responses {
            self.hand(response);
        }
        any
    }

    /// What it keeps in place of what was refused.
    fn keep_instead(&mut self, key: &ResourceKey) {
        let Some(entry) = self.cache.entry(key.kind, &key.name).filter(|entry| entry.quarantined()) else {
            return;
        };
        match entry.last_good().cloned() {
            Some(good) => self.snapshot.insert(key.clone(), good),
            None => self.snapshot.remove(key),
        };
    }

    fn hand(&mut self, response: Response) {
        say(|| format!("    {} <= {response:?}", self.envoy.name));
        self.envoy.take(response, self.now);
    }

    fn answer(&mut self) {
        if !self.connected {
            return;
        }
        let session = Some(&self.session);
        let settled = self.session.synced() && self.session.up_to_date(&self.cache);
        match self.greet_by {
            Some(by) if self.now < by && self.cache.complete() && !settled => {}
            Some(_) => {
                self.greet_by = None;
                self.up.extend(self.relay.hello(&self.cache, session));
            }
            None => {
                let (answers, _) = self.relay.answers(&self.cache, session, self.now);
                self.up.extend(answers);
            }
        }
    }
}

impl Hop for Relayed {
    fn connected(&mut self, now: Instant) {
        (self.now, self.connected, self.hangs_up) = (now, true, false);
        self.greet_by = Some(now + GREET_MAX);
        self.work();
    }

    fn disconnected(&mut self) {
        self.connected = false;
        self.up.clear();
    }

    fn take(&mut self, response: Response, now: Instant) {
        self.now = now;
        let mut wire = Vec::new();
        response.encode(&mut wire);
        let response = DeltaDiscoveryResponse::decode(wire.as_slice()).expect("a response");
        match self.relay.on_response(response) {
            Received::Part(kind, update) => {
                self.keep(&update);
                self.cache.apply_part(kind, update);
            }
            Received::Complete => {
                self.complete = true;
                self.cache.finish();
            }
            Received::Foreign(what) => panic!("{what} from a control plane of ours"),
        }
        self.work();
    }

    fn on_time(&mut self, now: Instant) -> Vec<Name> {
        let seconds = now.duration_since(self.now).as_secs();
        self.now = now;
        let late = self.envoy.on_time(now);
        for _ in 0..seconds.min(TICKS_MAX) {
            let (head, session) = (self.cache.head(), &self.session);
            self.cache.tick(|key| session.seen_all(head) && session.in_order(key));
        }
        self.work();
        if self.cache.complete() { late } else { Vec::new() }
    }

    fn requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.work();
        std::mem::take(&mut self.up)
    }

    fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    fn envoy_mut(&mut self) -> &mut Envoy {
        &mut self.envoy
    }

    fn restart(&mut self, now: Instant) {
        self.now = now;
        self.envoy.restart();
        self.attach();
    }

    /// The relay starts anew over its snapshot; Envoy runs on.
    fn crash(&mut self, now: Instant) {
        self.now = now;
        self.relay = Relay::new("edge".into(), self.envoy.name.as_str().into());
        self.cache = Cache::new();
        if self.complete {
            let set = self.snapshot.values().cloned().collect();
            self.cache.apply(Update { set, removed: Vec::new() });
        } else {
            self.snapshot.clear();
        }
        self.attach();
    }

    fn hangs_up(&mut self) -> bool {
        std::mem::take(&mut self.hangs_up)
    }

    fn below(&self) -> String {
        let (pending, complete) = (self.session.pending(), self.cache.complete());
        format!(", below it {pending:?}, complete: {complete}, {:?}", self.relay)
    }

    fn settled(&self) -> bool {
        self.session.synced() && self.session.up_to_date(&self.cache)
    }
}
