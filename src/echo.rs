//! A small backend that says what it was asked: `tidegate echo`, and the upstream of tests.
//!
//! *Takes* an address, a name, and perhaps a certificate. *Gives* a server of
//! HTTP/1.1, h2c by prior knowledge and, with a certificate, both over TLS by
//! ALPN, all on one port. *Invariants*: bodies are counted as they pass, never
//! kept; connections, bodies, delays and streams have a limit; it trusts
//! nothing it is sent and holds no state between requests. *To add one*: a row
//! in `route`, and an answer beside the others in `echo/answer.rs`.
//!
//! | path | answer |
//! | --- | --- |
//! | any | JSON: what was asked ([`Asked`]) |
//! | `/delay/<ms>` | the same, that much later |
//! | `/status/<code>` | the same, with that status |
//! | `/stream/<n>` | `n` lines, 50 ms apart |
//! | `/ws` | WebSocket echo (RFC 6455, HTTP/1.1 upgrade) |
//! | POST with `content-type: application/grpc...` | the body back, trailer `grpc-status: 0` |

mod answer;
mod websocket;

pub use answer::Asked;

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use std::{
    convert::Infallible, future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Connections at once; more wait in the backlog of the kernel.
const CONNECTIONS_MAX: usize = 4_096;
/// From the connection to the end of its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From a request's first byte to the end of its head (HTTP/1).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What is open at the shutdown has so long to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after a failed accept: it fails when descriptors have run out, and again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The files of a certificate, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchoTls {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why there is no echo server.
#[derive(Debug, thiserror::Error)]
pub enum EchoError {
    #[error("cannot listen on {address} ({source}); is the port taken, or the address not of this machine?")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {} ({source}); it has to be PEM", path.display())]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("the certificate cannot be used ({0}); do certificate and key belong together?")]
    Tls(#[from] rustls::Error),
}

/// A server that listens.
pub struct Echo {
    listener: TcpListener,
    address: SocketAddr,
    name: Arc<str>,
    tls: Option<TlsAcceptor>,
}

impl Echo {
    /// Listens on `address` (port 0: any free one). `name` is the `service` of its answers.
    ///
    /// # Errors
    /// The address is taken, or the certificate cannot be used.
    pub async fn bind(address: SocketAddr, name: &str, tls: Option<&EchoTls>) -> Result<Self, EchoError> {
        let tls = tls.map(acceptor).transpose()?;
        let bind = |source| EchoError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address, name: name.into(), tls })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then lets what is open end (10 s at most).
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, address: _, name, tls } = self;
        let (closing, closed) = watch::channel(false);
        let mut server = Server {
            name,
            tls,
            closed,
            slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            connections: JoinSet::new(),
        };
        tokio::select! {
            () = shutdown => {}
            () = server.accept(&listener) => {}
        }
        drop(listener);
        closing.send_replace(true);
        let ended = async { while server.connections.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            tracing::debug!("Connections were still open after the shutdown time");
        }
    }
}

struct Server {
    name: Arc<str>,
    tls: Option<TlsAcceptor>,
    closed: watch::Receiver<bool>,
    slots: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl Server {
    async fn accept(&mut self, listener: &TcpListener) {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer, slot),
                Err(error) => {
                    tracing::debug!(%error, "Connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            while self.connections.try_join_next().is_some() {}
        }
    }

    fn serve(&mut self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let scene = Scene { name: Arc::clone(&self.name), peer, closed: self.closed.clone() };
        let tls = self.tls.clone();
        self.connections.spawn(async move {
            // Small answers go out at once.
            let _ = stream.set_nodelay(true);
            let served = match tls {
                None => serve_connection(stream, scene).await,
                Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve_connection(stream, scene).await,
                    Ok(Err(error)) => Err(error.into()),
                    Err(elapsed) => Err(elapsed.into()),
                },
            };
            if let Err(error) = served {
                tracing::debug!(%peer, error, "Connection ended early");
            }
            drop(slot);
        });
    }
}

/// What an answer needs to know beside the request.
#[derive(Clone)]
struct Scene {
    name: Arc<str>,
    peer: SocketAddr,
    /// True when the server shuts down.
    closed: watch::Receiver<bool>,
}

impl Scene {
    async fn closed(&mut self) {
        // An error means that the server is gone altogether.
        let _ = self.closed.wait_for(|closed| *closed).await;
    }
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut scene: Scene,
) -> Result<(), ConnectionError> {
    // An upgraded connection outlives its request, and is served here when that is answered.
    let (upgrades, mut upgraded) = websocket::queue();
    let for_service = scene.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (scene, upgrades) = (for_service.clone(), upgrades.clone());
        async move { Ok::<Response<answer::Body>, Infallible>(route(request, scene, &upgrades).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = scene.closed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Ok(upgrade) = upgraded.try_recv() {
        websocket::echo(upgrade, scene).await;
    }
    served
}

async fn route(
    request: Request<Incoming>,
    scene: Scene,
    upgrades: &websocket::Queue,
) -> Response<answer::Body> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    match words.as_slice() {
        ["ws"] => websocket::accept(request, upgrades),
        _ if answer::is_grpc(&request) => answer::grpc(request),
        ["delay", time] => answer::delayed(request, &scene, time).await,
        ["status", code] => answer::with_status(request, &scene, code).await,
        ["stream", chunks] => answer::stream(chunks, scene),
        _ => answer::asked(request, &scene).await,
    }
}

fn acceptor(files: &EchoTls) -> Result<TlsAcceptor, EchoError> {
    let EchoTls { certificate, key } = files;
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| EchoError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
