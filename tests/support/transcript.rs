//! One stream between a cache and a client that speaks word by word.

use envoy_types::pb::{
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    google::rpc::Status,
};
use std::time::{Duration, Instant};
use tidegate::{
    base::{ObjectKey, ObjectKind, Version},
    server::{
        cache::Cache,
        frame::Response,
        session::{Closed, Event, Session, Step},
    },
    xds::{Resource, ResourceKey, ResourceKind, Update},
};

pub(crate) const ENGINE: &str = "e1";

pub(crate) fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    ResourceKey { kind, name: name.into() }
}

/// A resource whose body says its name, version and needs.
pub(crate) fn resource(
    kind: ResourceKind,
    name: &str,
    version: u128,
    needs: &[(ResourceKind, &str)],
) -> Resource {
    let names: String = needs.iter().map(|(_, name)| format!("{name},")).collect();
    let needs: Vec<_> = needs.iter().map(|(kind, name)| key(*kind, name)).collect();
    Resource {
        key: key(kind, name),
        version: Version(version),
        body: format!("{kind:?}/{name}@{version}!{names}").into_bytes().into(),
        needs: needs.into(),
        origins: [ObjectKey::new(ObjectKind::Ingress, "shop", name)].into(),
    }
}

/// A cache, one session, and the events it gave.
pub(crate) struct Transcript {
    pub(crate) cache: Cache,
    pub(crate) session: Session,
    pub(crate) events: Vec<Event>,
    pub(crate) now: Instant,
    introduced: bool,
}

impl Transcript {
    /// A cache with these resources, published.
    pub(crate) fn new(set: impl IntoIterator<Item = Resource>) -> Self {
        let mut cache = Cache::new();
        cache.apply(Update { set: set.into_iter().collect(), removed: Vec::new() });
        Self::over(cache)
    }

    #[expect(clippy::disallowed_methods, reason = "a start to count from")]
    pub(crate) fn over(cache: Cache) -> Self {
        let session = Session::new(ENGINE.into());
        Self { cache, session, events: Vec::new(), now: Instant::now(), introduced: false }
    }

    /// The stream breaks and a new one comes.
    pub(crate) fn reconnect(&mut self) {
        self.session = Session::new(ENGINE.into());
        self.introduced = false;
    }

    pub(crate) fn try_send(&mut self, mut request: DeltaDiscoveryRequest) -> Result<Vec<Response>, Closed> {
        if !std::mem::replace(&mut self.introduced, true) {
            request.node = Some(Node { id: ENGINE.to_owned(), ..Default::default() });
        }
        let step = self.session.on_request(&self.cache, request, self.now)?;
        Ok(self.take(step))
    }

    /// A request on a stream that was introduced otherwise.
    #[track_caller]
    pub(crate) fn session_request(&mut self, request: DeltaDiscoveryRequest) -> Vec<Response> {
        self.introduced = true;
        self.send(request)
    }

    #[track_caller]
    pub(crate) fn send(&mut self, request: DeltaDiscoveryRequest) -> Vec<Response> {
        self.try_send(request).expect("the stream lives")
    }

    #[track_caller]
    pub(crate) fn subscribe(&mut self, kind: ResourceKind, names: &[&str]) -> Vec<Response> {
        self.send(subscribe(kind, names))
    }

    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, kind: ResourceKind, names: &[&str]) -> Vec<Response> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.send(DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..subscribe(kind, &[]) })
    }

    #[track_caller]
    pub(crate) fn ack(&mut self, response: &Response) -> Vec<Response> {
        self.send(ack(response))
    }

    #[track_caller]
    pub(crate) fn nack(&mut self, response: &Response, message: &str) -> Vec<Response> {
        self.send(nack(response, message))
    }

    /// Accepts everything until nothing more comes.
    #[track_caller]
    pub(crate) fn ack_all(&mut self, responses: Vec<Response>) -> Vec<Response> {
        let mut seen = responses.clone();
        let mut open: std::collections::VecDeque<_> = responses.into();
        while let Some(response) = open.pop_front() {
            let more = self.ack(&response);
            seen.extend(more.iter().cloned());
            open.extend(more);
        }
        seen
    }

    #[track_caller]
    pub(crate) fn set(&mut self, set: impl IntoIterator<Item = Resource>) -> Vec<Response> {
        self.publish(Update { set: set.into_iter().collect(), removed: Vec::new() })
    }

    #[track_caller]
    pub(crate) fn remove(&mut self, kind: ResourceKind, name: &str) -> Vec<Response> {
        self.publish(Update { set: Vec::new(), removed: vec![key(kind, name)] })
    }

    #[track_caller]
    pub(crate) fn publish(&mut self, update: Update) -> Vec<Response> {
        self.cache.apply(update);
        self.change()
    }

    #[track_caller]
    pub(crate) fn change(&mut self) -> Vec<Response> {
        let step = self.session.on_change(&self.cache, self.now).expect("the stream lives");
        self.take(step)
    }

    /// Time passes, the session being called whenever it asked for it.
    #[track_caller]
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Response> {
        let end = self.now + time;
        let mut all = Vec::new();
        while let Some(wake) = self.session.next_wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            let step = self.session.on_time(&self.cache, self.now).expect("the stream lives");
            all.extend(self.take(step));
        }
        self.now = end;
        all
    }

    /// Events reach the cache, as the shell brings them there.
    fn take(&mut self, step: Step) -> Vec<Response> {
        let Step { mut responses, events } = step;
        let mut quarantined = false;
        for event in &events {
            match event {
                Event::Accepted(accepted) => {
                    for (key, version) in accepted {
                        self.cache.acked(key, *version);
                    }
                }
                Event::Refused(refused) if !refused.own => {
                    self.cache.quarantine(&refused.key, refused.version, ENGINE.into());
                    quarantined = true;
                }
                Event::Refused(_) | Event::Synced => {}
            }
        }
        self.events.extend(events);
        if quarantined {
            responses.extend(self.change());
        }
        responses
    }

    /// Keys and versions refused so far.
    pub(crate) fn refused(&self) -> Vec<(String, u128)> {
        let refused = self.events.iter().filter_map(|event| match event {
            Event::Refused(refused) => Some((refused.key.name.to_string(), refused.version.0)),
            Event::Accepted(_) | Event::Synced => None,
        });
        refused.collect()
    }
}

pub(crate) fn subscribe(kind: ResourceKind, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// The first request of a client that comes back with these versions.
pub(crate) fn resume(kind: ResourceKind, names: &[&str], versions: &[(&str, u128)]) -> DeltaDiscoveryRequest {
    let version = |(name, version): &(&str, u128)| ((*name).to_owned(), Version(*version).to_string());
    DeltaDiscoveryRequest {
        initial_resource_versions: versions.iter().map(version).collect(),
        ..subscribe(kind, names)
    }
}

pub(crate) fn ack(response: &Response) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.to_string(),
        response_nonce: format!("{:x}", response.nonce),
        ..Default::default()
    }
}

pub(crate) fn nack(response: &Response, message: &str) -> DeltaDiscoveryRequest {
    let error = Status { code: 3, message: message.to_owned(), details: Vec::new() };
    DeltaDiscoveryRequest { error_detail: Some(error), ..ack(response) }
}

/// A response in short: `Cluster +a@1 -b`.
pub(crate) fn short(response: &Response) -> String {
    let kind = ResourceKind::from_type_url(&response.type_url);
    let mut text = kind.map_or_else(|| response.type_url.to_string(), |kind| format!("{kind:?}"));
    for item in &response.resources {
        text += &format!(" +{}@{:x}", item.name, item.version.0);
    }
    for name in &response.removed {
        text += &format!(" -{name}");
    }
    text
}

#[track_caller]
pub(crate) fn check(responses: &[Response], expected: &[&str]) {
    let texts: Vec<_> = responses.iter().map(short).collect();
    assert_eq!(texts, expected);
}
