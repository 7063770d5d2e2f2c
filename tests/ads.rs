//! The shell around the sessions: which calls are served, and to whom.

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DiscoveryRequest,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tidegate::{
    base::Version,
    server::{Authority, Door, EngineStatus, Handle, Identity, Listen, Server},
    xds::{Resource, ResourceKey, ResourceKind, Update},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tonic::{Code, Status, transport::Channel};

const DEADLINE: Duration = Duration::from_secs(30);

async fn serve(door: Door) -> (Handle, u16) {
    let (server, handle, _events) = Server::new("edge".into());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    #[expect(clippy::disallowed_methods, reason = "the test is the app here")]
    tokio::spawn(server.serve(listener, door));
    (handle, port)
}

async fn local() -> (Handle, AggregatedDiscoveryServiceClient<Channel>) {
    let identity = Identity::new("edge", "e1").expect("a name");
    let (handle, port) = serve(Door::Local(identity)).await;
    let client = AggregatedDiscoveryServiceClient::connect(format!("http://127.0.0.1:{port}")).await;
    (handle, client.expect("a connection"))
}

fn clusters(node: Option<&str>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node.map(|id| Node { id: id.to_owned(), ..Default::default() }),
        type_url: ResourceKind::Cluster.type_url().to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn only_the_delta_method_is_served() {
    let (_handle, mut client) = local().await;
    let request =
        DiscoveryRequest { type_url: ResourceKind::Secret.type_url().to_owned(), ..Default::default() };
    let answer = client.stream_aggregated_resources(tokio_stream::once(request)).await;
    assert_eq!(answer.expect_err("refused").code(), Code::Unimplemented);
}

#[tokio::test]
async fn trap_15_a_stream_is_answered_after_the_first_publish() {
    let (handle, mut client) = local().await;
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::once(clusters(Some("e1"))), tokio_stream::pending());
    let mut answers = client.delta_aggregated_resources(requests).await.expect("a stream").into_inner();
    let early = timeout(Duration::from_millis(100), answers.message()).await;
    assert!(early.is_err(), "an answer before there is anything to say: {early:?}");
    handle.publish(Update::default());
    let answer = timeout(DEADLINE, answers.message()).await.expect("in time").expect("alive").expect("one");
    assert_eq!(answer.type_url, ResourceKind::Cluster.type_url());
    assert!(answer.resources.is_empty() && answer.removed_resources.is_empty());
    assert_eq!(handle.engines().len(), 1);
}

#[tokio::test]
async fn trap_05_a_node_must_be_who_it_is() {
    let (handle, mut client) = local().await;
    handle.publish(Update::default());
    let mut refused = async |node: Option<&'static str>| -> Status {
        let requests =
            tokio_stream::StreamExt::chain(tokio_stream::once(clusters(node)), tokio_stream::pending());
        let mut answers = client.delta_aggregated_resources(requests).await.expect("a stream").into_inner();
        timeout(DEADLINE, answers.message()).await.expect("in time").expect_err("refused")
    };
    assert_eq!(refused(None).await.code(), Code::InvalidArgument);
    assert_eq!(refused(Some("e2")).await.code(), Code::PermissionDenied);
    assert_eq!(handle.impostors(), 1);
}

#[tokio::test]
async fn trap_42_nobody_comes_in_without_a_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    #[expect(clippy::disallowed_methods, reason = "certificates are valid from now")]
    let now = SystemTime::now();
    let authority = Authority::create(&dir.path().join("ca"), now).expect("an authority");
    let issued =
        authority.issue_server(&["localhost"], &[], Duration::from_secs(3600), now).expect("a certificate");
    let config = authority.server_config(&issued).expect("a configuration");
    let (handle, port) = serve(Door::Mutual(Arc::new(arc_swap::ArcSwap::new(config)))).await;
    handle.publish(Update::default());
    // HTTP/2 in the clear.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, plain.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(read.is_err() || answer.first() == Some(&21), "a TLS alert at most: {answer:?}");
    // TLS without a certificate.
    let pem = authority.certificate_pem().as_bytes();
    let ca = rustls::pki_types::pem::PemObject::from_pem_slice(pem).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await;
    // In TLS 1.3 the client is done first, and is told with the first read.
    let refused = match tls {
        Err(_) => true,
        Ok(mut tls) => timeout(DEADLINE, tls.read(&mut [0; 64])).await.expect("it is closed").is_err(),
    };
    assert!(refused);
    assert!(handle.engines().is_empty());
}

fn cluster(name: &str, body: impl Into<Bytes>) -> Resource {
    let body = body.into();
    Resource {
        key: ResourceKey { kind: ResourceKind::Cluster, name: name.into() },
        version: Version::of(&body.as_ref()),
        body,
        needs: [].into(),
        origins: [].into(),
    }
}

fn set(set: impl IntoIterator<Item = Resource>) -> Update {
    Update { set: set.into_iter().collect(), removed: Vec::new() }
}

/// Waits until the streams are as wanted. On paused time this moves the clock.
async fn until(what: &str, handle: &Handle, mut wanted: impl FnMut(&[EngineStatus]) -> bool) {
    for _ in 0..6_000 {
        if wanted(&handle.engines()) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn trap_13_a_first_request_with_all_versions_is_read() {
    let (handle, mut client) = local().await;
    let name = |n: usize| format!("{n:0>200}");
    let all: Vec<_> = (0..20_000).map(|n| cluster(&name(n), "x")).collect();
    let versions: HashMap<_, _> =
        all.iter().map(|r| (r.key.name.to_string(), r.version.to_string())).collect();
    handle.publish(set(all));
    let first = DeltaDiscoveryRequest { initial_resource_versions: versions, ..clusters(Some("e1")) };
    assert!(first.encoded_len() > 4 << 20, "beyond what gRPC takes unless told: {}", first.encoded_len());
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
    let _answers = client.delta_aggregated_resources(requests).await.expect("a stream");
    until("it is in sync", &handle, |engines| engines.first().is_some_and(|engine| engine.synced)).await;
    assert_eq!(handle.engines()[0].sent, 0, "equal versions are not sent again");
}

/// Streams that came and never answer hold up those that are there no more than
/// as many as may boot at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_40_a_storm_of_connections_waits_its_turn() {
    const STREAMS_PER_CONNECTION: usize = 4;
    const NEWCOMERS: usize = 100;
    const BOOTS_MAX: usize = 64;
    let identity = Identity::new("edge", "e1").expect("a name");
    let (handle, port) = serve(Door::Local(identity)).await;
    handle.publish(set([cluster("a", "1")]));
    let connect = || AggregatedDiscoveryServiceClient::connect(format!("http://127.0.0.1:{port}"));
    let stream = |client: &mut AggregatedDiscoveryServiceClient<Channel>| {
        let mut client = client.clone();
        async move {
            let (sender, receiver) = tokio::sync::mpsc::channel(8);
            sender.send(clusters(Some("e1"))).await.expect("room");
            let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let answers = client.delta_aggregated_resources(requests).await.expect("a stream").into_inner();
            (sender, answers)
        }
    };
    let mut old = connect().await.expect("a connection");
    let (sender, mut answers) = stream(&mut old).await;
    let first = answers.message().await.expect("alive").expect("an answer");
    let ack = |nonce: String| DeltaDiscoveryRequest { response_nonce: nonce, ..clusters(None) };
    sender.send(ack(first.nonce)).await.expect("alive");
    until("the old one is in sync", &handle, |engines| engines.iter().all(|engine| engine.synced)).await;

    let mut newcomers = Vec::new();
    for _ in 0..NEWCOMERS / STREAMS_PER_CONNECTION {
        let mut client = connect().await.expect("a connection");
        for _ in 0..STREAMS_PER_CONNECTION {
            newcomers.push(stream(&mut client).await);
        }
    }
    let begun = |engines: &[EngineStatus]| engines.iter().filter(|e| e.sent > 0 && !e.synced).count();
    until("the first have their turn", &handle, |engines| begun(engines) == BOOTS_MAX).await;
    assert_eq!(handle.engines().len(), NEWCOMERS + 1);
    // Nobody new is let in before one has ended; the old one is served all the while.
    handle.publish(set([cluster("a", "2")]));
    let change = timeout(DEADLINE, answers.message()).await.expect("in time").expect("alive").expect("one");
    assert_eq!(change.resources.len(), 1);
    // The old one has not answered that.
    assert_eq!(begun(&handle.engines()), BOOTS_MAX + 1);
    // Those that say nothing lose their turn, and so all are served in the end.
    until("the last has its turn", &handle, |engines| engines.iter().all(|engine| engine.sent > 0)).await;
}

/// One connection in memory, so that time may be paused.
struct Once(Option<DuplexStream>);

impl Listen for Once {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.take() {
            Some(io) => Ok(io),
            None => std::future::pending().await,
        }
    }
}

/// A connection that goes nowhere once told so: neither closed nor heard of.
struct Cable {
    io: DuplexStream,
    cut: Arc<AtomicBool>,
}

impl AsyncRead for Cable {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.io).poll_read(cx, to);
        if this.cut.load(Ordering::Relaxed) {
            to.clear();
            return Poll::Pending;
        }
        read
    }
}

impl AsyncWrite for Cable {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(from.len()));
        }
        Pin::new(&mut this.io).poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// An engine that asked for its clusters, has them, and says nothing more: its
/// cable may be cut.
async fn silent() -> (Handle, Arc<AtomicBool>) {
    let (server, handle, _events) = Server::new("edge".into());
    let (ours, theirs) = duplex(1 << 16);
    let identity = Identity::new("edge", "e1").expect("a name");
    let cut = Arc::new(AtomicBool::new(false));
    let cable = Cable { io: theirs, cut: cut.clone() };
    handle.publish(set([cluster("a", vec![b'x'; 100_000])]));
    #[expect(clippy::disallowed_methods, reason = "the test is the app here, and the client beside it")]
    let spawn = |task: Pin<Box<dyn Future<Output = ()> + Send>>| drop(tokio::spawn(task));
    spawn(Box::pin(server.serve(Once(Some(ours)), Door::Local(identity))));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(cable));
    let (mut sender, connection) = handshake.await.expect("HTTP/2");
    spawn(Box::pin(async {
        let _ = connection.await;
    }));
    let message = clusters(Some("e1")).encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    framed.extend(message);
    let open = stream::pending::<Result<Frame<Bytes>, Infallible>>();
    let frames = stream::StreamExt::chain(stream::iter([Ok(Frame::data(Bytes::from(framed)))]), open);
    let request = http::Request::post(
        "http://edge/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    )
    .header("content-type", "application/grpc")
    .body(StreamBody::new(frames))
    .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    spawn(Box::pin(async move {
        // Held, not read.
        let _held = (answer, sender);
        std::future::pending::<()>().await;
    }));
    until("it is sent its clusters", &handle, |engines| engines.first().is_some_and(|e| e.sent == 1)).await;
    (handle, cut)
}

#[tokio::test(start_paused = true)]
async fn trap_39_a_reader_that_takes_nothing_costs_one_response() {
    let (handle, _cut) = silent().await;
    for n in 0_u8..200 {
        handle.publish(set([cluster("a", vec![n; 100_000])]));
        sleep(Duration::from_millis(100)).await;
    }
    let [engine] = handle.engines().try_into().expect("it is there still");
    assert_eq!(engine.sent, 1, "one unanswered response of a kind");
}

#[tokio::test(start_paused = true)]
async fn trap_41_a_peer_that_is_gone_without_a_word_is_let_go() {
    let (handle, cut) = silent().await;
    // It answers pings: nothing else is needed of it.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(handle.engines().len(), 1);
    cut.store(true, Ordering::Relaxed);
    let begin = tokio::time::Instant::now();
    until("it is let go", &handle, <[_]>::is_empty).await;
    assert!(begin.elapsed() < Duration::from_secs(40), "found in 35 s, in {:?}", begin.elapsed());
}
