//! The relay's shell: the stream to the control plane, the cache below it, the
//! snapshot, and time.

use super::{
    identity::Identity,
    relay::{Received, Relay},
    snapshot::Snapshot,
};
use crate::{
    base::chain,
    clock, failpoint,
    server::{
        Client, EngineEvent, FleetEvent, Handle,
        authority::validity,
        cache::Cache,
        session::{Refused, Session},
    },
    xds::Update,
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use std::{
    future::{Future, pending},
    hash::{BuildHasher, RandomState},
    pin::Pin,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until},
};

/// The first wait before a new connection; it doubles each time.
const RETRY_FIRST: Duration = Duration::from_millis(25);
/// The longest, so that a control plane that comes back is found within it. Half
/// of each wait is by chance: a fleet does not come at once.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How long the first requests wait for an Envoy that starts, or connects again.
const GREET_MAX: Duration = Duration::from_secs(10);
/// After a renewal, that the next stream may use it; and after one that failed.
const RENEW_RETRY_SECONDS: i64 = 600;
/// Failures in a row after which the next is told again: about once a minute.
const TELL_EACH: u32 = 120;

/// Where the control plane is, and what we show it.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// `HOST:PORT`
    pub address: String,
    /// What its certificate has to name.
    pub server_name: String,
    pub identity: Identity,
}

/// A stream, and when another is to be opened with a newer certificate.
type Connected = (Client, Option<i64>);
type Connecting = Pin<Box<dyn Future<Output = Result<Connected, String>> + Send>>;

/// See the module.
pub struct Link {
    upstream: Upstream,
    relay: Relay,
    snapshot: Snapshot,
    fleet: Handle,
    events: mpsc::Receiver<FleetEvent>,
    stream: Option<Client>,
    /// When the first requests of the stream are sent at the latest; none: they were.
    greet_by: Option<Instant>,
    connecting: Connecting,
    renew_at: Option<i64>,
    failures: u32,
    wake: Option<Instant>,
}

impl Link {
    /// A link whose `fleet` holds what the snapshot gave already.
    #[must_use]
    pub fn new(
        upstream: Upstream,
        relay: Relay,
        snapshot: Snapshot,
        fleet: Handle,
        events: mpsc::Receiver<FleetEvent>,
    ) -> Self {
        let connecting = Box::pin(pending());
        let mut link = Self {
            upstream,
            relay,
            snapshot,
            fleet,
            events,
            stream: None,
            greet_by: None,
            connecting,
            renew_at: None,
            failures: 0,
            wake: None,
        };
        link.reconnect();
        link
    }

    /// Runs until `stop`; gives the snapshot back.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Snapshot {
        tokio::pin!(stop);
        loop {
            let fleet = self.fleet.clone();
            tokio::select! {
                () = &mut stop => return self.snapshot,
                connected = &mut self.connecting => self.connected(connected),
                response = next(&mut self.stream) => self.received(response),
                () = fleet.stepped() => {}
                Some(event) = self.events.recv() => self.event(event),
                () = clock::sleep_until(self.renew_at.unwrap_or(i64::MAX)), if self.renew_at.is_some() => self.reconnect(),
                () = sleep_until(self.wake.unwrap_or_else(clock::instant).into()), if self.wake.is_some() => {}
            }
            self.answer();
        }
    }

    /// Begins to connect; at once after a stream that worked.
    fn reconnect(&mut self) {
        (self.stream, self.renew_at) = (None, None);
        let upstream = self.upstream.clone();
        let wait = backoff(self.failures);
        self.connecting = Box::pin(async move {
            sleep(wait).await;
            connect(&upstream).await
        });
    }

    fn connected(&mut self, connected: Result<Connected, String>) {
        match connected {
            Ok((client, renew_at)) => {
                self.renew_at = renew_at;
                self.connecting = Box::pin(pending());
                self.stream = Some(client);
                self.greet_by = Some(clock::instant() + GREET_MAX);
            }
            Err(error) => {
                if self.failures.is_multiple_of(TELL_EACH) {
                    let address = &self.upstream.address;
                    tracing::warn!(address, error, "The control plane is away; what it sent last is served");
                }
                self.failures = self.failures.saturating_add(1);
                self.reconnect();
            }
        }
    }

    fn received(&mut self, response: Result<DeltaDiscoveryResponse, String>) {
        let response = match response {
            Ok(response) => response,
            Err(why) => {
                tracing::info!(why, "The stream to the control plane ended");
                self.failures = self.failures.max(1);
                return self.reconnect();
            }
        };
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!(address = self.upstream.address, "The control plane is back");
        }
        match self.relay.on_response(response) {
            Received::Part(kind, update) => {
                failpoint::pass("part.came");
                self.snapshot.keep(&update);
                failpoint::pass("part.kept");
                self.fleet.publish_part(kind, update);
                failpoint::pass("part.published");
            }
            Received::Complete => {
                self.snapshot.finish();
                failpoint::pass("complete.kept");
                self.fleet.finish();
                tracing::info!("All that the control plane has is kept here");
            }
            Received::Foreign(what) => {
                tracing::error!(what, "The control plane sent what no control plane of ours sends");
                self.failures = self.failures.max(1);
                return self.reconnect();
            }
        }
        let Self { fleet, snapshot, .. } = self;
        fleet.look(|cache, _| snapshot.tidy(cache));
    }

    fn event(&mut self, event: FleetEvent) {
        match event.what {
            EngineEvent::Connected => tracing::info!("Envoy is connected"),
            EngineEvent::Disconnected => tracing::info!("Envoy is disconnected"),
            EngineEvent::Synced => tracing::debug!("Envoy is in sync"),
            EngineEvent::Refused(refused) => self.refused(refused),
        }
    }

    fn refused(&mut self, refused: Refused) {
        // What it keeps is what a restart has to begin with.
        let key = refused.key.clone();
        let instead = self.fleet.look(|cache, _| {
            let entry = cache.entry(key.kind, &key.name).filter(|entry| entry.quarantined())?;
            Some(entry.last_good().cloned())
        });
        match instead {
            Some(Some(good)) => self.snapshot.keep(&Update { set: vec![good], removed: vec![] }),
            Some(None) => self.snapshot.keep(&Update { set: vec![], removed: vec![key] }),
            None => {}
        }
        failpoint::pass("refusal.kept");
        if self.relay.on_refused(refused) && self.stream.is_some() {
            self.reconnect();
        }
    }

    fn answer(&mut self) {
        self.wake = None;
        if self.stream.is_none() {
            return;
        }
        let now = clock::instant();
        let Self { fleet, relay, greet_by, .. } = self;
        let (requests, wake) = fleet.look(|cache, session| match *greet_by {
            Some(by) if now < by && cache.complete() && !settled(cache, session) => (vec![], Some(by)),
            Some(_) => {
                *greet_by = None;
                (relay.hello(cache, session), None)
            }
            None => relay.answers(cache, session, now),
        });
        self.wake = wake;
        self.send(requests);
    }

    fn send(&mut self, requests: Vec<DeltaDiscoveryRequest>) {
        let Some(client) = &self.stream else { return };
        let some = !requests.is_empty();
        // The queue has room for many times what may be open at once.
        if requests.into_iter().any(|request| client.requests.try_send(request).is_err()) {
            self.reconnect();
        }
        if some {
            failpoint::pass("answers.given");
        }
    }
}

/// Opens a stream, and has the certificate renewed that is half over.
async fn connect(upstream: &Upstream) -> Result<Connected, String> {
    let Upstream { address, server_name, identity } = upstream;
    let now = clock::now_unix();
    let credentials = identity.credentials(now).map_err(|error| chain(&error))?;
    let client = Client::connect(address, server_name, &credentials).await.map_err(|error| chain(&error))?;
    let Some((from, to)) = validity(&credentials.certificate) else { return Ok((client, None)) };
    let half = from.midpoint(to);
    if now < half {
        return Ok((client, Some(half)));
    }
    let renewed = match client.renew().await {
        Ok(renewed) => identity.keep(&renewed).map_err(|error| chain(&error)),
        Err(error) => Err(chain(&error)),
    };
    if let Err(error) = renewed {
        tracing::warn!(
            error,
            valid_until = to,
            "The certificate of this engine could not be renewed; it is tried again"
        );
    }
    Ok((client, Some(now + RENEW_RETRY_SECONDS)))
}

/// Whether Envoy holds all there is: then all of it is said to be held, and nothing
/// is sent again.
fn settled(cache: &Cache, session: Option<&Session>) -> bool {
    session.is_some_and(|session| session.synced() && session.up_to_date(cache))
}

async fn next(stream: &mut Option<Client>) -> Result<DeltaDiscoveryResponse, String> {
    let Some(client) = stream else { return pending().await };
    match client.responses.message().await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err("closed".to_owned()),
        Err(status) => Err(status.message().to_owned()),
    }
}

/// 25 ms, 50 ms ... 500 ms, of which up to half is left out by chance.
fn backoff(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let whole = RETRY_FIRST.saturating_mul(1 << doublings.min(16)).min(RETRY_MAX);
    let chance = RandomState::new().hash_one(failures) % 1_000;
    whole - whole.mul_f64(f64::from(u32::try_from(chance).unwrap_or(0)) / 2_000.0)
}
