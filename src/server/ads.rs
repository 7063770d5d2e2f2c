//! The thin shell: sockets, TLS, HTTP/2 and time around the sessions.

use super::{
    admission::Admission,
    codec::DeltaCodec,
    fleet::{Fleet, FleetEvent, Handle, Member},
    frame::Response,
    node::Identity,
    relay::RENEW,
    renewal::{Renew, Renewal},
    session::Closed,
};
use crate::{base::Text, failpoint};
use arc_swap::ArcSwap;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, body::Body, server::Grpc};
use tonic_prost::ProstCodec;

/// The one method served; matched exactly (grpc-go CVE-2026-33186 is what else happens).
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// A first request carries a version a resource: 20,000 resources are over 4 MiB.
const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Dead peers, and those that read a byte now and then, are found in 15 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Until a peer has shown its certificate.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A client that takes nothing for this long is let go.
const SEND_MAX: Duration = Duration::from_secs(10);
/// Responses between a session and its socket.
const SEND_QUEUE_MAX: usize = 4;
/// Connections of a fleet, those without a stream yet included.
const CONNECTIONS_MAX: usize = 25_000;
/// Streams on one connection: Envoy opens one, and another while it reconnects.
const STREAMS_PER_CONNECTION_MAX: u32 = 4;
/// After an accept failed (no file descriptors left): it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A request to have a key signed has about 300 bytes.
const RENEW_BYTES_MAX: usize = 16 << 10;
const TICK: Duration = Duration::from_secs(1);

/// Who may come in.
#[derive(Clone)]
pub enum Door {
    /// Peers with a certificate of the fleet's authority. New connections take
    /// the newest configuration: certificates rotate without dropping a stream.
    Mutual(Arc<ArcSwap<rustls::ServerConfig>>),
    /// The one peer behind a socket that nobody else can open (a Unix socket in
    /// a directory of ours).
    Local(Identity),
}

/// Where connections come from.
pub trait Listen: Send + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Where the peer is, for whoever reads the log; none where all are here.
    fn peer(_io: &Self::Io) -> Option<SocketAddr> {
        None
    }
}

impl Listen for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Io> {
        let (stream, _) = TcpListener::accept(self).await?;
        // An ACK of 100 bytes must not wait for more to come.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn peer(io: &Self::Io) -> Option<SocketAddr> {
        io.peer_addr().ok()
    }
}

impl Listen for UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<Self::Io> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Serves one fleet.
#[derive(Debug, Clone)]
pub struct Server {
    fleet: Arc<Fleet>,
    admission: Admission,
    renewal: Option<Renewal>,
}

impl Server {
    /// A server, the way to feed and ask it, and what happens on it.
    #[must_use]
    pub fn new(fleet: Text) -> (Self, Handle, mpsc::Receiver<FleetEvent>) {
        let (fleet, handle, events) = Handle::new(fleet);
        (Self { fleet, admission: Admission::new(), renewal: None }, handle, events)
    }

    /// Gives engines new certificates before theirs end.
    #[must_use]
    pub fn renewing(self, renewal: Renewal) -> Self {
        Self { renewal: Some(renewal), ..self }
    }

    /// Serves until dropped; then all its connections are closed.
    pub async fn serve<L: Listen>(self, mut listener: L, door: Door) {
        let mut connections = JoinSet::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok(io) => {
                        let peer = L::peer(&io);
                        connections.spawn(admit(self.clone(), io, peer, door.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "A connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "A connection's task failed");
                    }
                }
                _ = ticks.tick() => self.fleet.tick(),
            }
        }
    }
}

/// Finds out who it is, then serves it.
async fn admit<Io>(server: Server, io: Io, peer: Option<SocketAddr>, door: Door)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match door {
        Door::Local(identity) => converse(server, io, identity).await,
        Door::Mutual(config) => {
            let acceptor = TlsAcceptor::from(config.load_full());
            // Its time begins with its turn.
            let handshake = async { timeout(HANDSHAKE_MAX, acceptor.accept(io)).await };
            let tls = match server.admission.handshake(handshake).await {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return refused_handshake(peer, &error),
                Err(_) => return tracing::info!(?peer, "A peer did not finish the TLS handshake"),
            };
            let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let identity = certificates.first().map(|leaf| Identity::of_certificate(leaf));
            match identity {
                Some(Ok(identity)) if identity.fleet == server.fleet.name => {
                    converse(server, tls, identity).await
                }
                Some(Ok(identity)) => {
                    server.fleet.count_impostor();
                    tracing::warn!(engine = %identity.uri(), "An engine of another fleet was refused");
                }
                Some(Err(error)) => {
                    server.fleet.count_impostor();
                    tracing::warn!(%error, "A peer that is no engine was refused");
                }
                None => tracing::warn!("A peer without a certificate was refused"),
            }
        }
    }
}

/// An engine with a certificate that is over is for somebody to mend; a scanner is not.
fn refused_handshake(peer: Option<SocketAddr>, error: &io::Error) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => tracing::warn!(
            ?peer, %why,
            "An engine's certificate was refused; check both clocks, and have the engine join anew"
        ),
        _ => tracing::info!(?peer, %error, "A peer failed the TLS handshake"),
    }
}

async fn converse<Io>(server: Server, io: Io, identity: Identity)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let engine = identity.engine.clone();
    let let_go = Arc::new(Notify::new());
    let end = Arc::clone(&let_go);
    let service = service_fn(move |request| {
        let (server, identity, let_go) = (server.clone(), identity.clone(), Arc::clone(&let_go));
        async move { Ok::<_, Infallible>(answer(server, identity, let_go, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .serve_connection(TokioIo::new(io), service);
    tokio::select! {
        served = connection => if let Err(error) = served {
            tracing::info!(%engine, %error, "An engine's connection ended");
        },
        // Its end would wait for what is never taken.
        () = end.notified() => {}
    }
}

async fn answer(
    server: Server,
    engine: Identity,
    let_go: Arc<Notify>,
    request: http::Request<Incoming>,
) -> http::Response<Body> {
    match (request.uri().path(), &server.renewal) {
        (DELTA, _) => {
            let mut grpc = Grpc::new(DeltaCodec).max_decoding_message_size(REQUEST_BYTES_MAX);
            grpc.streaming(Delta { server, engine: engine.engine, let_go }, request).await
        }
        (RENEW, Some(renewal)) => {
            let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(RENEW_BYTES_MAX);
            grpc.unary(Renew { renewal: renewal.clone(), engine }, request).await
        }
        _ => Status::unimplemented("only DeltaAggregatedResources is served").into_http(),
    }
}

/// One call of the delta method.
#[derive(Debug)]
struct Delta {
    server: Server,
    engine: Text,
    /// Ends the connection.
    let_go: Arc<Notify>,
}

impl tonic::server::StreamingService<DeltaDiscoveryRequest> for Delta {
    type Response = Response;
    type ResponseStream = ReceiverStream<Result<Response, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Self::ResponseStream>, Status>> + Send>>;

    #[expect(
        clippy::disallowed_methods,
        reason = "a stream lives as long as its socket: its task ends with it"
    )]
    fn call(&mut self, request: tonic::Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let Server { fleet, admission, renewal: _ } = self.server.clone();
        let member = fleet.join(self.engine.clone(), now());
        let let_go = Arc::clone(&self.let_go);
        Box::pin(async move {
            let full = || Status::resource_exhausted("the fleet has as many streams as it may");
            let member = member.ok_or_else(full)?;
            let (sender, receiver) = mpsc::channel(SEND_QUEUE_MAX);
            tokio::spawn(async move {
                if run(member, admission, request.into_inner(), Outbox::new(sender)).await == End::LetGo {
                    let_go.notify_one();
                }
            });
            Ok(tonic::Response::new(ReceiverStream::new(receiver)))
        })
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By the peer, or with a status for it.
    Told,
    /// The peer takes nothing: there is no telling it anything.
    LetGo,
}

/// One stream, from its first request to its end.
async fn run(
    member: Member,
    admission: Admission,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    mut outbox: Outbox,
) -> End {
    let mut changes = member.fleet.changes();
    let mut wake: Option<Instant> = None;
    let mut boot = tokio::select! {
        boot = admission.boot(now) => boot,
        () = outbox.sender.closed() => return End::Told,
    };
    loop {
        let stuck = outbox.stuck_at();
        let stepped = tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => member.step(|session, cache| session.on_request(cache, request, now())),
                Ok(None) => return End::Told,
                Err(status) => {
                    tracing::debug!(engine = %member.engine(), %status, "A stream broke");
                    return End::Told;
                }
            },
            Ok(()) = changes.changed() => member.step(|session, cache| session.on_change(cache, now())),
            () = sleep_until(wake.unwrap_or_else(now).into()), if wake.is_some() => {
                member.step(|session, cache| session.on_time(cache, now()))
            }
            () = sleep_until(stuck.unwrap_or_else(now).into()), if stuck.is_some() => {
                if outbox.is_stuck() {
                    return let_go(&member);
                }
                continue;
            }
            () = outbox.sender.closed() => return End::Told,
        };
        let (responses, next) = match stepped {
            Ok(stepped) => stepped,
            Err(closed) => {
                refuse(&member, &outbox.sender, closed).await;
                return End::Told;
            }
        };
        let look = boot.follow(member.synced(), !responses.is_empty(), now());
        wake = next.into_iter().chain(look).min();
        failpoint::pass("request.taken");
        for response in responses {
            match outbox.send(response).await {
                Ok(true) => failpoint::pass("response.sent"),
                Ok(false) => return End::Told,
                Err(_) => return let_go(&member),
            }
        }
    }
}

fn let_go(member: &Member) -> End {
    tracing::warn!(engine = %member.engine(), "An engine took nothing for 10 s and was let go");
    End::LetGo
}

/// Responses on their way to the socket, and since when none was taken.
struct Outbox {
    sender: mpsc::Sender<Result<Response, Status>>,
    sent: usize,
    /// How many of them were taken, and since when it is so many.
    taken: usize,
    since: Instant,
}

impl Outbox {
    fn new(sender: mpsc::Sender<Result<Response, Status>>) -> Self {
        Self { sender, sent: 0, taken: 0, since: now() }
    }

    /// False where the stream has ended; an error where nothing is taken.
    async fn send(&mut self, response: Response) -> Result<bool, tokio::time::error::Elapsed> {
        if self.waiting() == 0 {
            self.since = now();
        }
        self.sent += 1;
        timeout(SEND_MAX, self.sender.send(Ok(response))).await.map(|sent| sent.is_ok())
    }

    fn waiting(&self) -> usize {
        SEND_QUEUE_MAX - self.sender.capacity()
    }

    /// When those that wait will have waited too long.
    fn stuck_at(&mut self) -> Option<Instant> {
        let waiting = self.waiting();
        let taken = self.sent - waiting;
        if taken != self.taken {
            (self.taken, self.since) = (taken, now());
        }
        (waiting > 0).then(|| self.since + SEND_MAX)
    }

    fn is_stuck(&mut self) -> bool {
        self.stuck_at().is_some_and(|at| at <= now())
    }
}

async fn refuse(member: &Member, sender: &mpsc::Sender<Result<Response, Status>>, closed: Closed) {
    tracing::warn!(engine = %member.engine(), reason = %closed, "A stream was closed");
    let status = match &closed {
        Closed::NoNode => Status::invalid_argument(closed.to_string()),
        Closed::WrongNode(_) => {
            member.fleet.count_impostor();
            Status::permission_denied(closed.to_string())
        }
        Closed::TooMany => Status::resource_exhausted(closed.to_string()),
        Closed::Behind => Status::unavailable(closed.to_string()),
    };
    // Nobody left to tell is no failure.
    let _ = timeout(SEND_MAX, sender.send(Err(status))).await;
}

/// Tokio's clock, so that tests may hold it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
