//! Who is at the other end: read from its certificate, never from what it says.

use crate::base::Text;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The trust domain of engine names.
pub const TRUST_DOMAIN: &str = "tidegate";
/// Longest fleet or engine name, bytes.
const NAME_BYTES_MAX: usize = 128;

/// One engine of one fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub fleet: Text,
    pub engine: Text,
}

/// Why a certificate names no engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate has not exactly one URI of an engine; was it issued by this fleet's authority?")]
    NotOne,
}

impl Identity {
    /// Letters, digits, `-`, `_` and `.` only: names stand in URIs and logs.
    #[must_use]
    pub fn new(fleet: &str, engine: &str) -> Option<Self> {
        (valid(fleet) && valid(engine)).then(|| Self { fleet: fleet.into(), engine: engine.into() })
    }

    /// `spiffe://tidegate/fleet/FLEET/engine/ENGINE`
    #[must_use]
    pub fn uri(&self) -> String {
        let Self { fleet, engine } = self;
        format!("spiffe://{TRUST_DOMAIN}/fleet/{fleet}/engine/{engine}")
    }

    /// Reads what [`Identity::uri`] prints.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix("spiffe://")?.strip_prefix(TRUST_DOMAIN)?;
        let (fleet, engine) = rest.strip_prefix("/fleet/")?.split_once("/engine/")?;
        Self::new(fleet, engine)
    }

    /// From the first certificate of a PEM text: our own.
    pub fn of_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| IdentityError::Unreadable)?;
        Self::of_certificate(&certificate)
    }

    /// From a client certificate that was verified already. Exactly one URI
    /// name must be there: with two, which one is meant?
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Unreadable)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next().and_then(Self::parse), uris.next()) {
            (Some(identity), None) => Ok(identity),
            _ => Err(IdentityError::NotOne),
        }
    }
}

fn valid(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, expected: Option<(&str, &str)>) {
        let read = Identity::parse(uri);
        assert_eq!(read.as_ref().map(|id| (&*id.fleet, &*id.engine)), expected, "{uri}");
        if let Some(identity) = read {
            assert_eq!(identity.uri(), uri);
        }
    }

    #[test]
    fn names_of_engines() {
        check("spiffe://tidegate/fleet/edge/engine/e-1", Some(("edge", "e-1")));
        check("spiffe://other/fleet/edge/engine/e-1", None);
        check("spiffe://tidegate-x/fleet/edge/engine/e-1", None);
        check("spiffe://tidegate/fleet/edge/engine/", None);
        check("spiffe://tidegate/fleet/a/b/engine/e", None);
        check("spiffe://tidegate/fleet/a/engine/e/engine/f", None);
        check("spiffe://tidegate/fleet/a/engine/e\n", None);
    }
}
