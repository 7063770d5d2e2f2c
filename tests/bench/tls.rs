//! One authority, a P-256 leaf for each host, and a client that checks both.

use crate::harness::probe::{self, Answer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};
use std::{
    io::{self, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Longest wait for a handshake or an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A certificate and its key, PEM; the certificate also as TLS shows it.
pub struct Leaf {
    pub certificate: String,
    pub key: String,
    pub der: Vec<u8>,
}

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    client: Arc<ClientConfig>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Tidegate bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a P-256 key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate of our own");
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).expect("a root that was just made");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A resumed session would show no certificate.
        client.resumption = rustls::client::Resumption::disabled();
        Self { issuer, client: Arc::new(client) }
    }

    pub fn leaf(&self, host: &str) -> Leaf {
        let key = KeyPair::generate().expect("a P-256 key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a host is a DNS name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a leaf");
        Leaf { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// A new connection, one request; gives the certificate that was shown.
    pub fn get(&self, to: SocketAddr, host: &str) -> io::Result<(Answer, Vec<u8>)> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(self.client.clone(), name).map_err(io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&to, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let shown = tls.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        let mut stream = StreamOwned::new(tls, stream);
        stream.write_all(probe::request(host, "/").as_bytes())?;
        let (answer, _) = probe::read(&mut BufReader::new(stream))?;
        Ok((answer, shown.unwrap_or_default()))
    }
}
