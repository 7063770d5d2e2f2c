//! An Envoy as a client of delta ADS, by the specification and by what was
//! measured on Envoy 1.40, and strict about what may happen to it: it panics
//! where a real one would lose requests.

#[path = "envoy/body.rs"]
mod body;
#[path = "envoy/subscription.rs"]
mod subscription;

use crate::{alphabet, dice};
use body::Body;
use envoy_types::pb::{
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    google::rpc::Status,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};
use subscription::Subscription;
use tidegate::{
    base::Version,
    server::frame::{Item, Response},
    xds::{Name, ResourceKey, ResourceKind, ResourceKind::*},
};

/// Envoy gives up waiting for endpoints after this (`initial_fetch_timeout`).
const WARMING_MAX: Duration = Duration::from_secs(15);

/// Something that is used, and its successor that is not ready yet.
#[derive(Debug, Default)]
struct Staged {
    active: Option<(Version, Rc<Body>)>,
    warming: Option<Warming>,
}

#[derive(Debug)]
struct Warming {
    version: Version,
    body: Rc<Body>,
    /// Endpoints must come after the cluster, be they the same as before.
    endpoints_due: bool,
    /// It waited too long for a certificate.
    gave_up: bool,
    since: Instant,
    stream: u64,
}

/// What all engines of a fleet know of each other's refusals.
pub(crate) type Refused = Rc<RefCell<BTreeSet<Name>>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Envoy {
    pub(crate) name: String,
    salt: (u64, u64),
    subscriptions: [Subscription; ResourceKind::ALL.len()],
    /// Kinds in the order in which they were first asked for.
    order: Vec<ResourceKind>,
    /// None: not connected; else whether the node was introduced.
    introduced: Option<bool>,
    stream: u64,
    out: VecDeque<DeltaDiscoveryRequest>,
    clusters: BTreeMap<Name, Staged>,
    /// Clusters of which an engine of the fleet ever refused a version: new routes
    /// to them may come all the same, and answer 503.
    refused: Refused,
    endpoints: BTreeMap<Name, usize>,
    secrets: BTreeMap<Name, Version>,
    listeners: BTreeMap<Name, Staged>,
    scopes: BTreeMap<Name, Rc<Body>>,
    routes: BTreeMap<Name, Rc<Body>>,
    /// Names that clients asked certificates for.
    demanded: BTreeSet<Name>,
    /// It heard of clusters: listeners may begin.
    initialized: bool,
    /// The answer to a CDS response, until all clusters are warm.
    withheld: Option<(DeltaDiscoveryRequest, Response)>,
    /// No listener can be opened here.
    pub(crate) port_taken: bool,
    /// What it said that it holds, on this stream.
    pub(crate) said: BTreeMap<ResourceKey, Version>,
    /// It served the bystander once, and has to from then on.
    served: bool,
}

impl Envoy {
    /// `salt`: decides which contents it refuses, one of so many (0: none).
    pub(crate) fn new(name: String, salt: (u64, u64), refused: Refused) -> Self {
        let mut envoy = Self {
            name,
            salt,
            subscriptions: Default::default(),
            order: Vec::new(),
            introduced: None,
            stream: 0,
            out: VecDeque::new(),
            clusters: BTreeMap::new(),
            refused,
            endpoints: BTreeMap::new(),
            secrets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            scopes: BTreeMap::new(),
            routes: BTreeMap::new(),
            demanded: BTreeSet::new(),
            initialized: false,
            withheld: None,
            port_taken: false,
            said: BTreeMap::new(),
            served: false,
        };
        envoy.start(Cluster, true);
        envoy
    }

    /// Another process in its place, which holds nothing.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(std::mem::take(&mut self.name), self.salt, Rc::clone(&self.refused));
    }

    pub(crate) fn connected(&mut self) {
        self.introduced = Some(false);
        self.stream += 1;
        self.said.clear();
        for kind in ResourceKind::ALL {
            self.subscription(kind).connected();
        }
        self.flush();
    }

    pub(crate) fn disconnected(&mut self) {
        self.introduced = None;
        self.withheld = None;
        self.out.clear();
    }

    /// What it has to say.
    pub(crate) fn requests(&mut self) -> impl Iterator<Item = DeltaDiscoveryRequest> + '_ {
        self.out.drain(..)
    }

    /// A client comes with this server name.
    pub(crate) fn hello(&mut self, name: &str) {
        let on_demand = |listener: &Staged| {
            let active = listener.active.as_ref().map(|(_, body)| &**body);
            matches!(active, Some(Body::Listener { on_demand: true, .. }))
        };
        if self.listeners.values().any(on_demand) {
            self.demanded.insert(name.into());
            self.follow();
            self.flush();
        }
    }

    pub(crate) fn take(&mut self, response: Response, now: Instant) {
        let kind = ResourceKind::from_type_url(&response.type_url).expect("a kind of ours");
        let names: BTreeSet<_> =
            response.resources.iter().map(|item| &item.name).chain(&response.removed).collect();
        let count = response.resources.len() + response.removed.len();
        assert_eq!(names.len(), count, "{}: a name twice in {response:?}", self.name);
        let verdict = match kind {
            Cluster => self.take_clusters(&response, now),
            Endpoints => self.take_endpoints(&response),
            Secret => self.take_secrets(&response),
            Listener => self.take_listeners(&response, now),
            ScopedRoute => self.take_scopes(&response),
            Route => self.take_routes(&response),
        };
        let mut answer = self.subscription(kind).request(kind);
        answer.response_nonce = format!("{:x}", response.nonce);
        match verdict {
            Ok(()) => self.accept(kind, &response),
            Err(message) => {
                self.go_without(kind);
                answer.error_detail = Some(Status { code: 3, message, details: Vec::new() });
            }
        }
        if kind == Cluster {
            self.initialized = true;
            self.withheld = Some((answer, response));
        } else {
            self.say(answer, kind, &response);
        }
        self.settle();
        self.flush();
        self.check();
    }

    /// Time passes: clusters that waited too long for endpoints go without. The
    /// names of those whose cluster came on this very stream.
    pub(crate) fn on_time(&mut self, now: Instant) -> Vec<Name> {
        let mut late = Vec::new();
        for (name, cluster) in &mut self.clusters {
            if let Some(warming) = &mut cluster.warming
                && warming.since + WARMING_MAX <= now
                && std::mem::take(&mut warming.endpoints_due)
                && warming.stream == self.stream
            {
                late.push(name.clone());
            }
        }
        for staged in self.clusters.values_mut().chain(self.listeners.values_mut()) {
            if let Some(warming) = staged.warming.as_mut().filter(|w| w.since + WARMING_MAX <= now) {
                warming.gave_up = true;
            }
        }
        self.settle();
        self.flush();
        late
    }

    /// Whether it refuses this content, as every Envoy does.
    fn refuses(&self, kind: ResourceKind, item: &Item) -> bool {
        let (salt, one_of) = self.salt;
        bad(kind, &item.name, item.version, salt, one_of)
    }

    /// A refused response ends the wait of all that wait for its kind
    /// (`onConfigUpdateFailed` goes to every watch).
    fn go_without(&mut self, kind: ResourceKind) {
        for staged in self.clusters.values_mut().chain(self.listeners.values_mut()) {
            let Some(warming) = &mut staged.warming else { continue };
            warming.endpoints_due &= kind != Endpoints;
            warming.gave_up |= kind == Secret;
        }
    }

    fn subscription(&mut self, kind: ResourceKind) -> &mut Subscription {
        &mut self.subscriptions[kind as usize]
    }

    fn start(&mut self, kind: ResourceKind, wildcard: bool) {
        self.subscription(kind).start(wildcard);
        if !self.order.contains(&kind) {
            self.order.push(kind);
        }
    }

    fn want(&mut self, kind: ResourceKind, names: BTreeSet<Name>) {
        if !names.is_empty() && !self.order.contains(&kind) {
            self.order.push(kind);
        }
        self.subscription(kind).want(names);
    }

    fn accept(&mut self, kind: ResourceKind, response: &Response) {
        let subscription = self.subscription(kind);
        for item in &response.resources {
            if subscription.covers(&item.name) {
                subscription.accepted.insert(item.name.clone(), item.version);
            }
        }
        for name in &response.removed {
            subscription.accepted.remove(name);
        }
    }

    fn say(&mut self, mut request: DeltaDiscoveryRequest, kind: ResourceKind, response: &Response) {
        if request.error_detail.is_none() {
            for item in &response.resources {
                self.said.insert(ResourceKey { kind, name: item.name.clone() }, item.version);
            }
            for name in &response.removed {
                self.said.remove(&ResourceKey { kind, name: name.clone() });
            }
        }
        self.introduce(&mut request);
        self.out.push_back(request);
    }

    fn introduce(&mut self, request: &mut DeltaDiscoveryRequest) {
        if self.introduced == Some(false) {
            self.introduced = Some(true);
            request.node = Some(Node { id: self.name.clone(), ..Node::default() });
        }
    }

    /// Says what is new. While clusters warm, nothing is said of clusters.
    fn flush(&mut self) {
        if self.introduced.is_none() {
            return;
        }
        for kind in self.order.clone() {
            if kind == Cluster && (self.withheld.is_some() || self.warms()) {
                continue;
            }
            let Some(mut request) = self.subscription(kind).news(kind) else { continue };
            for (name, version) in &request.initial_resource_versions {
                let version = Version::parse(version).expect("it was one of ours");
                self.said.insert(ResourceKey { kind, name: name.as_str().into() }, version);
            }
            self.introduce(&mut request);
            self.out.push_back(request);
        }
    }

    fn warms(&self) -> bool {
        self.clusters.values().any(|cluster| cluster.warming.is_some())
    }

    fn take_clusters(&mut self, response: &Response, now: Instant) -> Result<(), String> {
        let mut refused = Vec::new();
        for item in &response.resources {
            if self.refuses(Cluster, item) {
                self.refused.borrow_mut().insert(item.name.clone());
                refused.push(item.name.to_string());
                continue;
            }
            let cluster = self.clusters.entry(item.name.clone()).or_default();
            let newest = cluster.warming.as_ref().map(|warming| warming.version);
            if newest.or(cluster.active.as_ref().map(|(version, _)| *version)) == Some(item.version) {
                continue;
            }
            let body = body::read(Cluster, item);
            let endpoints_due = matches!(&*body, Body::Cluster { by_eds: true, .. });
            let version = item.version;
            let stream = self.stream;
            cluster.warming =
                Some(Warming { version, body, endpoints_due, gave_up: false, since: now, stream });
        }
        for name in &response.removed {
            let user = self.routes.iter().find(|(_, body)| clusters_of(body).contains(name));
            assert!(user.is_none(), "{}: I8: cluster {name} is removed while {user:?} needs it", self.name);
            self.clusters.remove(name);
        }
        refusal("Error adding/updating cluster(s) ", &refused)
    }

    fn take_endpoints(&mut self, response: &Response) -> Result<(), String> {
        for item in &response.resources {
            if self.refuses(Endpoints, item) {
                return Err("Proto constraint validation failed (endpoints)".to_owned());
            }
            if !self.subscription(Endpoints).covers(&item.name) {
                continue;
            }
            let Body::Endpoints { count } = *body::read(Endpoints, item) else { unreachable!("by kind") };
            self.endpoints.insert(item.name.clone(), count);
            let warming = self.clusters.get_mut(&item.name).and_then(|cluster| cluster.warming.as_mut());
            if let Some(warming) = warming {
                warming.endpoints_due = false;
            }
        }
        // A removal ends the wait of a cluster, and takes nothing from it while it
        // is there (`EdsClusterImpl::onConfigUpdate`, envoy #20523).
        for name in &response.removed {
            let warming = self.clusters.get_mut(name).and_then(|cluster| cluster.warming.as_mut());
            if let Some(warming) = warming {
                warming.endpoints_due = false;
            }
        }
        Ok(())
    }

    fn take_secrets(&mut self, response: &Response) -> Result<(), String> {
        for item in &response.resources {
            if self.refuses(Secret, item) {
                return Err("Failed to load certificate".to_owned());
            }
            if self.subscription(Secret).covers(&item.name) {
                self.secrets.insert(item.name.clone(), item.version);
            }
        }
        for name in &response.removed {
            // The next client asks again.
            if self.demanded.remove(name) {
                self.secrets.remove(name);
            }
        }
        Ok(())
    }

    fn take_listeners(&mut self, response: &Response, now: Instant) -> Result<(), String> {
        let mut refused = Vec::new();
        for item in &response.resources {
            if self.port_taken && !self.listeners.contains_key(&item.name) {
                let address = item.name.trim_start_matches("l/");
                return Err(format!(
                    "Error adding/updating listener(s) {}: cannot bind '{address}': Address already in use",
                    item.name
                ));
            }
            if self.refuses(Listener, item) {
                refused.push(item.name.to_string());
                continue;
            }
            let (version, body, stream) = (item.version, body::read(Listener, item), self.stream);
            let warming = Warming { version, body, endpoints_due: false, gave_up: false, since: now, stream };
            self.listeners.entry(item.name.clone()).or_default().warming = Some(warming);
        }
        for name in &response.removed {
            self.listeners.remove(name);
        }
        refusal("Error adding/updating listener(s) ", &refused)
    }

    fn take_scopes(&mut self, response: &Response) -> Result<(), String> {
        if response.resources.iter().any(|item| self.refuses(ScopedRoute, item)) {
            return Err("Error adding/updating scoped route(s)".to_owned());
        }
        if !self.subscription(ScopedRoute).wildcard {
            return Ok(());
        }
        for name in &response.removed {
            self.scopes.remove(name);
        }
        for item in &response.resources {
            self.scopes.insert(item.name.clone(), body::read(ScopedRoute, item));
        }
        let keys: BTreeSet<_> = self.scopes.values().map(|body| scope_of(body).0).collect();
        assert_eq!(keys.len(), self.scopes.len(), "{}: two scopes with one key", self.name);
        Ok(())
    }

    fn take_routes(&mut self, response: &Response) -> Result<(), String> {
        for item in &response.resources {
            if self.refuses(Route, item) {
                return Err("missing ): (".to_owned());
            }
            if !self.subscription(Route).covers(&item.name) {
                continue;
            }
            let body = body::read(Route, item);
            let before = self.subscriptions[Route as usize].accepted.get(&item.name);
            let edit = before.is_some_and(|version| !stands_in(&item.name, *version));
            for need in clusters_of(&body) {
                let active = self.clusters.get(need).is_some_and(|cluster| cluster.active.is_some());
                let lacks = !edit && self.refused.borrow().contains(need);
                assert!(active || lacks, "{}: I8: {} came before {need} is warm", self.name, item.name);
            }
            self.routes.insert(item.name.clone(), body);
        }
        Ok(())
    }

    /// What can be used is used, and what follows from it is asked for.
    fn settle(&mut self) {
        let secrets = &self.secrets;
        for staged in self.clusters.values_mut().chain(self.listeners.values_mut()) {
            let ready = staged.warming.as_ref().is_some_and(|warming| {
                !warming.endpoints_due
                    && (warming.gave_up
                        || secrets_of(&warming.body).iter().all(|name| secrets.contains_key(*name)))
            });
            if ready && let Some(warming) = staged.warming.take() {
                staged.active = Some((warming.version, warming.body));
            }
        }
        self.follow();
        if !self.warms() {
            if let Some((answer, response)) = self.withheld.take() {
                self.say(answer, Cluster, &response);
            }
            if self.initialized && !self.subscription(Listener).started {
                self.start(Listener, true);
            }
        }
    }

    /// Asks for what is referred to, and lets go of what is not any more.
    fn follow(&mut self) {
        let bodies = |map: &BTreeMap<Name, Staged>| {
            let both = map.iter().flat_map(|(name, staged)| {
                let active = staged.active.as_ref().map(|(_, body)| Rc::clone(body));
                let warming = staged.warming.as_ref().map(|warming| Rc::clone(&warming.body));
                active.into_iter().chain(warming).map(|body| (name.clone(), body))
            });
            both.collect::<Vec<_>>()
        };
        let (clusters, listeners) = (bodies(&self.clusters), bodies(&self.listeners));
        let by_eds = |body: &Body| matches!(body, Body::Cluster { by_eds: true, .. });
        let endpoints: BTreeSet<Name> =
            clusters.iter().filter(|(_, body)| by_eds(body)).map(|(name, _)| name.clone()).collect();
        self.endpoints.retain(|name, _| endpoints.contains(name));
        self.want(Endpoints, endpoints);
        let fixed = clusters.iter().chain(&listeners).flat_map(|(_, body)| secrets_of(body));
        let secrets: BTreeSet<Name> = fixed.cloned().chain(self.demanded.iter().cloned()).collect();
        self.secrets.retain(|name, _| secrets.contains(name));
        self.want(Secret, secrets);
        let scoped = self.subscription(ScopedRoute).wildcard;
        if scoped && listeners.is_empty() {
            self.subscription(ScopedRoute).stop();
            self.scopes.clear();
        } else if !scoped && !listeners.is_empty() {
            self.start(ScopedRoute, true);
        }
        let tables: BTreeSet<Name> = self.scopes.values().map(|body| scope_of(body).1.clone()).collect();
        self.routes.retain(|name, _| tables.contains(name));
        self.want(Route, tables);
    }

    /// Whether a request to the bystander is answered by its backend.
    pub(crate) fn serves_bystander(&self) -> bool {
        let listener = |port: u16| {
            let name = format!("l/{}:{port}", alphabet::BYSTANDER_ADDRESS);
            self.listeners.get(name.as_str()).is_some_and(|listener| listener.active.is_some())
        };
        let key = [alphabet::BYSTANDER, alphabet::BYSTANDER_GATEWAY];
        let scope = self.scopes.values().map(|body| scope_of(body)).find(|(found, _)| **found == key);
        let table = scope.and_then(|(_, table)| self.routes.get(table));
        let clusters = table.map_or(&[][..], |body| clusters_of(body));
        let answers = |name: &Name| {
            self.clusters.get(name).is_some_and(|cluster| cluster.active.is_some())
                && self.endpoints.get(name).is_some_and(|count| *count > 0)
        };
        listener(80) && listener(443) && !clusters.is_empty() && clusters.iter().all(answers)
    }

    /// Who was served once is served on.
    fn check(&mut self) {
        let serves = self.serves_bystander();
        assert!(serves || !self.served, "{}: I6, I7: the bystander is served no more", self.name);
        self.served |= serves;
    }

    /// The bystander's objects are deleted.
    pub(crate) fn forget_bystander(&mut self) {
        self.served = false;
    }

    /// What it uses, with the version it accepted last; for the end.
    pub(crate) fn holds(&self, key: &ResourceKey) -> Option<Version> {
        let active = |map: &BTreeMap<Name, Staged>| {
            let staged = map.get(&key.name)?;
            if staged.warming.is_some() {
                return None;
            }
            staged.active.as_ref().map(|(version, _)| *version)
        };
        let accepted = || self.subscriptions[key.kind as usize].accepted.get(&key.name).copied();
        match key.kind {
            Cluster => active(&self.clusters),
            Listener => active(&self.listeners),
            Endpoints => self.endpoints.get(&key.name).and_then(|_| accepted()),
            Secret => self.secrets.get(&key.name).copied(),
            ScopedRoute => self.scopes.get(&key.name).and_then(|_| accepted()),
            Route => self.routes.get(&key.name).and_then(|_| accepted()),
        }
    }

    /// Everything it uses.
    pub(crate) fn held(&self) -> impl Iterator<Item = ResourceKey> + '_ {
        let keys = |kind, names: Vec<Name>| names.into_iter().map(move |name| ResourceKey { kind, name });
        keys(Cluster, self.clusters.keys().cloned().collect())
            .chain(keys(Endpoints, self.endpoints.keys().cloned().collect()))
            .chain(keys(Secret, self.secrets.keys().cloned().collect()))
            .chain(keys(Listener, self.listeners.keys().cloned().collect()))
            .chain(keys(ScopedRoute, self.scopes.keys().cloned().collect()))
            .chain(keys(Route, self.routes.keys().cloned().collect()))
    }

    /// Whether it says on a new stream that it holds this. Of a response that it
    /// refused it says nothing, though it applied parts of it: nobody can know.
    pub(crate) fn admits(&self, key: &ResourceKey) -> bool {
        self.subscriptions[key.kind as usize].accepted.contains_key(&key.name)
    }

    pub(crate) fn asks_for(&self, key: &ResourceKey) -> bool {
        self.subscriptions[key.kind as usize].covers(&key.name)
    }
}

/// Whether engines refuse this content: one of so many, by the content alone;
/// never the bystander's, nor what stands in for others.
pub(crate) fn bad(kind: ResourceKind, name: &str, version: Version, salt: u64, one_of: u64) -> bool {
    let spared = name.contains("bystander") || name.contains(alphabet::BYSTANDER_ADDRESS);
    if one_of == 0 || spared || stands_in(&name.into(), version) {
        return false;
    }
    let content = u64::try_from(version.0 & u128::from(u64::MAX)).expect("64 bits");
    dice::mix(content ^ salt ^ kind as u64).is_multiple_of(one_of)
}

/// Whether this is a table of ours that stands for one refused, or for none: it
/// answers 503 or 404, and so may what comes after it.
fn stands_in(name: &Name, version: Version) -> bool {
    ["refused", "absent"].iter().any(|what| version == Version::of(&(*what, name)))
}

fn refusal(words: &str, names: &[String]) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(format!("{words}{}: bad", names.join(", "))) }
}

fn secrets_of(body: &Body) -> Vec<&Name> {
    match body {
        Body::Cluster { authorities, .. } => authorities.iter().collect(),
        Body::Listener { certificates, .. } => certificates.iter().collect(),
        Body::Endpoints { .. } | Body::Secret | Body::Scope { .. } | Body::Route { .. } => Vec::new(),
    }
}

fn clusters_of(body: &Body) -> &[Name] {
    match body {
        Body::Route { clusters } => clusters,
        _ => &[],
    }
}

fn scope_of(body: &Body) -> (&Vec<String>, &Name) {
    match body {
        Body::Scope { key, table } => (key, table),
        other => panic!("{other:?} among scopes"),
    }
}
