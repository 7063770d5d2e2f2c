//! The fleet's authority and the certificates it has issued, under `STATE/trust`.

use super::{AppError, FLEET, file};
use crate::{
    clock,
    engine::EngineFiles,
    server::{
        Authority, Identity, Renewal,
        authority::{CERTIFICATE_FILE, Issued, validity},
    },
};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
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

    /// The files of an engine beside us, made where they are not there yet, or half over.
    pub(super) fn engine(&self, name: &str) -> Result<EngineFiles, AppError> {
        let folder = self.directory.join("engines").join(name);
        let files = EngineFiles::within(&folder);
        let known = fs::read(&files.certificate).ok().and_then(|pem| validity(&pem));
        if known.is_none_or(|(from, to)| from.midpoint(to) <= clock::now_unix()) {
            // What is not there is removed.
            let _ = fs::remove_file(&files.certificate);
        }
        issue(&self.authority, &self.directory, &folder, name, ENGINE_LIFETIME)
    }
}

/// Issues the certificate of an engine that will run elsewhere, into `folder`.
///
/// # Errors
/// The state directory has no authority and none can be made, or files cannot be written.
pub fn issue_engine(state: &Path, folder: &Path, name: &str) -> Result<EngineFiles, AppError> {
    let (authority, directory) = authority(state)?;
    issue(&authority, &directory, folder, name, ENVOY_LIFETIME)
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
    directory: &Path,
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
        write(&files.key, key_pem.expose())?;
        write(&files.certificate, &certificate_pem)?;
        let ca = fs::read_to_string(directory.join(CERTIFICATE_FILE)).map_err(file(directory))?;
        write(&files.authorities, &ca)?;
    }
    Ok(files)
}

/// Of the owner alone.
fn write(path: &Path, text: &str) -> Result<(), AppError> {
    let mut options = fs::OpenOptions::new();
    let open = options.create(true).truncate(true).write(true).mode(0o600).open(path);
    open.and_then(|mut to| to.write_all(text.as_bytes())).map_err(file(path))
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(clock::now_unix()).unwrap_or(0))
}
