//! The units as the machinery sees them: levels, roots, indexes, functions.

use super::{Entry, FactKey, Index, Input, Unit, Value};
use crate::{
    base::{HostPattern, ObjectKey, ObjectKind},
    incremental::{Entries, Program, View},
    inputs::Fact,
    ir::HostKey,
    report::{Finding, Report},
    translate::{self, Contender, Options, OwnerScope},
};
use std::{sync::Arc, time::Duration};

/// The program of the compile.
pub(super) struct Rules {
    pub(super) options: Options,
    /// See [`Program::now`].
    pub(super) clock: fn() -> Duration,
}

impl Program for Rules {
    type Fact = FactKey;
    type Input = Input;
    type Unit = Unit;
    type Value = Value;
    type Index = Index;
    type Entry = Entry;
    type Note = Finding;

    const LEVELS: usize = 6;
    const KINDS: &'static [&'static str] = &[
        "setting",
        "certificate",
        "endpoints",
        "zone",
        "attachment",
        "dedicated",
        "owner",
        "upstream",
        "host",
        "sni",
        "records",
        "gateway",
    ];

    fn kind(unit: &Unit) -> usize {
        match unit {
            Unit::Setting(_) => 0,
            Unit::Certificate(_) => 1,
            Unit::Endpoints(_) => 2,
            Unit::Zone(_) => 3,
            Unit::Attachment(_) => 4,
            Unit::Dedicated(_) => 5,
            Unit::Owner(_) => 6,
            Unit::Upstream(_) => 7,
            Unit::Host(_) => 8,
            Unit::Sni(_) => 9,
            Unit::Records(_) => 10,
            Unit::Gateway(_) => 11,
        }
    }

    fn now(&self) -> Duration {
        (self.clock)()
    }

    fn level(unit: &Unit) -> usize {
        match unit {
            Unit::Setting(_) | Unit::Certificate(_) | Unit::Endpoints(_) | Unit::Zone(_) => 0,
            Unit::Attachment(_) | Unit::Dedicated(_) => 1,
            Unit::Owner(_) | Unit::Upstream(_) => 2,
            Unit::Host(_) => 3,
            Unit::Sni(_) | Unit::Records(_) => 4,
            Unit::Gateway(_) => 5,
        }
    }

    fn index_level(index: &Index) -> usize {
        match index {
            Index::DefaultClass | Index::Slices(..) | Index::Vips(_) | Index::Zones => 0,
            Index::Contenders(_) | Index::HostRules(_) | Index::Gateways(_) => 1,
            Index::TlsHosts(_) | Index::TlsBelow(..) | Index::SniClaims(_) | Index::Published(_) => 3,
            Index::Dedicated(_) => 4,
        }
    }

    fn run(&self, unit: &Unit, view: &mut View<'_, Self>) -> (Value, Vec<Finding>) {
        let mut report = Report::new();
        let value = self.translate(unit, view, &mut report);
        let mut findings = report.into_findings();
        findings.sort_unstable();
        findings.dedup();
        (value, findings)
    }

    fn broken(_: &Unit) -> Value {
        Value::Nothing
    }

    fn fact_entries(key: &FactKey, input: &Input) -> Entries<Self> {
        match (key, input) {
            (FactKey::Allocation(gateway), Input::Allocation(addresses)) => {
                addresses.iter().map(|ip| (Index::Vips(*ip), Entry::Text(Arc::clone(gateway)))).collect()
            }
            (FactKey::Object(key), Input::Object(fact)) => object_entries(key, fact),
            (FactKey::Allocation(_), Input::Object(_)) | (FactKey::Object(_), Input::Allocation(_)) => {
                Vec::new()
            }
        }
    }

    fn unit_entries(unit: &Unit, value: &Value) -> Entries<Self> {
        match (unit, value) {
            (Unit::Attachment(ingress), Value::Attachment(Some(attachment))) => {
                let by = Contender { age: attachment.age, ingress: ingress.clone() };
                attachment_entries(&by, attachment)
            }
            (Unit::Host(key), Value::Host(Some(outcome))) => host_entries(key, outcome),
            (Unit::Sni(_), Value::Sni(sni)) => sni
                .others
                .iter()
                .map(|claim| {
                    let entry = Entry::Dedicated(claim.host.clone(), claim.secret.clone());
                    (Index::Dedicated(claim.gateway.clone()), entry)
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn fact_root(key: &FactKey) -> Option<Unit> {
        let FactKey::Object(key) = key else { return None };
        match key.kind {
            ObjectKind::Ingress => Some(Unit::Attachment(key.clone())),
            ObjectKind::DnsZone => Some(Unit::Zone(key.clone())),
            ObjectKind::InfraSetting => Some(Unit::Setting(Some(Arc::clone(&key.name)))),
            ObjectKind::Namespace
            | ObjectKind::IngressClass
            | ObjectKind::VipPool
            | ObjectKind::Service
            | ObjectKind::EndpointSlice
            | ObjectKind::Secret => None,
        }
    }

    fn index_root(index: &Index) -> Option<Unit> {
        match index {
            Index::HostRules(key) => Some(Unit::Host(key.clone())),
            Index::Gateways(key) => Some(Unit::Gateway(key.clone())),
            Index::SniClaims(name) => Some(Unit::Sni(Arc::clone(name))),
            Index::Published(host) => Some(Unit::Records(host.clone())),
            Index::DefaultClass
            | Index::Slices(..)
            | Index::Vips(_)
            | Index::Zones
            | Index::Contenders(_)
            | Index::TlsHosts(_)
            | Index::TlsBelow(..)
            | Index::Dedicated(_) => None,
        }
    }
}

impl Rules {
    fn translate(&self, unit: &Unit, view: &mut View<'_, Self>, report: &mut Report) -> Value {
        match unit {
            Unit::Setting(name) => {
                Value::Setting(Arc::new(translate::translate_setting(view, name.as_ref(), report)))
            }
            Unit::Certificate(key) => {
                let secret = translate::World::secret(view, &key.namespace, &key.name);
                Value::Certificate(translate::translate_secret(key, secret.as_deref()).map(Arc::new))
            }
            Unit::Endpoints(key) => {
                Value::Endpoints(Arc::new(translate::translate_endpoints(view, &self.options, key, report)))
            }
            Unit::Zone(key) => Value::Zone(translate::translate_zone(view, key, report).map(Arc::new)),
            Unit::Attachment(key) => {
                Value::Attachment(translate::translate_ingress(view, key, report).map(Arc::new))
            }
            Unit::Dedicated(key) => Value::Dedicated(translate::World::certificate(view, &key.1).ok()),
            Unit::Owner(scope) => Value::Owner(translate::resolve_owner(view, scope).map(Arc::new)),
            Unit::Upstream(key) => {
                Value::Upstream(translate::translate_upstream(view, key, report).map(Arc::new))
            }
            Unit::Host(key) => Value::Host(translate::translate_host(view, key, report).map(Arc::new)),
            Unit::Sni(name) => Value::Sni(Arc::new(translate::translate_sni(view, name, report))),
            Unit::Records(host) => {
                Value::Records(translate::translate_records(view, host, report).map(Arc::new))
            }
            Unit::Gateway(key) => Value::Gateway(Arc::new(translate::translate_gateway(view, key, report))),
        }
    }
}

fn object_entries(key: &ObjectKey, fact: &Fact) -> Entries<Rules> {
    match fact {
        Fact::IngressClass(class) if class.default => {
            vec![(Index::DefaultClass, Entry::Class(class.age, Arc::clone(&key.name)))]
        }
        Fact::EndpointSlice(slice) => {
            let index = Index::Slices(Arc::clone(&key.namespace), Arc::clone(&slice.service));
            vec![(index, Entry::Object(key.clone()))]
        }
        Fact::DnsZone(zone) => {
            vec![(Index::Zones, Entry::Zone(translate::apex_text(&zone.zone), key.clone()))]
        }
        Fact::IngressClass(_)
        | Fact::Namespace(_)
        | Fact::InfraSetting(_)
        | Fact::VipPool(_)
        | Fact::Ingress(_)
        | Fact::Service(_)
        | Fact::Secret(_) => Vec::new(),
    }
}

fn attachment_entries(by: &Contender, attachment: &translate::Attachment) -> Entries<Rules> {
    let mut entries = Vec::new();
    for (host, say) in attachment.hosts.iter() {
        for gateway in &say.gateways {
            let key = HostKey { gateway: gateway.clone(), host: host.clone() };
            entries.push((Index::Contenders(OwnerScope::of(&key)), Entry::Contender(by.clone())));
            entries.push((Index::HostRules(key), Entry::Contender(by.clone())));
            entries.push((Index::Gateways(gateway.clone()), Entry::Object(by.ingress.clone())));
        }
    }
    entries
}

fn host_entries(key: &HostKey, outcome: &translate::HostOutcome) -> Entries<Rules> {
    let mut entries = Vec::new();
    if let Some(claim) = &outcome.sni {
        let gateway = key.gateway.clone();
        entries.push((Index::SniClaims(Arc::clone(&claim.name)), Entry::Sni(Arc::clone(claim))));
        entries.push((Index::TlsHosts(gateway.clone()), Entry::Host(key.host.clone())));
        if let HostPattern::Exact(name) = &key.host
            && let Some(parent) = name.parent()
        {
            let below = Index::TlsBelow(gateway, HostPattern::OneLabel(parent));
            entries.push((below, Entry::Host(key.host.clone())));
        }
    }
    if key.host != HostPattern::Default {
        entries.push((Index::Published(key.host.clone()), Entry::Gateway(key.gateway.clone())));
    }
    entries
}
