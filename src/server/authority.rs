//! The fleet's own small certificate authority: what servers and engines prove
//! themselves with to each other.

use super::node::{Identity, TRUST_DOMAIN};
use crate::{
    base::Secret,
    failpoint,
    whole::{self, Readers},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    fs::{self, DirBuilder},
    io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// File of the authority's certificate, PEM; others to be believed may follow it.
pub const CERTIFICATE_FILE: &str = "ca.crt";
/// File of its private key, PEM, readable by its owner alone.
pub const KEY_FILE: &str = "ca.key";

/// How long an authority is valid: ten years; its fleet is young, its key stays home.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A certificate is valid from this long before now: clocks differ.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Signs for one installation.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// The key does not print.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate alone: the authority is known to whoever checks it.
    pub certificate_pem: String,
    pub key_pem: Secret<String>,
}

/// What can go wrong with an authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{path}: {source}; check that the directory is there and is ours alone")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{0} does not hold what an authority needs; restore it, or remove both files and let every engine join anew"
    )]
    Broken(PathBuf),
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Authority {
    /// A new authority in a new or empty directory (mode 0700; files 0600).
    /// Never replaces one: its certificate must not be there. A key alone is what a
    /// crash in between left; it is used.
    pub fn create(dir: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
        let key_path = dir.join(KEY_FILE);
        let key = match fs::read_to_string(&key_path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|_| AuthorityError::Broken(key_path))?,
            Err(_) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                // The key first: a certificate without its key would look whole to a reader.
                write_new(&key_path, key.serialize_pem().as_bytes())?;
                failpoint::pass("authority.key");
                key
            }
        };
        let mut params = params();
        valid(&mut params, now, AUTHORITY_LIFETIME);
        let certificate_pem = params.self_signed(&key)?.pem();
        write_new(&dir.join(CERTIFICATE_FILE), certificate_pem.as_bytes())?;
        failpoint::pass("authority.certificate");
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    /// The authority that [`Authority::create`] left in `dir`.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let (key_path, path) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
        let key_pem = fs::read_to_string(&key_path).map_err(at(&key_path))?;
        let certificate_pem = fs::read_to_string(&path).map_err(at(&path))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| AuthorityError::Broken(key_path))?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| AuthorityError::Broken(path.clone()))?;
        let ours = x509_parser::parse_x509_certificate(&der)
            .is_ok_and(|(_, read)| read.public_key().raw == key.subject_public_key_info());
        if !ours {
            return Err(AuthorityError::Broken(path));
        }
        Ok(Self { issuer: Issuer::new(params(), key), certificate_pem })
    }

    /// What engines and servers check each other against: our own certificate, and
    /// those behind it in the file (an authority that is about to go, or to come).
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for the xDS server under these names and addresses.
    pub fn issue_server(
        &self,
        names: &[&str],
        addresses: &[IpAddr],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let names = names.iter().map(|name| Ok(SanType::DnsName((*name).try_into()?)));
        let addresses = addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
        let names = names.chain(addresses).collect::<Result<_, rcgen::Error>>()?;
        self.issue("server", names, ExtendedKeyUsagePurpose::ServerAuth, lifetime, now)
    }

    /// A certificate for an engine; keep it short (a day) and renew it at half.
    pub fn issue_engine(
        &self,
        engine: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let names = vec![SanType::URI(engine.uri().try_into()?)];
        self.issue(&engine.engine, names, ExtendedKeyUsagePurpose::ClientAuth, lifetime, now)
    }

    /// A certificate for an engine that made its own key: `request` is a PKCS #10
    /// request (DER), of which only the key is taken.
    pub fn sign_engine(
        &self,
        engine: &Identity,
        request: &[u8],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&request.into())?;
        let names = vec![SanType::URI(engine.uri().try_into()?)];
        let params = leaf(&engine.engine, names, ExtendedKeyUsagePurpose::ClientAuth, lifetime, now);
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }

    /// TLS 1.2 and 1.3 with a client certificate of this authority, mandatory.
    pub fn server_config(&self, server: &Issued) -> Result<Arc<ServerConfig>, AuthorityError> {
        let broken = || AuthorityError::Tls(rustls::Error::General("unreadable PEM".to_owned()));
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| broken());
        let key = PrivateKeyDer::from_pem_slice(server.key_pem.expose().as_bytes()).map_err(|_| broken())?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()) {
            roots.add(authority.map_err(|_| broken())?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![der(&server.certificate_pem)?], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn issue(
        &self,
        subject: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = leaf(subject, names, usage, lifetime, now);
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate_pem, key_pem: Secret::new(key.serialize_pem()) })
    }
}

/// A new key and the request (PKCS #10, DER) to have it signed.
pub fn request() -> Result<(Vec<u8>, Secret<String>), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((request.der().to_vec(), Secret::new(key.serialize_pem())))
}

/// From when to when the first certificate of a PEM text is valid, Unix seconds.
#[must_use]
pub fn validity(pem: &[u8]) -> Option<(i64, i64)> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn leaf(
    subject: &str,
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    lifetime: Duration,
    now: SystemTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, lifetime);
    params
}

/// Fixed, so that an authority read back signs in the same name.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{TRUST_DOMAIN} fleet authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn valid(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = (now - SKEW).into();
    params.not_after = (now + lifetime).into();
}

/// Of the owner alone, and never in the place of another.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    whole::create(path, Readers::Owner, bytes).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::UnixTime;
    use std::os::unix::fs::PermissionsExt;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn is_read_back_and_signs_in_the_same_name() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("ca");
        let made = Authority::create(&dir, now()).expect("an authority");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(
            (mode(&dir), mode(&dir.join(KEY_FILE)), mode(&dir.join(CERTIFICATE_FILE))),
            (0o700, 0o600, 0o600)
        );
        assert!(Authority::create(&dir, now()).is_err(), "an authority is never replaced");

        let read = Authority::load(&dir).expect("the authority");
        assert_eq!(read.certificate_pem(), made.certificate_pem());
        let engine = Identity::new("edge", "e1").expect("a name");
        let issued = read.issue_engine(&engine, Duration::from_secs(3600), now()).expect("a certificate");
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
        assert_eq!(Identity::of_certificate(&der), Ok(engine));
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(made.certificate_pem().as_bytes()).expect("PEM");
        roots.add(ca).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().expect("a verifier");
        let at = |time: SystemTime| {
            UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"))
        };
        verifier.verify_client_cert(&der, &[], at(now())).expect("the old authority signed it");
        let late = now() + Duration::from_secs(3601);
        assert!(verifier.verify_client_cert(&der, &[], at(late)).is_err(), "it is short");
        assert!(!format!("{issued:?} {read:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        Authority::create(a.path(), now()).expect("an authority");
        Authority::create(b.path(), now()).expect("an authority");
        fs::copy(b.path().join(KEY_FILE), a.path().join(KEY_FILE)).expect("copied");
        assert!(matches!(Authority::load(a.path()), Err(AuthorityError::Broken(_))));
    }

    /// A crash between the two files leaves the key alone.
    #[test]
    fn a_key_without_its_certificate_is_used() {
        let home = tempfile::tempdir().expect("a directory");
        Authority::create(home.path(), now()).expect("an authority");
        let key = fs::read(home.path().join(KEY_FILE)).expect("a key");
        fs::remove_file(home.path().join(CERTIFICATE_FILE)).expect("removed");
        Authority::create(home.path(), now()).expect("the authority");
        assert_eq!(fs::read(home.path().join(KEY_FILE)).expect("a key"), key);
        Authority::load(home.path()).expect("whole");
    }

    #[test]
    fn a_server_certificate_names_no_engine() {
        let home = tempfile::tempdir().expect("a directory");
        let authority = Authority::create(home.path(), now()).expect("an authority");
        let issued = authority
            .issue_server(&["localhost"], &[[127, 0, 0, 1].into()], Duration::from_secs(3600), now())
            .expect("a certificate");
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
        assert!(Identity::of_certificate(&der).is_err());
        authority.server_config(&issued).expect("a configuration");
    }
}
