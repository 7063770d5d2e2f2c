//! The shell around the sessions: which calls are served, and to whom.

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DiscoveryRequest,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use std::{sync::Arc, time::Duration, time::SystemTime};
use tidegate::{
    server::{Authority, Door, Handle, Identity, Server},
    xds::{ResourceKind, Update},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
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
async fn a_stream_is_answered_after_the_first_publish() {
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
async fn a_node_must_be_who_it_is() {
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
async fn nobody_comes_in_without_a_certificate() {
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
