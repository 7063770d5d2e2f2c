//! What an engine proves itself with: the files it was given, and what replaced
//! them since.

use crate::{
    base::Secret,
    server::{Credentials, authority::validity},
    whole::{self, Readers},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The files an engine is given, PEM.
#[derive(Debug, Clone)]
pub struct EngineFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authorities: PathBuf,
}

impl EngineFiles {
    /// The files of an engine in its folder.
    #[must_use]
    pub fn within(folder: &Path) -> Self {
        Self {
            certificate: folder.join("engine.crt"),
            key: folder.join("engine.key"),
            authorities: folder.join("ca.crt"),
        }
    }

    fn read(&self) -> Result<Credentials, IdentityError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
        };
        Ok(Credentials {
            certificate: read(&self.certificate)?,
            key: Secret::new(read(&self.key)?),
            authorities: read(&self.authorities)?,
        })
    }
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {source}; `tidegate bootstrap` makes the files of an engine")]
    File { path: PathBuf, source: io::Error },
}

/// See the module. Read for each connection: what replaces a file takes effect.
#[derive(Debug, Clone)]
pub struct Identity {
    pub given: EngineFiles,
    /// Where a renewed certificate is kept, with its key and the authorities, in
    /// one file: half of it would be none.
    pub renewed: PathBuf,
}

impl Identity {
    /// The newest that is valid now.
    ///
    /// # Errors
    /// None is valid, and the files that were given cannot be read.
    pub fn credentials(&self, now: i64) -> Result<Credentials, IdentityError> {
        let issued = |known: &Credentials| {
            let (from, to) = validity(&known.certificate)?;
            (from <= now && now < to).then_some(from)
        };
        let renewed = std::fs::read(&self.renewed).ok().and_then(|text| parts(&text));
        let renewed = renewed.filter(|known| issued(known).is_some());
        match (renewed, self.given.read()) {
            (Some(renewed), Ok(given)) => Ok(if issued(&given) > issued(&renewed) { given } else { renewed }),
            (Some(renewed), Err(_)) => Ok(renewed),
            (None, given) => given,
        }
    }

    /// Keeps what was renewed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, renewed: &Credentials) -> Result<(), IdentityError> {
        let Credentials { certificate, key, authorities } = renewed;
        let text = [certificate.as_slice(), key.expose(), authorities].concat();
        whole::replace(&self.renewed, Readers::Owner, &text)
            .map_err(|source| IdentityError::File { path: self.renewed.clone(), source })
    }
}

/// Takes apart what [`Identity::keep`] wrote.
fn parts(text: &[u8]) -> Option<Credentials> {
    let text = std::str::from_utf8(text).ok()?;
    let end = text.find("-----END CERTIFICATE-----")? + "-----END CERTIFICATE-----\n".len();
    let (certificate, rest) = text.split_at_checked(end)?;
    let (key, authorities) = rest.split_at_checked(rest.find("-----BEGIN CERTIFICATE-----")?)?;
    let known = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).is_ok();
    (known(certificate) && known(authorities) && key.contains("PRIVATE KEY")).then(|| Credentials {
        certificate: certificate.as_bytes().to_vec(),
        key: Secret::new(key.as_bytes().to_vec()),
        authorities: authorities.as_bytes().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{self, Authority, authority};
    use std::time::{Duration, SystemTime};

    const NOW: i64 = 1_800_000_000;

    fn at(unix: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(unix.unsigned_abs())
    }

    #[test]
    fn the_newest_that_is_valid_is_shown() {
        let home = tempfile::tempdir().expect("a folder");
        let authority = Authority::create(&home.path().join("ca"), at(NOW)).expect("an authority");
        let engine = server::Identity::new("edge", "e1").expect("a name");
        let day = Duration::from_secs(24 * 3600);
        let identity =
            Identity { given: EngineFiles::within(home.path()), renewed: home.path().join("identity.pem") };
        let read = |now| identity.credentials(now).map(|known| known.certificate);
        assert!(read(NOW).is_err(), "there is nothing yet");

        let given = authority.issue_engine(&engine, day, at(NOW)).expect("a certificate");
        std::fs::write(&identity.given.certificate, &given.certificate_pem).expect("written");
        std::fs::write(&identity.given.key, given.key_pem.expose()).expect("written");
        std::fs::write(&identity.given.authorities, authority.certificate_pem()).expect("written");
        assert_eq!(read(NOW).expect("given"), given.certificate_pem.as_bytes());

        let (request, key) = authority::request().expect("a request");
        let signed = authority.sign_engine(&engine, &request, day, at(NOW + 43_200)).expect("signed");
        let renewed = Credentials {
            certificate: signed.clone().into_bytes(),
            key: Secret::new(key.expose().clone().into_bytes()),
            authorities: authority.certificate_pem().as_bytes().to_vec(),
        };
        identity.keep(&renewed).expect("kept");
        let read_back = identity.credentials(NOW + 50_000).expect("renewed");
        assert_eq!(read_back.certificate, signed.as_bytes());
        assert_eq!(read_back.key.expose(), renewed.key.expose());
        assert_eq!(read_back.authorities, renewed.authorities);
        assert_eq!(server::Identity::of_pem(signed.as_bytes()), Ok(engine), "under the same name");
        assert_eq!(read(NOW + 1).expect("given"), given.certificate_pem.as_bytes(), "not valid yet");
        assert_eq!(read(NOW + 200_000).expect("given"), given.certificate_pem.as_bytes(), "over");

        std::fs::write(&identity.renewed, &signed[..signed.len() / 2]).expect("written");
        assert_eq!(
            read(NOW + 50_000).expect("given"),
            given.certificate_pem.as_bytes(),
            "half of it is none"
        );
    }
}
