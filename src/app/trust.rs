//! The fleet's authority and the certificates it has issued, under `STATE/trust`.

use super::{AppError, FLEET, file};
use crate::{
    clock,
    engine::EngineFiles,
    server::{
        Authority, Identity, Renewal,
        authority::{CERTIFICATE_FILE, Issued, validity},
    },
    whole::{self, Readers},
};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The server's certificate is made anew at each start.
const SERVER_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// An engine renews its certificate at half of this. Longer than a control plane may
/// be away: an engine whose certificate is over has to be given another by hand.
const ENGINE_LIFETIME: Duration = Duration::from_secs(14 * 24 * 3600);
/// A bare Envoy reads its certificate once, when it starts: it must outlive that Envoy.
const ENVOY_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The authority, loaded or made.
pub(super) struct Trust {
    authority: Arc<Authority>,
    directory: PathBuf,
    server: Arc<ArcSwap<ServerConfig>>,
}

impl Trust {
    /// Loads the authority of a state directory, or makes it.
    pub(super) fn open(state: &Path, at: SocketAddr, names: &[String]) -> Result<Self, AppError> {
        let (authority, directory) = authority(state)?;
        let names: Vec<_> = names.iter().map(String::as_str).chain(["localhost"]).collect();
        let issued = authority.issue_server(&names, &[at.ip()], SERVER_LIFETIME, now())?;
        let server = Arc::new(ArcSwap::from(authority.server_config(&issued)?));
        Ok(Self { authority: Arc::new(authority), directory, server })
    }

    pub(super) fn server_config(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.server)
    }

    /// How engines get their next certificates.
    pub(super) fn renewal(&self) -> Renewal {
        Renewal { authority: Arc::clone(&self.authority), lifetime: ENGINE_LIFETIME, now }
    }

    /// The files of an engine beside us, made where they are not there yet, or half over,
    /// or where others are believed since: an authority that signs anew has to be known
    /// to engines before they next connect.
    pub(super) fn engine(&self, name: &str) -> Result<EngineFiles, AppError> {
        let folder = self.directory.join("engines").join(name);
        let files = EngineFiles::within(&folder);
        let known = fs::read(&files.certificate).ok().and_then(|pem| validity(&pem));
        let over = known.is_none_or(|(from, to)| from.midpoint(to) <= clock::now_unix());
        let believed = fs::read_to_string(&files.authorities).ok();
        if over || believed.as_deref() != Some(self.authority.certificate_pem()) {
            remove(&files.certificate)?;
        }
        issue(&self.authority, &folder, name, ENGINE_LIFETIME)
    }
}

/// Issues the certificate of an engine that will run elsewhere, into `folder`.
///
/// # Errors
/// The state directory has no authority and none can be made, or files cannot be written.
pub fn issue_engine(state: &Path, folder: &Path, name: &str) -> Result<EngineFiles, AppError> {
    let (authority, _) = authority(state)?;
    issue(&authority, folder, name, ENVOY_LIFETIME)
}

fn authority(state: &Path) -> Result<(Authority, PathBuf), AppError> {
    let directory = state.join("trust");
    let authority = if directory.join(CERTIFICATE_FILE).exists() {
        Authority::load(&directory)?
    } else {
        Authority::create(&directory, now())?
    };
    Ok((authority, directory))
}

fn issue(
    authority: &Authority,
    folder: &Path,
    name: &str,
    lifetime: Duration,
) -> Result<EngineFiles, AppError> {
    let identity = Identity::new(FLEET, name).ok_or_else(|| {
        AppError::Module(format!("'{}' cannot be the name of an engine", name.escape_debug()))
    })?;
    fs::create_dir_all(folder).map_err(file(folder))?;
    let files = EngineFiles::within(folder);
    if !(files.certificate.exists() && files.key.exists() && files.authorities.exists()) {
        let Issued { certificate_pem, key_pem } = authority.issue_engine(&identity, lifetime, now())?;
        // Away first and back last: a certificate that is there fits the key beside it.
        remove(&files.certificate)?;
        write(&files.key, key_pem.expose())?;
        write(&files.authorities, authority.certificate_pem())?;
        write(&files.certificate, &certificate_pem)?;
    }
    Ok(files)
}

/// Nothing to do where it is not there.
fn remove(path: &Path) -> Result<(), AppError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Of the owner alone.
fn write(path: &Path, text: &str) -> Result<(), AppError> {
    whole::replace(path, Readers::Owner, text.as_bytes()).map_err(file(path))
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(clock::now_unix()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    use std::os::unix::fs::PermissionsExt;

    /// Whether they are a set, as TLS sees it, and of the owner alone.
    fn check(files: &EngineFiles) {
        let EngineFiles { certificate, key, authorities } = files;
        for path in [certificate, key, authorities] {
            let mode = fs::metadata(path).expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(RootCertStore::empty());
        let certificate = CertificateDer::from_pem_file(certificate).expect("PEM");
        let key = PrivateKeyDer::from_pem_file(key).expect("PEM");
        config.with_client_auth_cert(vec![certificate], key).expect("the key of the certificate");
    }

    /// Whatever a crash, or a hand, left of the files of an engine.
    #[test]
    fn files_of_an_engine_are_made_as_a_set() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("e1");
        let issue = || issue_engine(home.path(), &folder, "e1").expect("issued");
        let files = issue();
        check(&files);
        let text = |path: &Path| fs::read_to_string(path).expect("a file");
        let first = text(&files.certificate);
        issue();
        assert_eq!(text(&files.certificate), first, "what is whole stays");
        for missing in [&files.certificate, &files.key, &files.authorities] {
            let before = text(&files.key);
            fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).expect("ours");
            fs::remove_file(missing).expect("it was there");
            issue();
            check(&files);
            assert_ne!(text(&files.key), before, "another key, in a file of the owner alone");
        }
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 3, "nothing else is left there");
    }

    /// The key is new, and then nothing could be written any more: there is no certificate
    /// of the key before it.
    #[test]
    fn a_set_that_is_cut_short_has_no_certificate() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("e1");
        let files = issue_engine(home.path(), &folder, "e1").expect("issued");
        fs::remove_file(&files.authorities).expect("it was there");
        fs::create_dir(&files.authorities).expect("in its place");
        fs::remove_file(&files.key).expect("it was there");
        issue_engine(home.path(), &folder, "e1").expect_err("a folder is in the way");
        assert!(!files.certificate.exists());
        fs::remove_dir(&files.authorities).expect("ours");
        check(&issue_engine(home.path(), &folder, "e1").expect("issued"));
    }
}
