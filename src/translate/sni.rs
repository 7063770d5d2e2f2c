//! Claims for an SNI -> the one certificate that the shared chains serve for it.

use super::{SniClaim, World};
use crate::{
    base::Text,
    ir::SniCertificate,
    report::{Reason, Report},
};
use std::sync::Arc;

/// What came of an SNI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sni {
    /// Nothing where the certificate cannot be used: its Ingress was told.
    pub certificate: Option<SniCertificate>,
    /// Claims of other gateways for another certificate: they get chains of their own.
    pub others: Box<[Arc<SniClaim>]>,
}

/// An on-demand certificate is known by its SNI alone, so the oldest claim of the
/// fleet decides; a younger one with another Secret needs a chain of its own.
pub fn translate_sni(world: &mut dyn World, name: &Text, report: &mut Report) -> Sni {
    let claims = world.sni_claims(name);
    let Some(first) = claims.first() else { return Sni { certificate: None, others: Box::default() } };
    let others: Box<[_]> = claims.iter().filter(|claim| claim.secret != first.secret).cloned().collect();
    for other in &others {
        let message = format!(
            "{name} is served with {} on gateway {} (older), so gateway {} has a filter chain of its own for it: \
             each change of such a host costs more",
            first.secret, first.gateway, other.gateway
        );
        report.info(&other.by.ingress, "spec.tls", Reason::PartlyHonoured, message);
    }
    let certificate = world.certificate(&first.secret).ok();
    let certificate = certificate.map(|certificate| SniCertificate { name: name.clone(), certificate });
    Sni { certificate, others }
}
