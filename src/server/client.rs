//! The other end: a delta ADS stream to a control plane, for an engine's relay.

use super::{
    authority,
    relay::{RENEW, RenewRequest, RenewResponse},
};
use crate::base::{Secret, chain};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// All scopes of 100,000 hosts come in one response, 20 MiB.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// A connection to nowhere is noticed after 10 + 3 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// For name resolution, TCP and TLS together.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Requests between a relay and its socket.
const REQUEST_QUEUE_MAX: usize = 64;

/// What a client proves itself with and whom it believes, PEM.
#[derive(Debug)]
pub struct Credentials {
    pub certificate: Vec<u8>,
    pub key: Secret<Vec<u8>>,
    /// One or more: while an authority is replaced, the old and the new.
    pub authorities: Vec<u8>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0} is unreadable")]
    Pem(&'static str),
    #[error("'{0}' is no name or address that a certificate may hold")]
    ServerName(String),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("no answer within 5 s")]
    Timeout,
    #[error("{0}")]
    Transport(String),
}

/// Both directions of one stream.
#[derive(Debug)]
pub struct Client {
    pub requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub responses: Streaming<DeltaDiscoveryResponse>,
    channel: Channel,
}

impl Client {
    /// Connects to `address` (`HOST:PORT`), whose certificate has to name `server_name`,
    /// and opens a stream.
    ///
    /// # Errors
    /// Nobody there, or not the one we look for, or not within 5 s.
    pub async fn connect(
        address: &str,
        server_name: &str,
        credentials: &Credentials,
    ) -> Result<Self, ConnectError> {
        let connect = Self::open(address, server_name, credentials);
        timeout(CONNECT_MAX, connect).await.map_err(|_| ConnectError::Timeout)?
    }

    async fn open(address: &str, server_name: &str, credentials: &Credentials) -> Result<Self, ConnectError> {
        let tls = TlsConnector::from(Arc::new(client_config(credentials)?));
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| ConnectError::ServerName(server_name.to_owned()))?;
        let to = address.to_owned();
        let connector = tower::service_fn(move |_| {
            let (tls, name, to) = (tls.clone(), name.clone(), to.clone());
            async move {
                let tcp = TcpStream::connect(to).await?;
                tcp.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
            }
        });
        let channel = Endpoint::from_static("http://control-plane")
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| ConnectError::Transport(chain(&error)))?;
        let (requests, receiver) = mpsc::channel(REQUEST_QUEUE_MAX);
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone())
            .max_decoding_message_size(RESPONSE_BYTES_MAX);
        let responses = client
            .delta_aggregated_resources(ReceiverStream::new(receiver))
            .await
            .map_err(|status| ConnectError::Transport(status.message().to_owned()))?;
        Ok(Self { requests, responses: responses.into_inner(), channel })
    }

    /// Has a new key signed, under the name that this connection has.
    ///
    /// # Errors
    /// It is refused, or not answered within 5 s.
    pub async fn renew(&self) -> Result<Credentials, ConnectError> {
        let failed = |error: &dyn std::error::Error| ConnectError::Transport(chain(error));
        let (request, key) = authority::request().map_err(|error| failed(&error))?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        let renew = async {
            grpc.ready().await.map_err(|error| failed(&error))?;
            let request = tonic::Request::new(RenewRequest { request });
            let path = http::uri::PathAndQuery::from_static(RENEW);
            let answer = grpc.unary(request, path, ProstCodec::<_, RenewResponse>::default()).await;
            answer.map_err(|status| ConnectError::Transport(status.message().to_owned()))
        };
        let answer = timeout(CONNECT_MAX, renew).await.map_err(|_| ConnectError::Timeout)??;
        let RenewResponse { certificate, authorities } = answer.into_inner();
        Ok(Credentials {
            certificate: certificate.into_bytes(),
            key: Secret::new(key.expose().clone().into_bytes()),
            authorities: authorities.into_bytes(),
        })
    }
}

fn client_config(credentials: &Credentials) -> Result<ClientConfig, ConnectError> {
    let Credentials { certificate, key, authorities } = credentials;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        roots.add(authority.map_err(|_| ConnectError::Pem("the authorities' file"))?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| ConnectError::Pem("the engine's certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|_| ConnectError::Pem("the engine's private key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
