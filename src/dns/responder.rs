//! The sockets: UDP and TCP on one address, in front of `answer`.

mod bind;
mod tcp;
mod udp;

use super::{
    answer::{SiteId, Transport, answer},
    counters::Counters,
    provider::Publish,
    reply::Reply,
    rrl::{Limits, RateLimiter, Verdict},
    zones::Zones,
};
use crate::{base::HostPattern, ir::RecordSet};
pub use bind::BindError;
use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    num::NonZeroUsize,
    sync::{Arc, RwLock},
};
use tokio::{task::JoinSet, time::Instant};

/// Sockets beyond this gain nothing: two already feed more than one core of answers.
const UDP_SOCKETS_MAX: usize = 16;
/// What a query may be, over either transport: a question and an OPT with room
/// for padding (RFC 8467: blocks of 128). More is not a query we could answer.
const QUERY_BYTES_MAX: usize = 4_096;

/// How a responder is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Told to clients that send NSID.
    pub site: SiteId,
    /// None: no response rate limiting, and no bound on what one prefix has of the
    /// TCP connections.
    pub rate_limits: Option<Limits>,
    /// UDP sockets on the address (SO_REUSEPORT); the kernel spreads clients over
    /// them. Capped at 16.
    pub udp_sockets: NonZeroUsize,
}

impl Default for Options {
    /// No site id, the limits of [`Limits::default`], a UDP socket a core.
    fn default() -> Self {
        let udp_sockets = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { site: SiteId::default(), rate_limits: Some(Limits::default()), udp_sockets }
    }
}

/// The zones as the sockets see them. A write holds the lock for one change, a
/// read for one answer; neither waits for anything in between.
#[derive(Clone, Default)]
pub struct SharedZones(Arc<RwLock<Zones>>);

/// Why the lock cannot be poisoned.
const NO_PANIC: &str = "nothing panics while it holds the zones";

impl SharedZones {
    /// Changes zones. All of `change` is seen at once or not at all; answers wait
    /// for it, so let it be one change, or the first load.
    pub fn update<T>(&self, change: impl FnOnce(&mut Zones) -> T) -> T {
        change(&mut self.0.write().expect(NO_PANIC))
    }

    /// Reads zones, as for their serials.
    pub fn read<T>(&self, look: impl FnOnce(&Zones) -> T) -> T {
        look(&self.0.read().expect(NO_PANIC))
    }
}

impl Publish for SharedZones {
    fn set(&self, records: RecordSet) {
        self.update(|zones| zones.set_records(records));
    }

    fn remove(&self, name: &HostPattern) {
        self.update(|zones| zones.remove_records(name));
    }
}

/// Bound sockets, not yet served.
pub struct Responder {
    service: Arc<Service>,
    address: SocketAddr,
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
}

impl Responder {
    /// Takes UDP and TCP of one address. Port 0 takes a free port, the same for
    /// both. Queries wait in the sockets until [`Responder::serve`].
    ///
    /// On a machine with several addresses name one, not the unspecified one: a
    /// reply leaves by the address the kernel prefers, and a client takes it only
    /// from the address it asked.
    pub fn bind(address: SocketAddr, options: Options) -> Result<Self, BindError> {
        let Options { site, rate_limits, udp_sockets } = options;
        let (tcp, udp) = bind::bind(address, udp_sockets.get().min(UDP_SOCKETS_MAX))?;
        let address =
            tcp.local_addr().map_err(|source| BindError::Other { address, protocol: "TCP", source })?;
        let limiter = rate_limits.map(|limits| RateLimiter::new(limits, RandomState::new().hash_one(())));
        let service = Service {
            zones: SharedZones::default(),
            site,
            limiter,
            counters: Arc::default(),
            started: Instant::now(),
        };
        Ok(Self { service: Arc::new(service), address, udp, tcp })
    }

    /// The address it is bound to, with the port it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handle that publishes.
    #[must_use]
    pub fn zones(&self) -> SharedZones {
        self.service.zones.clone()
    }

    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.service.counters)
    }

    /// Answers until `shutdown` is done. Then every task has ended and every
    /// socket is closed; a client that waits asks again elsewhere.
    ///
    /// # Errors
    /// When the sockets cannot be handed to the runtime, or a task of ours broke.
    /// Nothing that a client does ends it.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
        let Self { service, address, udp, tcp } = self;
        let mut tasks = JoinSet::new();
        for socket in udp {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            tasks.spawn(udp::serve(Arc::clone(&service), socket));
        }
        let tcp = tokio::net::TcpListener::from_std(tcp)?;
        let mut connections = tcp::Connections::default();
        tracing::info!(%address, "DNS is served");
        let ended = tokio::select! {
            () = shutdown => None,
            never = connections.serve(&service, &tcp) => match never {},
            ended = tasks.join_next() => ended,
        };
        connections.close().await;
        tasks.shutdown().await;
        match ended {
            None => Ok(()),
            Some(Ok(never)) => match never {},
            Some(Err(panic)) => Err(std::io::Error::other(panic)),
        }
    }
}

/// What all sockets share.
struct Service {
    zones: SharedZones,
    site: SiteId,
    limiter: Option<RateLimiter>,
    counters: Arc<Counters>,
    started: Instant,
}

impl Service {
    fn answer(&self, message: &[u8], transport: Transport) -> Option<Reply> {
        self.counters.query(transport);
        let reply = self.zones.read(|zones| answer(zones, message, transport, &self.site));
        if reply.is_none() {
            self.counters.ignored();
        }
        reply
    }

    /// The reply to a datagram, if its source is to have one. A forged source
    /// cannot complete a TCP handshake, so only this way is rate limited.
    fn answer_datagram(&self, message: &[u8], source: IpAddr) -> Option<Vec<u8>> {
        let mut reply = self.answer(message, Transport::Udp)?;
        let verdict = match &self.limiter {
            Some(limiter) => limiter.check(self.started.elapsed(), source, reply.account),
            None => Verdict::Send,
        };
        match verdict {
            Verdict::Send => {}
            Verdict::Slip => {
                self.counters.rate_slipped();
                reply.truncate();
            }
            Verdict::Drop => {
                self.counters.rate_limited();
                return None;
            }
        }
        self.counters.answered(reply.rcode, reply.truncated);
        Some(reply.bytes)
    }

    fn exempts(&self, source: IpAddr) -> bool {
        self.limiter.as_ref().is_none_or(|limiter| limiter.exempts(source))
    }
}
