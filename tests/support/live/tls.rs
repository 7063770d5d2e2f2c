//! Certificates of a test authority, and a TLS client that tells what it was served.

use super::client::{self, Answer, Connection, Request};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, OnceLock},
};

/// Signs the certificates of tests.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

impl Authority {
    /// The one of all tests of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Tidegate test authority");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(params(names))
    }

    /// One that has expired long ago.
    #[must_use]
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        let mut params = params(names);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.0).expect("a certificate");
        Issued { certificate: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("names of a certificate")
}

impl Issued {
    /// A server that shows it.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let mut config = config.with_single_cert(vec![self.der.clone()], key).expect("a certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// How a client verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The test authority, and the name that it asked for.
    Verified,
    /// Takes anything: for looking at what is served.
    Anything,
}

#[must_use]
pub fn client_config(trust: Trust, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(Authority::shared().0.der().clone()).expect("an authority");
    let roots = Arc::new(roots);
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config =
        config.expect("versions").with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
    if trust == Trust::Anything {
        let real = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        let anyone = Anyone(real.expect("a verifier"));
        config.dangerous().set_certificate_verifier(Arc::new(anyone));
    }
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// The server name of a handshake; with none, no SNI is sent.
#[must_use]
pub fn server_name(sni: Option<&str>) -> ServerName<'static> {
    match sni {
        Some(name) => ServerName::try_from(name.to_owned()).expect("a name"),
        None => ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST)),
    }
}

pub type TlsConnection = Connection<StreamOwned<ClientConnection, TcpStream>>;

/// A connection over TLS, HTTP/1.1 on it, and the certificate that was served.
pub fn connect(
    at: SocketAddr,
    sni: Option<&str>,
    trust: Trust,
) -> io::Result<(TlsConnection, CertificateDer<'static>)> {
    let config = Arc::new(client_config(trust, &["http/1.1"]));
    let mut tls = ClientConnection::new(config, server_name(sni)).map_err(io::Error::other)?;
    let mut socket = client::connect(at)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    let served = tls.peer_certificates().and_then(|chain| chain.first()).cloned();
    let served = served.ok_or_else(|| io::Error::other("no certificate was served"))?;
    Ok((Connection::new(StreamOwned::new(tls, socket)), served))
}

/// One verified request; the SNI is the host.
pub fn send(at: SocketAddr, request: &Request) -> io::Result<Answer> {
    let sni = request.host.split(':').next();
    connect(at, sni, Trust::Verified)?.0.send(request)
}

/// One request with this SNI, whatever certificate is served.
#[track_caller]
pub fn must(at: SocketAddr, sni: Option<&str>, request: &Request) -> Answer {
    let sent = connect(at, sni, Trust::Anything).and_then(|(mut connection, _)| connection.send(request));
    sent.unwrap_or_else(|why| panic!("{} with SNI {sni:?} at {at}: {why}", request.show()))
}

/// The certificate that is served for this SNI.
pub fn served(at: SocketAddr, sni: Option<&str>) -> io::Result<CertificateDer<'static>> {
    connect(at, sni, Trust::Anything).map(|(_, served)| served)
}

/// Believes everybody, but still checks that they hold the key.
#[derive(Debug)]
struct Anyone(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
