//! An engine without Envoy: a delta ADS client over mTLS that takes and accepts, or
//! does not, as a test wants. Thousands of them fit into one process.

use crate::support::live::Live;
use envoy_types::pb::envoy::{
    config::{core::v3::Node, route::v3::ScopedRouteConfiguration},
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tidegate::{
    server::{Authority, Identity, authority::Issued},
    xds::ResourceKind,
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, body::Body, client::GrpcService};

const HOUR: Duration = Duration::from_secs(3_600);
const FLEET: &str = "default";

/// The authority of a control plane under test.
#[must_use]
pub(super) fn authority(live: &Live) -> Authority {
    Authority::load(&live.state().join("trust")).expect("it has one")
}

#[must_use]
#[expect(clippy::disallowed_methods, reason = "certificates are valid from now")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// A certificate for an engine of the fleet.
#[must_use]
pub(super) fn issue(authority: &Authority, name: &str) -> Issued {
    let identity = Identity::new(FLEET, name).expect("a name");
    authority.issue_engine(&identity, HOUR, now()).expect("a certificate")
}

/// A client that shows this certificate, and believes these authorities.
#[must_use]
pub(super) fn client(issued: &Issued, authorities: &[&str]) -> Arc<ClientConfig> {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.expose().as_bytes()).expect("PEM");
    let mut roots = RootCertStore::empty();
    authorities.iter().for_each(|pem| roots.add(der(pem)).expect("a root"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots);
    let mut config =
        config.with_client_auth_cert(vec![der(&issued.certificate_pem)], key).expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// What an engine holds: name to version, a map a kind.
pub(super) type Holds = [BTreeMap<String, String>; ResourceKind::ALL.len()];

/// One stream.
pub(super) struct Engine {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
    pub(super) holds: Holds,
    /// Resources that came on this stream.
    pub(super) received: usize,
}

impl Engine {
    /// Connects, and asks for everything, saying what it holds. With a window, the
    /// server may send that many bytes until more are taken.
    pub(super) async fn connect(
        name: &str,
        client: Arc<ClientConfig>,
        to: SocketAddr,
        holds: Holds,
        window: Option<u32>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let server = ServerName::from(to.ip());
        let tls = TlsConnector::from(client).connect(server, stream).await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (sender, connection) = builder.handshake(TokioIo::new(tls)).await.map_err(io::Error::other)?;
        #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
        tokio::spawn(async move { drop(connection.await) });
        let origin = http::Uri::from_static("https://tidegate");
        let mut client = AggregatedDiscoveryServiceClient::with_origin(Channel(sender), origin);
        let (requests, receiver) = mpsc::channel(64);
        for request in first(name, &holds) {
            requests.send(request).await.map_err(io::Error::other)?;
        }
        let answers = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await;
        let answers = answers.map_err(io::Error::other)?.into_inner();
        Ok(Self { requests, answers, holds, received: 0 })
    }

    /// Takes one response and accepts it; false where the stream has ended in peace.
    pub(super) async fn take(&mut self) -> Result<bool, Status> {
        let Some(response) = self.answers.message().await? else { return Ok(false) };
        let DeltaDiscoveryResponse { type_url, nonce, resources, removed_resources, .. } = response;
        let kind = ResourceKind::from_type_url(&type_url).expect("a kind of ours");
        let mut wanted = Vec::new();
        self.received += resources.len();
        for resource in resources {
            let body = resource.resource.map(|any| any.value).unwrap_or_default();
            match kind {
                ResourceKind::Cluster => wanted.push((ResourceKind::Endpoints, resource.name.clone())),
                ResourceKind::ScopedRoute => {
                    let scope = ScopedRouteConfiguration::decode(body.as_slice()).expect("a scope");
                    wanted.push((ResourceKind::Route, scope.route_configuration_name));
                }
                _ => {}
            }
            self.holds[kind as usize].insert(resource.name, resource.version);
        }
        for name in removed_resources {
            self.holds[kind as usize].remove(&name);
        }
        self.say(DeltaDiscoveryRequest { type_url, response_nonce: nonce, ..Default::default() }).await;
        for (kind, name) in wanted {
            if !self.holds[kind as usize].contains_key(&name) {
                let resource_names_subscribe = vec![name];
                let type_url = kind.type_url().to_owned();
                self.say(DeltaDiscoveryRequest { type_url, resource_names_subscribe, ..Default::default() })
                    .await;
            }
        }
        Ok(true)
    }

    /// Takes responses until it holds so many route tables.
    pub(super) async fn take_tables(&mut self, count: usize) -> Result<(), Status> {
        while self.holds[ResourceKind::Route as usize].len() < count {
            if !self.take().await? {
                return Err(Status::unavailable("the stream ended"));
            }
        }
        Ok(())
    }

    async fn say(&self, request: DeltaDiscoveryRequest) {
        // Nobody hears it where the stream has ended, which the next response tells.
        let _ = self.requests.send(request).await;
    }
}

/// Everything of the kinds that are asked for whole, and of the others what is held.
fn first(name: &str, holds: &Holds) -> Vec<DeltaDiscoveryRequest> {
    let whole = [ResourceKind::Cluster, ResourceKind::Listener, ResourceKind::ScopedRoute];
    let kinds = ResourceKind::ALL.into_iter();
    let asked = kinds.filter(|kind| whole.contains(kind) || !holds[*kind as usize].is_empty());
    let requests = asked.map(|kind| {
        let held = &holds[kind as usize];
        let names = if whole.contains(&kind) { Vec::new() } else { held.keys().cloned().collect() };
        DeltaDiscoveryRequest {
            node: Some(Node { id: name.to_owned(), ..Default::default() }),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names,
            initial_resource_versions: held.clone().into_iter().collect(),
            ..Default::default()
        }
    });
    requests.collect()
}

/// gRPC over one connection of our own.
struct Channel(http2::SendRequest<Body>);

impl GrpcService<Body> for Channel {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<http::Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// The certificate of an authority, as it lies in a state directory.
#[must_use]
pub(super) fn certificate(trust: &Path) -> String {
    std::fs::read_to_string(trust.join(tidegate::server::authority::CERTIFICATE_FILE)).expect("it is there")
}
