//! What is true of each object, as users are told.
//!
//! *Takes* the compile's findings, the ledger, and what engines hold. *Gives* the
//! values behind `tidegate status`, the admin API and the log. *Invariants*: pure;
//! `programmed` is said only when every connected engine holds what was made of
//! the object. *To add one*: a field with its documentation here; the JSON is these
//! types.

use crate::{
    base::{HostPattern, ObjectKey, ObjectKind, Text},
    compile::{FactKey, Input},
    desired::Desired,
    inputs::Fact,
    ir::{GatewayKey, HostKey},
    report::{Finding, Reason, Severity},
    translate::{Attachment, HostOutcome},
    xds::{ResourceKey, names},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// Everything: `GET /api/v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub objects: Vec<ObjectStatus>,
    pub engines: Vec<EngineStatus>,
    pub vips: Vec<VipStatus>,
    /// Files that could not be read as they are; what they held before is in force.
    pub files: Vec<FileStatus>,
}

/// One object: `GET /api/v1/status/KIND[/NAMESPACE]/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// `Ingress/shop/cart`.
    pub object: String,
    /// File and line it was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Ingress: the IngressClass that serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Whether a part of it is served; for other kinds, whether it is in force.
    pub served: bool,
    /// Whether every connected engine holds all that was made of it.
    pub programmed: bool,
    /// Ingress: the hosts served for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Ingress: the VIPs they are served on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    pub findings: Vec<FindingStatus>,
}

/// One finding of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingStatus {
    /// `Error`, `Warning` or `Info`.
    pub severity: String,
    /// One word that tools may compare: see `report::Reason`.
    pub reason: String,
    /// `spec.rules[0].host`; empty for the whole object.
    pub field: String,
    pub message: String,
}

/// One engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    pub name: String,
    /// Of its process: `Running`, `Adopted`, `CrashLoop`, ...; `Remote` where we
    /// do not supervise it.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether its xDS stream is up.
    pub connected: bool,
    /// `SYNCED`; `STALE` while something is under way; `UNUSABLE` where it cannot take
    /// what it needs (see `nacks`); `NOT SENT` before it has asked.
    pub sync: String,
    pub synced: bool,
    /// Resources and removals sent on its xDS stream, since it is up: none to an engine
    /// that came back with all of them.
    pub sent: u64,
    /// What it refused of what is published now, and why it is not well: its own words.
    pub nacks: Vec<String>,
}

/// One claim and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    pub claim: String,
    pub addresses: Vec<IpAddr>,
    /// The pool of its first address.
    pub pool: String,
    pub findings: Vec<FindingStatus>,
}

/// One file with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    pub file: String,
    pub message: String,
}

/// What the compile cannot know: the time, where objects came from, what engines hold.
pub trait Reality {
    /// Unix seconds.
    fn now(&self) -> i64;
    /// Whether every connected engine holds the present version of all of these.
    fn programmed(&self, resources: &[ResourceKey]) -> bool;
    /// What was said of an object elsewhere: by its source, by engines.
    fn findings(&self, object: &ObjectKey) -> Vec<Finding>;
    /// File and line.
    fn source(&self, object: &ObjectKey) -> Option<String>;
}

impl From<&Finding> for FindingStatus {
    fn from(finding: &Finding) -> Self {
        let Finding { object: _, severity, reason, field, message } = finding;
        Self {
            severity: format!("{severity:?}"),
            reason: format!("{reason:?}"),
            field: field.clone(),
            message: message.clone(),
        }
    }
}

/// The status of one object, if it is there or something is said of it.
#[must_use]
pub fn object_status(desired: &Desired, reality: &dyn Reality, object: &ObjectKey) -> Option<ObjectStatus> {
    let known = desired.compiled().fact(&FactKey::Object(object.clone())).is_some();
    let mut findings = desired.compiled().findings(object);
    findings.extend(reality.findings(object));
    findings.extend(desired.pool_findings().iter().filter(|finding| finding.object == *object).cloned());
    if !known && findings.is_empty() {
        return None;
    }
    let mut status = ObjectStatus {
        object: object.to_string(),
        source: reality.source(object),
        ..ObjectStatus::default()
    };
    match desired.compiled().attachment(object) {
        Some(attachment) => ingress(desired, reality, object, attachment, &mut status, &mut findings),
        None => {
            // Of an object that is written twice the first is in force.
            let twice = |finding: &Finding| finding.reason == Reason::Duplicate && finding.field.is_empty();
            let broken =
                findings.iter().any(|finding| finding.severity == Severity::Error && !twice(finding));
            status.served = known && !broken && object.kind != ObjectKind::Ingress;
            status.programmed = status.served;
        }
    }
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    findings.dedup();
    status.findings = findings.iter().map(FindingStatus::from).collect();
    Some(status)
}

fn ingress(
    desired: &Desired,
    reality: &dyn Reality,
    object: &ObjectKey,
    attachment: &Attachment,
    status: &mut ObjectStatus,
    findings: &mut Vec<Finding>,
) {
    let mut resources = Vec::new();
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    let mut gateways: BTreeSet<&GatewayKey> = BTreeSet::new();
    let mut hosts: BTreeSet<&HostPattern> = BTreeSet::new();
    for (host, say) in attachment.hosts.iter() {
        for gateway in &say.gateways {
            let key = HostKey { gateway: gateway.clone(), host: host.clone() };
            let Some(outcome) = desired.compiled().host(&key) else { continue };
            if !outcome.host.origins.contains(object) {
                continue;
            }
            findings.extend(expiry(desired, outcome, object, reality.now()));
            hosts.insert(host);
            gateways.insert(gateway);
            resources.extend([names::scope(&key), names::route_table(&key)]);
        }
    }
    for gateway in &gateways {
        let name: Text = gateway.to_string().into();
        addresses.extend(desired.ledger().held(&name));
        findings.extend(of_claim(desired, &name, object));
        resources.extend(desired.listeners(gateway).map(names::listener));
    }
    status.class = Some(attachment.class.to_string());
    status.hosts = hosts.iter().map(ToString::to_string).collect();
    status.addresses = addresses.into_iter().collect();
    status.served = !hosts.is_empty() && !status.addresses.is_empty();
    let refused = findings.iter().any(|finding| finding.reason == Reason::RefusedByEnvoy);
    status.programmed = status.served && !refused && reality.programmed(&resources);
}

/// All objects worth a line: Ingresses, our own kinds, and what has findings.
#[must_use]
pub fn objects(
    desired: &Desired,
    reality: &dyn Reality,
    told: impl Iterator<Item = ObjectKey>,
) -> Vec<ObjectStatus> {
    let mut keys: BTreeSet<ObjectKey> = told.collect();
    keys.extend(desired.compiled().all_findings().map(|finding| finding.object));
    keys.extend(desired.pool_findings().iter().map(|finding| finding.object.clone()));
    for (key, input) in desired.compiled().facts() {
        if let (FactKey::Object(key), Input::Object(fact)) = (key, input)
            && matches!(fact, Fact::Ingress(_) | Fact::InfraSetting(_) | Fact::VipPool(_) | Fact::DnsZone(_))
        {
            keys.insert(key.clone());
        }
    }
    keys.iter().filter_map(|key| object_status(desired, reality, key)).collect()
}

/// A certificate that ends within this is worth a warning, and within the other a word.
const EXPIRY_WARNING_SECONDS: i64 = 7 * DAY_SECONDS;
const EXPIRY_INFO_SECONDS: i64 = 30 * DAY_SECONDS;
const DAY_SECONDS: i64 = 24 * 3600;

/// What the clock says of the certificate that an Ingress has a host served with.
fn expiry(desired: &Desired, outcome: &HostOutcome, object: &ObjectKey, now: i64) -> Option<Finding> {
    let claim = outcome.sni.as_ref().filter(|claim| claim.by.ingress == *object)?;
    let certificate = desired.compiled().certificate(&claim.secret)?;
    let left = certificate.not_after - now;
    let days = left / DAY_SECONDS;
    let (severity, when) = if now < certificate.not_before {
        (Severity::Warning, "is not valid yet".to_owned())
    } else if left < 0 {
        (Severity::Warning, format!("has expired {} days ago", -days))
    } else if left < EXPIRY_WARNING_SECONDS {
        (Severity::Warning, format!("expires in {days} days"))
    } else if left < EXPIRY_INFO_SECONDS {
        (Severity::Info, format!("expires in {days} days"))
    } else {
        return None;
    };
    let message = format!("{} of host {} {when}; it is served all the same", claim.secret, claim.host);
    let (object, field) = (object.clone(), "spec.tls".to_owned());
    Some(Finding { object, severity, reason: Reason::CertificateExpired, field, message })
}

/// What the clock says of certificates, on the Ingresses that have them served.
#[must_use]
pub fn expiry_findings(desired: &Desired, now: i64) -> Vec<Finding> {
    let hosts = desired.compiled().hosts();
    let findings = hosts.filter_map(|outcome| {
        let at = &outcome.sni.as_ref()?.by.ingress;
        expiry(desired, outcome, at, now)
    });
    findings.collect()
}

/// What is said of claims, on the Ingresses that stand behind them.
#[must_use]
pub fn claim_findings(desired: &Desired) -> Vec<Finding> {
    let mut all = Vec::new();
    for (key, _) in desired.compiled().facts() {
        let FactKey::Object(object) = key else { continue };
        let Some(attachment) = desired.compiled().attachment(object) else { continue };
        let gateways: BTreeSet<_> = attachment.hosts.values().flat_map(|host| &host.gateways).collect();
        for gateway in gateways {
            all.extend(of_claim(desired, &gateway.to_string().into(), object));
        }
    }
    all
}

fn of_claim(desired: &Desired, claim: &Text, object: &ObjectKey) -> Vec<Finding> {
    let said = desired.desk().findings(claim).iter().map(|finding| Finding {
        object: object.clone(),
        severity: finding.severity,
        reason: finding.reason,
        field: String::new(),
        message: format!("gateway {claim}: {}", finding.message),
    });
    said.collect()
}

/// Every claim of the ledger, and those that wait.
#[must_use]
pub fn vips(desired: &Desired) -> Vec<VipStatus> {
    let mut claims: BTreeSet<Text> = desired.ledger().claims().map(|(claim, _)| claim.clone()).collect();
    claims.extend(desired.desk().waiting().cloned());
    let vip = |claim: Text| {
        let addresses: Vec<_> = desired.ledger().held(&claim).collect();
        let pool = addresses.first().and_then(|address| desired.ledger().entry(*address));
        let findings = desired.desk().findings(&claim).iter().map(|finding| FindingStatus {
            severity: format!("{:?}", finding.severity),
            reason: format!("{:?}", finding.reason),
            field: String::new(),
            message: finding.message.clone(),
        });
        VipStatus {
            claim: claim.to_string(),
            pool: pool.map(|entry| entry.pool.to_string()).unwrap_or_default(),
            addresses,
            findings: findings.collect(),
        }
    };
    claims.into_iter().map(vip).collect()
}
