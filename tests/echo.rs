//! The echo backend, asked by raw clients.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tidegate::echo::{Asked, Echo, EchoError, EchoTls};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

/// Far beyond what anything here takes: only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs until it is told to end.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

async fn start(tls: Option<&EchoTls>) -> Running {
    let echo = Echo::bind("127.0.0.1:0".parse().unwrap(), "cart", tls).await.unwrap();
    let address = echo.local_addr();
    let (stop, stopped) = oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(echo.serve(async {
        let _ = stopped.await;
    }));
    Running { address, stop, tasks }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(mut self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.tasks.join_next()).await.expect("it ends").unwrap().unwrap();
    }
}

struct Answer {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn asked(&self) -> Asked {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    request: Request<Full<Bytes>>,
) -> Answer {
    let mut driver = JoinSet::new();
    let io = TokioIo::new(stream);
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        driver.spawn(async { drop(connection.await) });
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        driver.spawn(async { drop(connection.await) });
        sender.send_request(request).await.unwrap()
    };
    let (head, body) = response.into_parts();
    let collected = timeout(PATIENCE, body.collect()).await.expect("it ends").unwrap();
    let trailers = collected.trailers().cloned();
    Answer {
        status: head.status,
        version: head.version,
        headers: head.headers,
        body: collected.to_bytes(),
        trailers,
    }
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).header("host", "shop.test").body(Full::default()).unwrap()
}

fn post(uri: &str, content: &str, bytes: usize) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(vec![b'x'; bytes]));
    Request::post(uri).header("content-type", content).body(body).unwrap()
}

#[tokio::test]
async fn says_what_it_was_asked_in_http_1() {
    let server = start(None).await;
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/a%20b?c=d")
        .header("host", "Shop.test:80")
        .header("x-two", "1")
        .header("x-two", "2")
        .body(Full::new(Bytes::from_static(b"12345")))
        .unwrap();
    let stream = server.connect().await;
    let peer = stream.local_addr().unwrap().to_string();
    let answer = exchange(stream, false, request).await;
    assert_eq!((answer.status, answer.version), (StatusCode::OK, Version::HTTP_11));
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut asked = answer.asked();
    assert_eq!(asked.headers.remove("x-two").unwrap(), ["1", "2"]);
    asked.headers.clear();
    let expected = Asked {
        service: "cart".into(),
        host: "Shop.test:80".into(),
        method: "PUT".into(),
        path: "/a%20b".into(),
        query: Some("c=d".into()),
        headers: Default::default(),
        protocol: "HTTP/1.1".into(),
        peer,
        body_bytes: 5,
    };
    assert_eq!(asked, expected);
    server.stop().await;
}

#[tokio::test]
async fn speaks_http_2_by_prior_knowledge_on_the_same_port() {
    let server = start(None).await;
    let answer = exchange(server.connect().await, true, post("http://shop.test/x", "a/b", 3)).await;
    let asked = answer.asked();
    assert_eq!(
        (asked.protocol.as_str(), asked.host.as_str(), asked.body_bytes),
        ("HTTP/2.0", "shop.test", 3)
    );
    server.stop().await;
}

#[tokio::test]
async fn status_delay_and_stream() {
    let server = start(None).await;
    let rows = [
        ("/status/503", 503, "\"path\":\"/status/503\""),
        ("/status/204", 204, ""),
        ("/status/99", 400, "takes 200 to 999"),
        ("/status/101", 400, "takes 200 to 999"),
        ("/status/x", 400, "takes 200 to 999"),
        ("/delay/1", 200, "\"path\":\"/delay/1\""),
        ("/delay/600001", 400, "takes 0 to"),
        ("/delay/-1", 400, "takes 0 to"),
        ("/stream/3", 200, "chunk 1\nchunk 2\nchunk 3\n"),
        ("/stream/0", 200, ""),
        ("/stream/6001", 400, "takes 0 to"),
    ];
    for (path, status, body) in rows {
        let answer = exchange(server.connect().await, false, get(path)).await;
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(said.contains(body) && (said.is_empty() == body.is_empty()), "{path}: {said}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let server = start(None).await;
    let most = exchange(server.connect().await, true, post("http://a/", "a/b", 16 << 20)).await;
    assert_eq!(most.asked().body_bytes, 16 << 20);
    let more = exchange(server.connect().await, true, post("http://a/", "a/b", (16 << 20) + 1)).await;
    assert_eq!(more.status, StatusCode::PAYLOAD_TOO_LARGE);
    server.stop().await;
}

#[tokio::test]
async fn grpc_is_sent_back_with_its_status_in_the_trailers() {
    let server = start(None).await;
    let rows = [
        ("application/grpc", 7, "0"),
        ("application/grpc+proto", 0, "0"),
        ("application/grpc", (16 << 20) + 1, "8"),
    ];
    for (content, bytes, status) in rows {
        let answer =
            exchange(server.connect().await, true, post("http://a/pkg.Service/Method", content, bytes)).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &content.parse().unwrap())
        );
        assert_eq!(answer.trailers.expect("gRPC has trailers")["grpc-status"], status);
        assert_eq!(answer.body.len() == bytes, status == "0");
    }
    let get = exchange(server.connect().await, true, get("http://a/pkg.Service/Method")).await;
    assert!(get.trailers.is_none(), "only POST is gRPC");
    server.stop().await;
}

#[tokio::test]
async fn websocket_echoes_and_closes() {
    let server = start(None).await;
    let url = format!("ws://{}/ws", server.address);
    let (mut socket, response) = client_async(&url, server.connect().await).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    for message in [Message::text("hé"), Message::binary(vec![0, 255]), Message::binary(vec![7; 1 << 20])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));

    let (mut large, _) = client_async(&url, server.connect().await).await.unwrap();
    large.send(Message::binary(vec![0; (1 << 20) + 1])).await.unwrap();
    assert!(
        !matches!(large.next().await, Some(Ok(Message::Binary(_)))),
        "beyond the limit nothing is echoed"
    );
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let server = start(None).await;
    let plain = exchange(server.connect().await, false, get("/ws")).await;
    assert_eq!(plain.status, StatusCode::UPGRADE_REQUIRED);
    assert_eq!(
        (&plain.headers["upgrade"], &plain.headers["sec-websocket-version"]),
        (&"websocket".parse().unwrap(), &"13".parse().unwrap())
    );
    let http2 = exchange(server.connect().await, true, get("http://a/ws")).await;
    assert_eq!((http2.status, http2.headers.get("upgrade")), (StatusCode::UPGRADE_REQUIRED, None));
    server.stop().await;
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_says_goodbye_to_websockets() {
    let server = start(None).await;
    let url = format!("ws://{}/ws", server.address);
    let (mut socket, _) = client_async(&url, server.connect().await).await.unwrap();
    socket.send(Message::text("a")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let mut open = server.connect().await;
    // Half of a body: the request is with the server, and not over.
    open.write_all(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 25];
    open.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 100 Continue\r\n\r\n");
    let idle = server.connect().await;

    let address = server.address;
    let mut tasks = JoinSet::new();
    tasks.spawn(server.stop());
    let Some(Ok(Message::Close(Some(frame)))) = timeout(PATIENCE, socket.next()).await.expect("it closes")
    else {
        panic!("no close frame");
    };
    assert_eq!(frame.code, CloseCode::Away);
    assert!(socket.next().await.is_none());
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    open.write_all(b"1234").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, open.read_to_string(&mut answer)).await.expect("it closes").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"body_bytes\":4"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    timeout(PATIENCE, tasks.join_next()).await.expect("it ends").unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn tls_speaks_both_by_alpn() {
    let folder = tempfile::tempdir().unwrap();
    let files = EchoTls { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let made = rcgen::generate_simple_self_signed(["shop.test".to_owned()]).unwrap();
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let server = start(Some(&files)).await;
    for (alpn, http2, protocol) in [("h2", true, "HTTP/2.0"), ("http/1.1", false, "HTTP/1.1")] {
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from("shop.test").unwrap();
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        let uri = if http2 { "https://shop.test/" } else { "/" };
        assert_eq!(exchange(stream, http2, get(uri)).await.asked().protocol, protocol);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_told() {
    let taken = start(None).await;
    let Err(error) = Echo::bind(taken.address, "b", None).await else { panic!("the port is taken") };
    assert!(
        matches!(error, EchoError::Bind { .. }) && error.to_string().contains("is the port taken"),
        "{error}"
    );
    let files = EchoTls { certificate: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
    let Err(error) = Echo::bind("127.0.0.1:0".parse().unwrap(), "b", Some(&files)).await else {
        panic!("no file")
    };
    assert!(error.to_string().contains("/nowhere/cert.pem"), "{error}");
    taken.stop().await;
}
