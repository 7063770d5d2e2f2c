//! Engines that take everything and keep nothing: what Envoy asks for, in its
//! order, each response acknowledged at once, bodies dropped.

use crate::harness::manifests;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};
use tidegate::{
    app::FLEET,
    server::{Authority, Identity},
    xds::ResourceKind,
};
use tokio::{net::TcpStream, sync::mpsc as channel, task::JoinSet};
use tokio_rustls::TlsConnector;

const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Nothing takes so long.
const WAIT_MAX: Duration = Duration::from_secs(120);
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// As Envoy's windows: 256 MiB are never the brake.
const WINDOW_BYTES: u32 = 256 << 20;
/// Of a gRPC message on the wire: a flag and its length.
const PREFIX_BYTES: usize = 5;

/// All engines of a fleet, on a thread of their own.
pub(super) struct Crowd {
    engines: usize,
    told: mpsc::Receiver<Told>,
}

/// What an engine has to say.
enum Told {
    /// It has all hosts.
    Whole,
    /// It took, and acknowledged, this route table.
    Changed {
        table: String,
        received: Instant,
        acknowledged: Instant,
    },
    Ended(String),
}

/// A change, at the first engine that received it and the last to acknowledge it.
pub(super) struct Seen {
    pub(super) received: Instant,
    pub(super) acknowledged: Instant,
}

impl Crowd {
    /// Certificates are made first: they are none of the control plane's work.
    pub(super) fn connect(to: SocketAddr, state: &Path, engines: usize, hosts: usize) -> Self {
        let authority = Authority::load(&state.join("trust")).expect("the site made an authority");
        let (sender, told) = mpsc::channel();
        let names = (0..engines).map(|k| format!("simulated-{k}"));
        let all: Vec<Engine> =
            names.map(|name| Engine::new(&authority, name, hosts, sender.clone())).collect();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let mut streams = JoinSet::new();
                for engine in all {
                    streams.spawn(engine.run(to));
                }
                while streams.join_next().await.is_some() {}
            });
        });
        Self { engines, told }
    }

    pub(super) fn wait_whole(&self) {
        let mut left = self.engines;
        while left > 0 {
            match self.next() {
                Told::Whole => left -= 1,
                Told::Changed { .. } => {}
                Told::Ended(why) => panic!("an engine's stream ended: {why}"),
            }
        }
    }

    /// Waits until every engine has taken the new table of this host.
    pub(super) fn wait_changed(&self, number: usize) -> Seen {
        let host = manifests::host(number);
        let (mut left, mut seen) = (self.engines, None::<Seen>);
        while left > 0 {
            match self.next() {
                Told::Changed { table, received, acknowledged } if table.ends_with(&host) => {
                    left -= 1;
                    seen = Some(match seen {
                        None => Seen { received, acknowledged },
                        Some(seen) => Seen {
                            received: seen.received.min(received),
                            acknowledged: seen.acknowledged.max(acknowledged),
                        },
                    });
                }
                Told::Changed { .. } | Told::Whole => {}
                Told::Ended(why) => panic!("an engine's stream ended: {why}"),
            }
        }
        seen.expect("a fleet has engines")
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(WAIT_MAX).expect("engines go on")
    }
}

/// One engine before it connects.
struct Engine {
    name: String,
    hosts: usize,
    tls: ClientConfig,
    told: mpsc::Sender<Told>,
}

impl Engine {
    fn new(authority: &Authority, name: String, hosts: usize, told: mpsc::Sender<Told>) -> Self {
        let identity = Identity::new(FLEET, &name).expect("a name of letters and digits");
        let issued = authority.issue_engine(&identity, LIFETIME, SystemTime::now()).expect("a certificate");
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.expose().as_bytes()).expect("PEM");
        let mut roots = RootCertStore::empty();
        roots.add(certificate(authority.certificate_pem())).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate(&issued.certificate_pem)], key)
            .expect("a key of its certificate");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self { name, hosts, tls, told }
    }

    async fn run(self, to: SocketAddr) {
        let told = self.told.clone();
        if let Err(why) = self.converse(to).await {
            // Nobody listens any more when the measurement is over.
            let _ = told.send(Told::Ended(why.to_string()));
        }
    }

    async fn converse(self, to: SocketAddr) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Self { name, hosts, tls, told } = self;
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let server = ServerName::from(to.ip());
        let tls = TlsConnector::from(Arc::new(tls)).connect(server, tcp).await?;
        let (mut http, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(tls))
            .await?;
        tokio::spawn(connection);
        let (requests, body) = channel::unbounded_channel();
        let frames = stream::unfold(body, async |mut body: channel::UnboundedReceiver<Bytes>| {
            let frame = Ok::<_, Infallible>(Frame::data(body.recv().await?));
            Some((frame, body))
        });
        let request = http::Request::post(format!("https://{to}{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(StreamBody::new(Box::pin(frames)))?;
        let mut stream =
            Stream { requests, told, hosts, clusters: 0, endpoints: 0, scopes: 0, tables: 0, whole: false };
        stream.introduce(name);
        let answer = http.send_request(request).await?;
        stream.read(answer.into_body()).await
    }
}

/// One stream and what has come over it.
struct Stream {
    requests: channel::UnboundedSender<Bytes>,
    told: mpsc::Sender<Told>,
    hosts: usize,
    clusters: usize,
    endpoints: usize,
    scopes: usize,
    tables: usize,
    whole: bool,
}

impl Stream {
    async fn read(&mut self, mut body: Incoming) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            if let Some(trailers) = frame.trailers_ref() {
                return Err(format!("{trailers:?}").into());
            }
            if let Ok(data) = frame.into_data() {
                buffer.extend_from_slice(&data);
            }
            while let Some(message) = message(&mut buffer) {
                self.take(Response::decode(message)?);
            }
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
    }

    /// Clusters come first, for all; the rest follows what came.
    fn introduce(&self, name: String) {
        let node = Some(Node { id: name, cluster: FLEET.to_owned(), ..Node::default() });
        let type_url = ResourceKind::Cluster.type_url().to_owned();
        self.send(&DeltaDiscoveryRequest { node, type_url, ..DeltaDiscoveryRequest::default() });
    }

    fn take(&mut self, response: Response) {
        let received = Instant::now();
        let Response { resources, type_url, nonce } = response;
        let Some(kind) = ResourceKind::from_type_url(&type_url) else { return };
        match kind {
            ResourceKind::Cluster => self.clusters_came(&resources),
            ResourceKind::Endpoints => self.endpoints += resources.len(),
            ResourceKind::ScopedRoute => self.scopes_came(&resources),
            ResourceKind::Route => self.tables += resources.len(),
            ResourceKind::Listener | ResourceKind::Secret => {}
        }
        let acknowledged =
            DeltaDiscoveryRequest { type_url, response_nonce: nonce, ..DeltaDiscoveryRequest::default() };
        self.send(&acknowledged);
        let acknowledged = Instant::now();
        let has_all =
            self.scopes >= self.hosts && self.tables >= self.hosts && self.endpoints >= self.clusters;
        if has_all && !self.whole {
            self.whole = true;
            let _ = self.told.send(Told::Whole);
        } else if self.whole && kind == ResourceKind::Route {
            for Item { name, .. } in resources {
                let _ = self.told.send(Told::Changed { table: name, received, acknowledged });
            }
        }
    }

    fn clusters_came(&mut self, clusters: &[Item]) {
        // Envoy asks for listeners when its first clusters are ready, and for
        // scopes when it has a listener that finds routes by them.
        if self.clusters == 0 {
            self.subscribe(ResourceKind::Listener, Vec::new());
            self.subscribe(ResourceKind::ScopedRoute, Vec::new());
        }
        self.clusters += clusters.len();
        let names: Vec<_> = clusters.iter().map(|cluster| cluster.name.clone()).collect();
        if !names.is_empty() {
            self.subscribe(ResourceKind::Endpoints, names);
        }
    }

    fn scopes_came(&mut self, scopes: &[Item]) {
        self.scopes += scopes.len();
        let table = |item: &Item| Some(Scope::decode(item.resource.as_ref()?.value.clone()).ok()?.table);
        let tables: Vec<_> = scopes.iter().filter_map(table).collect();
        if !tables.is_empty() {
            self.subscribe(ResourceKind::Route, tables);
        }
    }

    fn subscribe(&self, kind: ResourceKind, names: Vec<String>) {
        let type_url = kind.type_url().to_owned();
        self.send(&DeltaDiscoveryRequest {
            type_url,
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        });
    }

    fn send(&self, request: &DeltaDiscoveryRequest) {
        let length = request.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length).expect("a request is small"));
        request.encode(&mut bytes).expect("there is room");
        // A stream that ended tells its reader.
        let _ = self.requests.send(bytes.freeze());
    }
}

/// The next gRPC message, when all of it is there.
fn message(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*buffer.get(1..PREFIX_BYTES)?.first_chunk()?) as usize;
    if buffer.len() < PREFIX_BYTES + length {
        return None;
    }
    buffer.advance(PREFIX_BYTES);
    Some(buffer.split_to(length).freeze())
}

// What is looked at of `DeltaDiscoveryResponse`; the rest is passed over.

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Item>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(message, optional, tag = "2")]
    resource: Option<Body>,
    #[prost(string, tag = "3")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `ScopedRouteConfiguration`
#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "2")]
    table: String,
}
