//! A TLS Secret -> [`Certificate`]: only what Envoy will take, re-written so that
//! odd PEM (spaces, missing line ends) cannot reach it.

use crate::{
    base::{HostPattern, ObjectKey, Secret, Text},
    inputs::fact::TlsSecret,
    ir::Certificate,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::sync::Arc;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, public_key::PublicKey,
};

const CHAIN_MAX: usize = 32;
const RSA_BITS_MIN: usize = 2_048;
const NAMES_MAX: usize = 256;

/// The certificate in a Secret.
///
/// # Errors
/// What is wrong with it, reading on after the Secret's name.
pub fn translate_secret(origin: &ObjectKey, secret: Option<&TlsSecret>) -> Result<Certificate, Text> {
    let secret = secret.ok_or("is not there, or is not of type kubernetes.io/tls")?;
    if secret.certificate.is_empty() {
        return Err("has no tls.crt".into());
    }
    if secret.key.expose().is_empty() {
        return Err("has no tls.key".into());
    }
    let chain = certificates(&secret.certificate).map_err(|why| format!("has a tls.crt that {why}"))?;
    let key = PrivateKeyDer::from_pem_slice(secret.key.expose())
        .map_err(|_| Text::from("has a tls.key that is no PEM private key"))?;
    let signing =
        any_supported_type(&key).map_err(|_| Text::from("has a tls.key of a kind we cannot use"))?;
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(|_| Text::from("has a tls.key that does not belong to its tls.crt"))?;
    let leaf = leaf(&certified.cert)?;
    let validity = leaf.validity();
    Ok(Certificate {
        origin: origin.clone(),
        chain: as_written(&secret.certificate, &pem_chain(&certified.cert)),
        key: Secret::new(as_written(secret.key.expose(), pem_key(&key).as_bytes())),
        names: dns_names(&leaf),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

/// PEM of authorities, re-written.
///
/// # Errors
/// What is wrong, reading on after "ca.crt".
pub(super) fn authorities(pem: &[u8]) -> Result<Arc<[u8]>, String> {
    Ok(pem_chain(&certificates(pem)?).into())
}

/// What was read, shared, where it is just what we write: as a rule it is.
fn as_written(read: &Arc<[u8]>, ours: &[u8]) -> Arc<[u8]> {
    if **read == *ours { Arc::clone(read) } else { ours.into() }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = Vec::new();
    for item in CertificateDer::pem_slice_iter(pem).take(CHAIN_MAX + 1) {
        let der = item.map_err(|why| format!("is no PEM: {why}"))?;
        if X509Certificate::from_der(&der).is_err() {
            return Err(format!("holds no X.509 certificate as item {}", chain.len() + 1));
        }
        chain.push(der);
    }
    match chain.len() {
        0 => Err("holds no certificate".to_owned()),
        n if n > CHAIN_MAX => Err(format!("holds more than {CHAIN_MAX} certificates")),
        _ => Ok(chain),
    }
}

/// The first certificate, of a kind that Envoy takes.
fn leaf<'a>(chain: &'a [CertificateDer<'static>]) -> Result<X509Certificate<'a>, Text> {
    let der = chain.first().expect("a chain is not empty");
    let (_, leaf) = X509Certificate::from_der(der).expect("each item was parsed before");
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < RSA_BITS_MIN => {
            Err(format!("has an RSA key of {} bits; Envoy takes {RSA_BITS_MIN} and more", rsa.key_size())
                .into())
        }
        Ok(PublicKey::RSA(_) | PublicKey::EC(_)) => Ok(leaf),
        Ok(_) | Err(_) => Err("has a key that is neither RSA nor ECDSA; Envoy takes no other".into()),
    }
}

/// DNS names of the leaf; the common name where it has no alternative names.
fn dns_names(leaf: &X509Certificate<'_>) -> Vec<HostPattern> {
    let mut names: Vec<_> = match leaf.subject_alternative_name() {
        Ok(Some(alternative)) => alternative
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => HostPattern::parse_ingress(name).ok(),
                _ => None,
            })
            .collect(),
        Ok(None) | Err(_) => leaf
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok())
            .filter_map(|name| HostPattern::parse_ingress(name).ok())
            .collect(),
    };
    names.retain(|name| *name != HostPattern::Default);
    names.sort_unstable();
    names.dedup();
    names.truncate(NAMES_MAX);
    names
}

fn pem_chain(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let items: Vec<_> = chain.iter().map(|der| pem::Pem::new("CERTIFICATE", der.to_vec())).collect();
    pem::encode_many_config(&items, LF).into_bytes()
}

fn pem_key(key: &PrivateKeyDer<'_>) -> String {
    let (tag, der) = match key {
        PrivateKeyDer::Pkcs1(der) => ("RSA PRIVATE KEY", der.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(der) => ("EC PRIVATE KEY", der.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(der) => ("PRIVATE KEY", der.secret_pkcs8_der()),
        _ => ("PRIVATE KEY", key.secret_der()),
    };
    pem::encode_config(&pem::Pem::new(tag, der), LF)
}

const LF: pem::EncodeConfig = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
