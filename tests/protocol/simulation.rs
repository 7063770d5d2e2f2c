//! A world that changes at random, and engines that take, refuse, stall and
//! come back: each ends with exactly what is published, less what it refused,
//! and never holds a route whose clusters it has not.

use crate::transcript::{key, resource};
use envoy_types::pb::{
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    google::rpc::Status,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};
use tidegate::{
    base::Version,
    server::{
        cache::Cache,
        frame::Response,
        session::{Event, Session},
    },
    xds::{Resource, ResourceKey, ResourceKind, ResourceKind::*, Update},
};

const HOSTS: u8 = 6;
const CLUSTERS: u8 = 6;
const ENGINES: usize = 3;

#[derive(Debug, Clone)]
enum Act {
    /// Host `host` goes to cluster `to` (with this cluster version); `bad`: engines refuse its table.
    Route {
        host: u8,
        to: u8,
        version: u8,
        bad: bool,
    },
    Unroute {
        host: u8,
    },
    Endpoints {
        cluster: u8,
        version: u8,
    },
    /// Engine takes up to so many responses.
    Take {
        engine: u8,
        count: u8,
    },
    Reconnect {
        engine: u8,
    },
    /// It restarts, holding nothing.
    Restart {
        engine: u8,
    },
    Wait {
        ms: u16,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..HOSTS, 0..CLUSTERS, 0..3_u8, prop::bool::weighted(0.15))
            .prop_map(|(host, to, version, bad)| Act::Route { host, to, version, bad }),
        1 => (0..HOSTS).prop_map(|host| Act::Unroute { host }),
        2 => (0..CLUSTERS, 0..9_u8).prop_map(|(cluster, version)| Act::Endpoints { cluster, version }),
        6 => (0..ENGINES as u8, 1..6_u8).prop_map(|(engine, count)| Act::Take { engine, count }),
        1 => (0..ENGINES as u8).prop_map(|engine| Act::Reconnect { engine }),
        1 => (0..ENGINES as u8).prop_map(|engine| Act::Restart { engine }),
        2 => (1..3_000_u16).prop_map(|ms| Act::Wait { ms }),
    ]
}

/// What is published, as the pipeline would know it.
#[derive(Default)]
struct World {
    cache: Cache,
    /// Host -> cluster, version of the table, whether engines refuse it.
    hosts: BTreeMap<u8, (u8, u128, bool)>,
    clusters: BTreeMap<u8, u8>,
    endpoints: BTreeMap<u8, u8>,
    tables: u128,
    /// Versions that engines refuse.
    bad: BTreeSet<u128>,
    published: BTreeMap<ResourceKey, Resource>,
}

impl World {
    fn wanted(&self) -> BTreeMap<ResourceKey, Resource> {
        let mut all = vec![resource(Listener, "l", 1, &[])];
        for (host, (to, version, _)) in &self.hosts {
            let (scope, table, cluster) = (format!("s{host}"), format!("r{host}"), format!("c{to}"));
            all.push(resource(ScopedRoute, &scope, 1, &[(Route, &table)]));
            all.push(resource(Route, &table, *version, &[(Cluster, &cluster)]));
            all.push(resource(Cluster, &cluster, u128::from(self.clusters[to]), &[]));
            let version = self.endpoints.get(to).copied().unwrap_or_default();
            all.push(resource(Endpoints, &cluster, u128::from(version), &[]));
        }
        all.into_iter().map(|resource| (resource.key.clone(), resource)).collect()
    }

    fn publish(&mut self) {
        let wanted = self.wanted();
        let changed = |(key, resource): &(&ResourceKey, &Resource)| {
            self.published.get(*key).is_none_or(|before| before.version != resource.version)
        };
        let set = wanted.iter().filter(changed).map(|(_, resource)| resource.clone()).collect();
        let removed = self.published.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        self.cache.apply(Update { set, removed });
        self.published = wanted;
    }
}

/// An Envoy, as far as the protocol goes.
struct Engine {
    name: String,
    session: Session,
    introduced: bool,
    inbox: VecDeque<Response>,
    held: BTreeMap<ResourceKey, (u128, Vec<ResourceKey>)>,
    asked: BTreeSet<ResourceKey>,
    bad_seen: BTreeMap<u128, usize>,
}

impl Engine {
    fn new(name: String) -> Self {
        let session = Session::new(name.as_str().into());
        Self {
            name,
            session,
            introduced: false,
            inbox: VecDeque::new(),
            held: BTreeMap::new(),
            asked: BTreeSet::new(),
            bad_seen: BTreeMap::new(),
        }
    }

    fn send(&mut self, world: &mut World, mut request: DeltaDiscoveryRequest, now: Instant) {
        if !std::mem::replace(&mut self.introduced, true) {
            request.node = Some(Node { id: self.name.clone(), ..Default::default() });
        }
        let step = self.session.on_request(&world.cache, request, now).expect("the stream lives");
        self.take(world, step);
    }

    fn take(&mut self, world: &mut World, step: tidegate::server::session::Step) {
        self.inbox.extend(step.responses);
        for event in step.events {
            match event {
                Event::Accepted(accepted) => {
                    for (key, version) in accepted {
                        world.cache.acked(&key, version);
                    }
                }
                Event::Refused(refused) => {
                    assert!(world.bad.contains(&refused.version.0), "{refused:?} was condemned, and is fine");
                    world.cache.quarantine(&refused.key, refused.version, self.name.as_str().into());
                }
                Event::Synced => {}
            }
        }
    }

    /// Connects, with what it holds.
    fn connect(&mut self, world: &mut World, now: Instant) {
        self.session = Session::new(self.name.as_str().into());
        self.introduced = false;
        self.inbox.clear();
        for kind in ResourceKind::ALL {
            let held = self.held.iter().filter(|(key, _)| key.kind == kind);
            let versions =
                held.map(|(key, (version, _))| (key.name.to_string(), Version(*version).to_string()));
            let asked = self.asked.iter().filter(|key| key.kind == kind);
            let request = DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: asked.map(|key| key.name.to_string()).collect(),
                initial_resource_versions: versions.collect(),
                ..Default::default()
            };
            self.send(world, request, now);
        }
    }

    fn step(&mut self, world: &mut World, now: Instant) -> bool {
        let step = self.session.on_time(&world.cache, now).expect("the stream lives");
        self.take(world, step);
        let Some(response) = self.inbox.pop_front() else { return false };
        let kind = ResourceKind::from_type_url(&response.type_url).expect("a kind of ours");
        let names: BTreeSet<_> =
            response.resources.iter().map(|item| &item.name).chain(&response.removed).collect();
        assert_eq!(
            names.len(),
            response.resources.len() + response.removed.len(),
            "a name twice: {response:?}"
        );
        let bad = response.resources.iter().any(|item| world.bad.contains(&item.version.0));
        for item in response.resources.iter().filter(|item| world.bad.contains(&item.version.0)) {
            let seen = self.bad_seen.entry(item.version.0).or_default();
            *seen += 1;
            // Sent with others, it is found in the end by being sent alone.
            assert!(*seen <= 5, "{} was sent {seen} times: {response:?}", item.name);
        }
        let mut request = DeltaDiscoveryRequest {
            type_url: response.type_url.to_string(),
            response_nonce: format!("{:x}", response.nonce),
            ..Default::default()
        };
        if bad {
            let message = "missing ): (".to_owned();
            request.error_detail = Some(Status { code: 3, message, details: Vec::new() });
            // Envoy applies some of the good ones.
            for item in response.resources.iter().step_by(2) {
                if !world.bad.contains(&item.version.0) {
                    self.hold(kind, item);
                }
            }
        } else {
            for item in &response.resources {
                self.hold(kind, item);
            }
        }
        for name in &response.removed {
            self.remove(&key(kind, name));
        }
        self.send(world, request, now);
        self.follow(world, kind, now);
        true
    }

    fn hold(&mut self, kind: ResourceKind, item: &tidegate::server::frame::Item) {
        // It crossed with our letting go: Envoy drops it.
        if matches!(kind, Route | Endpoints) && !self.asked.contains(&key(kind, &item.name)) {
            return;
        }
        let needs = needs_in(&item.body);
        if kind == Route {
            for need in needs.iter().filter(|need| need.kind == Cluster) {
                assert!(self.held.contains_key(need), "{} came before {need}", item.name);
            }
        }
        self.held.insert(key(kind, &item.name), (item.version.0, needs));
    }

    fn remove(&mut self, gone: &ResourceKey) {
        let user =
            self.held.iter().find(|(user, (_, needs))| user.kind != ScopedRoute && needs.contains(gone));
        assert!(user.is_none(), "{gone} was removed while {user:?} needs it");
        match gone.kind {
            // Envoy passes over these while the parent is there (envoy #20523).
            Route | Endpoints if self.asked.contains(gone) => {}
            _ => {
                self.held.remove(gone);
            }
        }
    }

    /// Asks for what the new parents name, and lets go of what the old ones did.
    fn follow(&mut self, world: &mut World, kind: ResourceKind, now: Instant) {
        let child = match kind {
            Cluster => Endpoints,
            ScopedRoute => Route,
            Endpoints | Secret | Listener | Route => return,
        };
        let parents = self.held.iter().filter(|(parent, _)| parent.kind == kind);
        let wanted: BTreeSet<ResourceKey> = parents
            .flat_map(|(parent, (_, needs))| match kind {
                Cluster => vec![key(Endpoints, &parent.name)],
                _ => needs.clone(),
            })
            .collect();
        let asked: BTreeSet<_> = self.asked.iter().filter(|key| key.kind == child).cloned().collect();
        let more: Vec<_> = wanted.difference(&asked).cloned().collect();
        let less: Vec<_> = asked.difference(&wanted).cloned().collect();
        if more.is_empty() && less.is_empty() {
            return;
        }
        for gone in &less {
            self.asked.remove(gone);
            self.held.remove(gone);
        }
        self.asked.extend(more.iter().cloned());
        let request = DeltaDiscoveryRequest {
            type_url: child.type_url().to_owned(),
            resource_names_subscribe: more.iter().map(|key| key.name.to_string()).collect(),
            resource_names_unsubscribe: less.iter().map(|key| key.name.to_string()).collect(),
            ..Default::default()
        };
        self.send(world, request, now);
    }
}

/// Bodies name their needs: see [`resource`].
fn needs_in(body: &[u8]) -> Vec<ResourceKey> {
    let text = String::from_utf8_lossy(body);
    // A 503 of ours is a real message, and needs nothing.
    let Some((_, needs)) = text.split_once('!').filter(|(head, _)| head.contains('@')) else {
        return Vec::new();
    };
    let needs = needs.split_terminator(',').map(|need| match need.split_at(1) {
        ("c", _) => key(Cluster, need),
        ("r", _) => key(Route, need),
        other => panic!("{other:?}"),
    });
    needs.collect()
}

fn run(acts: Vec<Act>) {
    #[expect(clippy::disallowed_methods, reason = "a start to count from")]
    let mut now = Instant::now();
    let mut world = World::default();
    world.publish();
    let mut engines: Vec<Engine> = (0..ENGINES).map(|n| Engine::new(format!("e{n}"))).collect();
    for engine in &mut engines {
        engine.connect(&mut world, now);
    }
    for act in acts {
        apply(act, &mut world, &mut engines, &mut now);
    }
    // Quiet: everybody takes everything, and time passes.
    for _ in 0..200 {
        let busy = engines.iter_mut().map(|engine| engine.step(&mut world, now)).fold(false, |a, b| a | b);
        if !busy {
            tick(&mut world, &engines);
            now += Duration::from_millis(500);
        }
    }
    for engine in &engines {
        settled(engine, &world);
    }
}

fn apply(act: Act, world: &mut World, engines: &mut [Engine], now: &mut Instant) {
    match act {
        Act::Route { host, to, version, bad } => {
            world.tables += 1;
            let table = 1_000 + world.tables;
            if bad {
                world.bad.insert(table);
            }
            world.hosts.insert(host, (to, table, bad));
            world.clusters.insert(to, version);
            world.publish();
        }
        Act::Unroute { host } => {
            world.hosts.remove(&host);
            world.publish();
        }
        Act::Endpoints { cluster, version } => {
            world.endpoints.insert(cluster, version);
            world.publish();
        }
        Act::Take { engine, count } => {
            for _ in 0..count {
                engines[usize::from(engine)].step(world, *now);
            }
        }
        Act::Reconnect { engine } => engines[usize::from(engine)].connect(world, *now),
        Act::Restart { engine } => {
            let engine = &mut engines[usize::from(engine)];
            engine.held.clear();
            engine.asked.clear();
            engine.bad_seen.clear();
            engine.connect(world, *now);
        }
        Act::Wait { ms } => {
            *now += Duration::from_millis(ms.into());
            tick(world, engines);
        }
    }
}

fn tick(world: &mut World, engines: &[Engine]) {
    let head = world.cache.head();
    let all = |key: &ResourceKey| {
        engines.iter().all(|engine| engine.session.seen_all(head) && engine.session.in_order(key))
    };
    world.cache.tick(all);
}

#[track_caller]
fn settled(engine: &Engine, world: &World) {
    let refused = |key: &ResourceKey| world.cache.refused_by(key).is_some();
    for (key, resource) in &world.published {
        let held = engine.held.get(key).map(|(version, _)| *version);
        if refused(key) {
            assert_ne!(held, Some(resource.version.0), "{}: {key} is refused", engine.name);
        } else {
            assert_eq!(held, Some(resource.version.0), "{}: {key}", engine.name);
        }
    }
    // A table kept in the place of a refused one needs what it needs, and what that may
    // be is not known of a table that only the engine knows.
    let keeps = engine.held.iter().any(|(key, (version, _))| {
        let good = world.cache.entry(key.kind, &key.name).and_then(|entry| entry.last_good());
        refused(key) && good.is_none_or(|good| good.version.0 != *version)
    });
    for key in engine.held.keys().filter(|_| !keeps) {
        assert!(world.cache.contains(key), "{}: {key} is gone and still held", engine.name);
    }
    assert!(engine.session.synced(), "{}: {:?}", engine.name, engine.session.pending());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_engine_ends_with_what_is_published(acts in prop::collection::vec(act(), 1..120)) {
        run(acts);
    }
}
