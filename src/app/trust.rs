//! The fleet's authority and the certificates it has issued, under `STATE/trust`.

use super::{AppError, FLEET, file};
use crate::{
    clock,
    engine::EngineFiles,
    server::{
        Authority, Identity,
        authority::{CERTIFICATE_FILE, Issued},
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
/// Envoy reads its certificate once, when it starts: it must outlive that Envoy.
const ENGINE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The authority, loaded or made.
pub(super) struct Trust {
    authority: Authority,
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
        Ok(Self { authority, directory, server })
    }

    pub(super) fn server_config(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.server)
    }

    /// The files of an engine, made where they are not there yet: an engine that
    /// runs on must find the certificate it began with.
    pub(super) fn engine(&self, name: &str) -> Result<EngineFiles, AppError> {
        issue(&self.authority, &self.directory, &self.directory.join("engines").join(name), name)
    }
}

/// Issues the certificate of an engine that will run elsewhere, into `folder`.
///
/// # Errors
/// The state directory has no authority and none can be made, or files cannot be written.
pub fn issue_engine(state: &Path, folder: &Path, name: &str) -> Result<EngineFiles, AppError> {
    let (authority, directory) = authority(state)?;
    issue(&authority, &directory, folder, name)
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
) -> Result<EngineFiles, AppError> {
    let identity = Identity::new(FLEET, name).ok_or_else(|| {
        AppError::Module(format!("'{}' cannot be the name of an engine", name.escape_debug()))
    })?;
    fs::create_dir_all(folder).map_err(file(folder))?;
    let files = EngineFiles::within(folder);
    if !(files.certificate.exists() && files.key.exists() && files.authorities.exists()) {
        let Issued { certificate_pem, key_pem } =
            authority.issue_engine(&identity, ENGINE_LIFETIME, now())?;
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
