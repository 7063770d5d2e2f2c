//! Echo servers in this process: what stands behind a Service under test.
//!
//! Each answers every request with 200 and, as JSON, what it saw and who it is.
//! The query of a request asks for more: `?delay=MS` answers that late,
//! `?trickle=MS` sends the answer's body in pieces for that long. A request to
//! upgrade is followed by an echo of bytes, and gRPC by an echo of its messages.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use serde_json::json;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

/// Where backends, and clients that need one, run.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let made = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    RUNTIME.get_or_init(|| made().expect("a runtime"))
}

/// One server; it ends, its connections too, when it is dropped.
pub struct Backend {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    stop: watch::Sender<bool>,
}

struct Seen {
    service: String,
    address: SocketAddr,
    requests: AtomicUsize,
    in_flight: AtomicUsize,
}

impl Backend {
    /// HTTP/1.1 and HTTP/2 without TLS.
    #[must_use]
    pub fn start(service: &str) -> Self {
        Self::start_with(service, None)
    }

    #[must_use]
    pub fn start_tls(service: &str, tls: Arc<ServerConfig>) -> Self {
        Self::start_with(service, Some(tls))
    }

    fn start_with(service: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (requests, in_flight) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let seen = Arc::new(Seen { service: service.to_owned(), address, requests, in_flight });
        runtime().spawn(accept(listener, tls, Arc::clone(&seen), stopped));
        Self { address, seen, stop }
    }

    /// Takes no more connections, and ends each after what is under way on it.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// How many requests came so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// How many are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.seen.in_flight.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    seen: Arc<Seen>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Also when the backend was dropped.
            _ = stopped.changed() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (tls, seen, stopped) = (tls.clone(), Arc::clone(&seen), stopped.clone());
        runtime().spawn(connection(stream, tls, seen, stopped));
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    seen: Arc<Seen>,
    stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(stream, seen, stopped).await,
        Some(tls) => {
            // Refused clients are what some tests are about.
            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                serve(stream, seen, stopped).await;
            }
        }
    }
}

async fn serve<S>(stream: S, seen: Arc<Seen>, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let seen = Arc::clone(&seen);
        async move { Ok::<_, Infallible>(answer(request, &seen).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, seen: &Seen) -> Response<Body> {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    seen.in_flight.fetch_add(1, Ordering::Relaxed);
    let response = if request.headers().contains_key(header::UPGRADE) {
        upgrade(request, seen)
    } else if is_grpc(request.headers()) {
        grpc(request).await
    } else {
        echo(request, seen).await
    };
    seen.in_flight.fetch_sub(1, Ordering::Relaxed);
    response
}

async fn echo(request: Request<Incoming>, seen: &Seen) -> Response<Body> {
    let (head, body) = request.into_parts();
    let received = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let wish = |name: &str| {
        let pairs = head.uri.query().unwrap_or_default().split('&');
        let mut values = pairs.filter_map(|pair| pair.split_once('=')).filter(|(known, _)| *known == name);
        values.next().and_then(|(_, value)| value.parse().ok()).map(Duration::from_millis)
    };
    let said = json!({
        "service": seen.service,
        "backend": seen.address.to_string(),
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("", |path| path.as_str()),
        "host": host(&head),
        "proto": proto(head.version),
        "received": received,
        "headers": headers(&head.headers),
    });
    let said = Bytes::from(said.to_string());
    tokio::time::sleep(wish("delay").unwrap_or_default()).await;
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    let body = match wish("trickle") {
        None => http_body_util::Full::new(said).boxed(),
        Some(time) => trickle(said, time),
    };
    response.body(body).expect("a response")
}

fn host(head: &http::request::Parts) -> String {
    let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    named.or(head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default().to_owned()
}

fn proto(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn headers(headers: &HeaderMap) -> serde_json::Map<String, serde_json::Value> {
    let mut seen = serde_json::Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let text = values.iter().map(|value| String::from_utf8_lossy(value)).collect::<Vec<_>>().join(",");
        seen.insert(name.to_string(), text.into());
    }
    seen
}

/// White space, which JSON allows, keeps it coming.
fn trickle(said: Bytes, time: Duration) -> Body {
    const PIECES: u32 = 8;
    let pieces = futures_util::stream::unfold(0, move |n| {
        let said = said.clone();
        async move {
            match n {
                0..PIECES => {
                    tokio::time::sleep(time / PIECES).await;
                    Some((Ok(Frame::data(Bytes::from_static(b" "))), n + 1))
                }
                PIECES => Some((Ok(Frame::data(said)), n + 1)),
                _ => None,
            }
        }
    });
    StreamBody::new(pieces).boxed()
}

fn upgrade(mut request: Request<Incoming>, seen: &Seen) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    runtime().spawn(async move {
        if let Ok(stream) = upgraded.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let response = Response::builder().status(101).header(header::CONNECTION, "upgrade");
    let response = response.header(header::UPGRADE, "websocket").header("x-service", &seen.service);
    response.body(BodyExt::boxed(http_body_util::Empty::new())).expect("a response")
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

/// Each message back as it came, then the status as a trailer.
async fn grpc(request: Request<Incoming>) -> Response<Body> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let trailers = HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = http_body_util::Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder().header(header::CONTENT_TYPE, "application/grpc");
    response.body(body.boxed()).expect("a response")
}
