//! Certificates and authorities, as SDS secrets. Their bodies leave the name
//! out (see [`Resource`]): the server puts it in front as it was asked for.

use super::{Body, Resource, encode, names, proto};
use crate::{
    base::{ObjectKey, Version},
    ir::{Certificate, SniCertificate},
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use std::sync::Arc;

/// What the shared chains are served on demand.
#[must_use]
pub fn build_sni(sni: &SniCertificate) -> Resource {
    let SniCertificate { name, certificate } = sni;
    build_dedicated(name, certificate)
}

/// The certificate of a dedicated chain; `name` is what the chain calls it.
#[must_use]
pub fn build_dedicated(name: &str, certificate: &Arc<Certificate>) -> Resource {
    let Certificate { origin, chain, key, names: _, not_before: _, not_after: _ } = &**certificate;
    Resource {
        key: names::secret(name),
        version: Version::of(&(chain, key)),
        body: Body::certificate(Arc::clone(certificate)),
        needs: Arc::default(),
        origins: [origin.clone()].into(),
    }
}

pub(super) fn message(certificate: &Certificate) -> Secret {
    secret(secret::Type::TlsCertificate(tls_certificate(certificate)))
}

pub(super) fn tls_certificate(certificate: &Certificate) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: Some(proto::inline(&certificate.chain)),
        private_key: Some(proto::inline(certificate.key.expose())),
        ..TlsCertificate::default()
    }
}

/// Authorities of an upstream, PEM.
pub(super) fn build_authorities(name: &str, pem: &[u8], origins: &[ObjectKey]) -> Resource {
    let context = CertificateValidationContext { trusted_ca: Some(proto::inline(pem)), ..Default::default() };
    let body = secret(secret::Type::ValidationContext(context));
    encode(names::secret(name), Version::of(pem), &body, [], origins)
}

fn secret(value: secret::Type) -> Secret {
    Secret { name: String::new(), r#type: Some(value) }
}
