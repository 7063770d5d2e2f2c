//! From facts to what should be served: the whole road on one screen.
//!
//! *Takes* changed facts. *Gives* a [`Delta`]: the outcomes that changed. *Invariants*:
//! no I/O, no clock, no lock, no `async`; total; the same facts give the same
//! outcomes in any order and any process. *To add one*: a [`Unit`] with its level,
//! its value, its function in `translate`, and, where it leaves the compile, an
//! [`Outcome`].
//!
//! | level | unit | reads |
//! |---|---|---|
//! | 0 | `Setting(name)` `Certificate(secret)` `Endpoints(upstream)` `Zone(object)` | facts |
//! | 1 | `Attachment(ingress)` `Dedicated(name, secret)` | its class, namespace and setting; the certificate |
//! | 2 | `Owner(host)` `Upstream(key)` | the oldest Ingress of the host; the Service |
//! | 3 | `Host(gateway, host)` | owner, attachments that name it, upstreams, certificate |
//! | 4 | `Sni(name)` `Records(host)` | claims of hosts; gateways of the host, their addresses |
//! | 5 | `Gateway(gateway)` | its setting, its addresses, whether a host has TLS |

mod program;
mod reports;
mod world;

use crate::{
    base::{HostPattern, ObjectKey, Text},
    incremental::{Cost, Graph},
    inputs::Fact,
    ir::{
        Certificate, Endpoints, GatewayKey, HostKey, RecordSet, SniCertificate, Upstream, UpstreamKey, Zone,
    },
    report::Finding,
    translate::{
        Attachment, Gateway, HostOutcome, Missing, Options, Owner, OwnerScope, Setting, Sni, SniClaim,
    },
};
use program::Rules;
use reports::Reports;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

/// The name of a fact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKey {
    Object(ObjectKey),
    /// The addresses a gateway (printed) holds, as the ledger says.
    Allocation(Text),
}

/// A fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Object(Fact),
    Allocation(Arc<[IpAddr]>),
}

/// What is computed by itself, and again only when what it read has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    Setting(Option<Text>),
    Certificate(ObjectKey),
    Endpoints(UpstreamKey),
    Zone(ObjectKey),
    Attachment(ObjectKey),
    Dedicated(Box<(Text, ObjectKey)>),
    Owner(OwnerScope),
    Upstream(UpstreamKey),
    Host(HostKey),
    Sni(Text),
    Records(HostPattern),
    Gateway(GatewayKey),
}

/// The value of a unit, in the order of [`Unit`].
#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// Not run yet, or broken by a defect of ours.
    Nothing,
    Setting(Arc<Setting>),
    Certificate(Result<Arc<Certificate>, Text>),
    Endpoints(Arc<Endpoints>),
    Zone(Option<Arc<Zone>>),
    Attachment(Option<Arc<Attachment>>),
    Dedicated(Option<Arc<Certificate>>),
    Owner(Option<Arc<Owner>>),
    Upstream(Result<Arc<Upstream>, Missing>),
    Host(Option<Arc<HostOutcome>>),
    Sni(Arc<Sni>),
    Records(Option<Arc<RecordSet>>),
    Gateway(Arc<Gateway>),
}

/// Sets kept up by facts and units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Index {
    DefaultClass,
    Slices(Text, Text),
    Vips(IpAddr),
    Zones,
    Contenders(OwnerScope),
    HostRules(HostKey),
    Gateways(GatewayKey),
    TlsHosts(GatewayKey),
    TlsBelow(GatewayKey, HostPattern),
    SniClaims(Text),
    Published(HostPattern),
    Dedicated(GatewayKey),
}

/// Members of indexes; each index holds one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Entry {
    Contender(crate::translate::Contender),
    Class(crate::inputs::fact::Age, Text),
    Object(ObjectKey),
    Text(Text),
    Zone(Text, ObjectKey),
    Host(HostPattern),
    Gateway(GatewayKey),
    Sni(Arc<SniClaim>),
    Dedicated(HostPattern, ObjectKey),
}

/// One thing that should now be served, or (`None`) no longer.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Upstream(UpstreamKey, Option<Arc<Upstream>>),
    Endpoints(UpstreamKey, Option<Arc<Endpoints>>),
    Sni(Text, Option<SniCertificate>),
    Dedicated(Text, Option<Arc<Certificate>>),
    Gateway(GatewayKey, Option<Arc<Gateway>>),
    Host(HostKey, Option<Arc<HostOutcome>>),
    Records(HostPattern, Option<Arc<RecordSet>>),
    Zone(ObjectKey, Option<Arc<Zone>>),
}

/// What one batch of facts changed.
#[derive(Debug, Default)]
pub struct Delta {
    /// What is no longer served, then what is, each in the order of their units: a
    /// name (of a dedicated certificate) may pass from one unit to another.
    pub outcomes: Vec<Outcome>,
    /// Objects of which something else is to be said than before.
    pub reported: BTreeSet<ObjectKey>,
}

/// The compile, with all it remembers.
pub struct Compile {
    rules: Rules,
    graph: Graph<Rules>,
    reports: Reports,
}

impl Compile {
    #[must_use]
    pub fn new(options: Options) -> Self {
        let rules = Rules { options, clock: || Duration::ZERO };
        Self { rules, graph: Graph::default(), reports: Reports::default() }
    }

    /// Measures what units cost by a clock that only runs forward: see [`Compile::costs`].
    #[must_use]
    pub fn timed(mut self, clock: fn() -> Duration) -> Self {
        self.rules.clock = clock;
        self
    }

    /// Takes in facts that came, changed or (`None`) went.
    pub fn apply(&mut self, facts: impl IntoIterator<Item = (FactKey, Option<Input>)>) -> Delta {
        let changed = self.graph.apply(&self.rules, facts);
        let mut delta = Delta::default();
        for (unit, change) in changed {
            if change.notes {
                self.reports.replace(&unit, self.graph.notes(&unit), &mut delta.reported);
            }
            if change.value {
                delta.outcomes.extend(outcome(&unit, self.graph.value(&unit)));
            }
        }
        delta.outcomes.sort_by_key(Outcome::is_some);
        delta
    }

    /// Everything that should be served now: what [`Compile::apply`] gave, summed up.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut units: Vec<_> = self.graph.units().collect();
        units.sort_unstable_by(|a, b| a.0.cmp(b.0));
        units
            .into_iter()
            .filter_map(|(unit, value)| outcome(unit, Some(value)))
            .filter(Outcome::is_some)
            .collect()
    }

    /// What there is to say of an object.
    #[must_use]
    pub fn findings(&self, object: &ObjectKey) -> Vec<Finding> {
        self.reports.of(object)
    }

    /// Every finding, by object.
    pub fn all_findings(&self) -> impl Iterator<Item = Finding> + '_ {
        self.reports.objects().flat_map(|object| self.reports.of(object))
    }

    /// A fact as it is now.
    #[must_use]
    pub fn fact(&self, key: &FactKey) -> Option<&Input> {
        self.graph.fact(key)
    }

    /// All facts, in no order.
    pub fn facts(&self) -> impl Iterator<Item = (&FactKey, &Input)> {
        self.graph.facts()
    }

    /// How an Ingress is served, if it is ours.
    #[must_use]
    pub fn attachment(&self, ingress: &ObjectKey) -> Option<&Arc<Attachment>> {
        match self.graph.value(&Unit::Attachment(ingress.clone())) {
            Some(Value::Attachment(attachment)) => attachment.as_ref(),
            _ => None,
        }
    }

    /// The table of a host.
    #[must_use]
    pub fn host(&self, key: &HostKey) -> Option<&Arc<HostOutcome>> {
        match self.graph.value(&Unit::Host(key.clone())) {
            Some(Value::Host(host)) => host.as_ref(),
            _ => None,
        }
    }

    /// All tables of hosts, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<HostOutcome>> {
        self.graph.units().filter_map(|(_, value)| match value {
            Value::Host(host) => host.as_ref(),
            _ => None,
        })
    }

    /// The certificate in a Secret that some host names.
    #[must_use]
    pub fn certificate(&self, secret: &ObjectKey) -> Option<&Arc<Certificate>> {
        match self.graph.value(&Unit::Certificate(secret.clone())) {
            Some(Value::Certificate(certificate)) => certificate.as_ref().ok(),
            _ => None,
        }
    }

    /// How often units have run and how long that took, by the names of their kinds.
    /// Untimed, it takes no time.
    pub fn costs(&self) -> impl Iterator<Item = (&'static str, Cost)> {
        self.graph.costs()
    }

    /// How often a unit has run: the cost of changes, independent of any clock.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.costs().map(|(_, cost)| cost.runs).sum()
    }
}

impl Outcome {
    /// Whether it is to be served, rather than no longer.
    #[must_use]
    pub fn is_some(&self) -> bool {
        match self {
            Self::Upstream(_, value) => value.is_some(),
            Self::Endpoints(_, value) => value.is_some(),
            Self::Sni(_, value) => value.is_some(),
            Self::Dedicated(_, value) => value.is_some(),
            Self::Gateway(_, value) => value.is_some(),
            Self::Host(_, value) => value.is_some(),
            Self::Records(_, value) => value.is_some(),
            Self::Zone(_, value) => value.is_some(),
        }
    }
}

/// What a unit's value means to the outside; nothing for inner units.
fn outcome(unit: &Unit, value: Option<&Value>) -> Option<Outcome> {
    let value = value.cloned().unwrap_or(Value::Nothing);
    Some(match (unit.clone(), value) {
        (Unit::Upstream(key), Value::Upstream(value)) => Outcome::Upstream(key, value.ok()),
        (Unit::Upstream(key), _) => Outcome::Upstream(key, None),
        (Unit::Endpoints(key), Value::Endpoints(value)) => Outcome::Endpoints(key, Some(value)),
        (Unit::Endpoints(key), _) => Outcome::Endpoints(key, None),
        (Unit::Sni(name), Value::Sni(value)) => Outcome::Sni(name, value.certificate.clone()),
        (Unit::Sni(name), _) => Outcome::Sni(name, None),
        (Unit::Dedicated(key), Value::Dedicated(value)) => Outcome::Dedicated(key.0, value),
        (Unit::Dedicated(key), _) => Outcome::Dedicated(key.0, None),
        (Unit::Gateway(key), Value::Gateway(value)) => Outcome::Gateway(key, Some(value)),
        (Unit::Gateway(key), _) => Outcome::Gateway(key, None),
        (Unit::Host(key), Value::Host(value)) => Outcome::Host(key, value),
        (Unit::Host(key), _) => Outcome::Host(key, None),
        (Unit::Records(host), Value::Records(value)) => Outcome::Records(host, value),
        (Unit::Records(host), _) => Outcome::Records(host, None),
        (Unit::Zone(object), Value::Zone(value)) => Outcome::Zone(object, value),
        (Unit::Zone(object), _) => Outcome::Zone(object, None),
        (Unit::Setting(_) | Unit::Certificate(_) | Unit::Attachment(_) | Unit::Owner(_), _) => return None,
    })
}
