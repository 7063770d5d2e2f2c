//! Octets as a script: what a client says on a delta stream, word by word or as
//! raw messages, while the world changes.

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    google::rpc::Status,
};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};
use tidegate::{
    base::Version,
    server::{
        cache::Cache,
        frame::Response,
        session::{Event, ROUTE_FLIGHTS_MAX, Session, Step},
    },
    xds::{Name, Resource, ResourceKey, ResourceKind, Update},
};

const ENGINE: &str = "e";
const NAMES: [&str; 14] = [
    "a", "b", "c", "d", "*", "", "a.x.test", "B.x.test", "*.x.test", "b.x.test", "*.test", "chain/a", "~",
    "A",
];
const MESSAGES: [&str; 4] = ["missing ): (", "Error adding a: no", "l: cannot bind '127.0.0.1:80'", ""];

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    fn name(&mut self) -> String {
        match self.byte() {
            255 => "n".repeat(2_000),
            n => NAMES[usize::from(n) % NAMES.len()].to_owned(),
        }
    }

    /// A name of a resource of ours: neither empty nor `*`.
    fn ours(&mut self) -> Name {
        let ours: Vec<_> = NAMES.into_iter().filter(|name| !matches!(*name, "" | "*")).collect();
        ours[self.below(ours.len())].into()
    }

    fn names(&mut self) -> Vec<String> {
        (0..self.below(4)).map(|_| self.name()).collect()
    }

    fn kind(&mut self) -> ResourceKind {
        ResourceKind::ALL[self.below(ResourceKind::ALL.len())]
    }

    fn raw(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }
}

struct Stream {
    cache: Cache,
    session: Session,
    introduced: bool,
    asked: bool,
    /// It refused something: what needs that may wait for a newer version.
    refused: bool,
    open: VecDeque<Response>,
    /// What the client would report when it comes back.
    held: BTreeMap<(String, String), String>,
    now: Instant,
}

/// No panic; a name once a response; never more under way than agreed; messages
/// that read back; and a client that takes everything is in sync in the end.
#[expect(clippy::disallowed_methods, reason = "a start to count from")]
pub fn session(data: &[u8]) {
    let mut script = Script(data);
    let mut stream = Stream {
        cache: Cache::new(),
        session: Session::new(ENGINE.into()),
        introduced: false,
        asked: false,
        refused: false,
        open: VecDeque::new(),
        held: BTreeMap::new(),
        now: Instant::now(),
    };
    while !script.0.is_empty() {
        stream.act(&mut script);
    }
    stream.settle();
}

impl Stream {
    fn act(&mut self, script: &mut Script<'_>) {
        match script.below(12) {
            0 | 1 => {
                let request = DeltaDiscoveryRequest {
                    type_url: script.kind().type_url().to_owned(),
                    resource_names_subscribe: script.names(),
                    resource_names_unsubscribe: script.names(),
                    ..Default::default()
                };
                self.send(request);
            }
            2 | 3 => self.answer(None),
            4 => {
                let message = MESSAGES[script.below(MESSAGES.len())];
                self.answer(Some(message));
            }
            5 | 6 => {
                let set = (0..script.below(5)).map(|_| resource(script)).collect();
                self.publish(Update { set, removed: Vec::new() });
            }
            7 => {
                let removed = (0..script.below(3))
                    .map(|_| ResourceKey { kind: script.kind(), name: script.ours() })
                    .collect();
                self.publish(Update { set: Vec::new(), removed });
            }
            8 => self.pass(Duration::from_millis(u64::from(script.byte()) * 50)),
            9 => {
                if let Ok(request) = DeltaDiscoveryRequest::decode(script.raw().as_slice()) {
                    self.send(request);
                }
            }
            10 => self.reconnect(script.byte().is_multiple_of(2)),
            _ => {
                self.cache.tick(|_| true);
                self.change();
            }
        }
    }

    fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        if !std::mem::replace(&mut self.introduced, true) {
            request.node = Some(Node { id: ENGINE.to_owned(), ..Default::default() });
        }
        self.asked |= ResourceKind::from_type_url(&request.type_url).is_some();
        match self.session.on_request(&self.cache, request, self.now) {
            Ok(step) => self.take(step),
            Err(_) => self.reconnect(false),
        }
    }

    fn answer(&mut self, error: Option<&str>) {
        let Some(response) = self.open.pop_front() else { return };
        if error.is_none() {
            let url = response.type_url.to_string();
            for item in &response.resources {
                self.held.insert((url.clone(), item.name.to_string()), item.version.to_string());
            }
            for name in &response.removed {
                self.held.remove(&(url.clone(), name.to_string()));
            }
        }
        let error_detail =
            error.map(|message| Status { code: 3, message: message.to_owned(), details: vec![] });
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.to_string(),
            response_nonce: format!("{:x}", response.nonce),
            error_detail,
            ..Default::default()
        });
    }

    fn publish(&mut self, update: Update) {
        self.cache.apply(update);
        self.change();
    }

    fn change(&mut self) {
        match self.session.on_change(&self.cache, self.now) {
            Ok(step) => self.take(step),
            Err(_) => self.reconnect(false),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000 {
            let Some(wake) = self.session.next_wake().filter(|wake| *wake <= end) else { break };
            self.now = self.now.max(wake);
            match self.session.on_time(&self.cache, self.now) {
                Ok(step) => self.take(step),
                Err(_) => self.reconnect(false),
            }
        }
        self.now = end;
    }

    /// It comes back, with what it holds or as a new one.
    fn reconnect(&mut self, with: bool) {
        self.session = Session::new(ENGINE.into());
        (self.introduced, self.asked) = (false, false);
        self.open.clear();
        if !with {
            return self.held.clear();
        }
        for kind in ResourceKind::ALL {
            let held = self.held.iter().filter(|((url, _), _)| url == kind.type_url());
            let versions: BTreeMap<_, _> =
                held.map(|((_, name), version)| (name.clone(), version.clone())).collect();
            self.send(DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: versions.keys().cloned().collect(),
                initial_resource_versions: versions.into_iter().collect(),
                ..Default::default()
            });
        }
    }

    fn take(&mut self, step: Step) {
        let Step { responses, events } = step;
        for response in responses {
            let names: BTreeSet<_> =
                response.resources.iter().map(|item| &item.name).chain(&response.removed).collect();
            assert_eq!(names.len(), response.resources.len() + response.removed.len(), "{response:?}");
            let mut wire = Vec::new();
            response.encode(&mut wire);
            assert_eq!(wire.len(), response.encoded_len());
            let read = DeltaDiscoveryResponse::decode(wire.as_slice()).expect("it reads back");
            assert_eq!(read.resources.len(), response.resources.len());
            self.open.push_back(response);
        }
        for kind in ResourceKind::ALL {
            let flights = self.open.iter().filter(|response| *response.type_url == *kind.type_url()).count();
            let most = if kind == ResourceKind::Route { ROUTE_FLIGHTS_MAX } else { 1 };
            assert!(flights <= most, "{flights} unanswered responses of {kind:?}");
        }
        let mut quarantined = false;
        for event in events {
            self.refused |= matches!(event, Event::Refused(_));
            match event {
                Event::Accepted(accepted) => {
                    for (key, version) in accepted {
                        self.cache.acked(&key, version);
                    }
                }
                Event::Refused(it) if !it.own => {
                    quarantined |= self.cache.quarantine(&it.key, it.version, ENGINE.into());
                }
                Event::Refused(_) | Event::Synced => {}
            }
        }
        if quarantined {
            self.change();
        }
    }

    /// The client takes all that comes, and time passes.
    fn settle(&mut self) {
        if !self.cache.complete() {
            self.publish(Update::default());
        }
        // An Envoy asks for clusters always, and routes wait for that.
        let type_url = ResourceKind::Cluster.type_url().to_owned();
        self.send(DeltaDiscoveryRequest { type_url, ..Default::default() });
        for _ in 0..2_000 {
            if self.open.is_empty() {
                self.pass(Duration::from_secs(61));
                self.cache.tick(|_| true);
                self.change();
                if self.open.is_empty() && self.session.next_wake().is_none() {
                    break;
                }
            }
            self.answer(None);
        }
        assert!(self.open.is_empty(), "it never ends: {:?}", self.open);
        let pending = self.session.pending();
        let due = self.asked && !self.refused;
        assert!(!due || self.session.synced(), "it took all there was, and is owed more: {pending:?}");
    }
}

fn resource(script: &mut Script<'_>) -> Resource {
    let kind = script.kind();
    let needs: Vec<_> = match kind {
        ResourceKind::Route => vec![ResourceKind::Cluster],
        ResourceKind::ScopedRoute => vec![ResourceKind::Route],
        ResourceKind::Cluster | ResourceKind::Listener => vec![ResourceKind::Secret],
        ResourceKind::Endpoints | ResourceKind::Secret => Vec::new(),
    };
    let needs = needs.into_iter().filter(|_| script.byte().is_multiple_of(2)).collect::<Vec<_>>();
    let needs = needs.into_iter().map(|kind| ResourceKey { kind, name: script.ours() }).collect();
    let version = Version(script.byte().into());
    Resource {
        key: ResourceKey { kind, name: script.ours() },
        version,
        body: format!("{}", version.0).into_bytes().into(),
        needs,
        origins: [].into(),
    }
}
