//! Certificates that serve hosts.

use crate::base::{HostPattern, Hostname, ObjectKey, Secret, Text};
use serde::Serialize;
use std::sync::Arc;

/// A certificate with its key: checked to belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Certificate {
    /// The Secret it was read from.
    pub origin: ObjectKey,
    /// PEM, leaf first.
    #[serde(skip)]
    pub chain: Arc<[u8]>,
    pub key: Secret<Arc<[u8]>>,
    /// DNS names of the leaf: exact, or one-label wildcards; sorted.
    pub names: Vec<HostPattern>,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
}

impl Certificate {
    /// Whether one of its DNS names covers this host. A wildcard host must be
    /// named as such.
    #[must_use]
    pub fn names_host(&self, host: &HostPattern) -> bool {
        match host {
            HostPattern::Exact(name) => self.names.iter().any(|pattern| pattern.covers(name)),
            HostPattern::Default | HostPattern::OneLabel(_) | HostPattern::AnyLabels(_) => {
                self.names.contains(host)
            }
        }
    }
}

/// Which certificate answers an SNI on the shared chains of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SniCertificate {
    /// `h.example.com`, `*.example.com` for one label, or `default/GATEWAY` for
    /// clients that send no SNI.
    pub name: Text,
    pub certificate: Arc<Certificate>,
}

/// A host that needs a filter chain of its own: another gateway has the same
/// SNI with another certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DedicatedChain {
    /// Exact, or a one-label wildcard.
    pub host: HostPattern,
    /// Exact hosts below a wildcard host: its chain would catch them too, so the
    /// shared certificate of each is looked up through a chain of its own.
    pub shadowed: Vec<Hostname>,
    /// The name its certificate has among the dedicated ones: `chain/GATEWAY/HOST`.
    pub certificate: Text,
}
