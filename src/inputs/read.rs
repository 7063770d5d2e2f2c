//! From an API object, as `kubectl apply` would take it, to its fact.
//!
//! *Takes* one object as JSON. *Gives* its key and fact with findings, or why it
//! is refused. *Invariants*: what the API server would refuse is refused here,
//! named by object and field; unknown fields are errors in our own kinds and
//! ignored in those of Kubernetes; nothing of a Secret is ever quoted; sizes are
//! bounded. *To add one*: a file here named as the kind, a row in [`KINDS`].

mod endpoint_slice;
mod ingress;
mod ingress_class;
mod names;
mod namespace;
mod object;
mod ours;
mod secret;
mod service;

use super::{Fact, fact::Age};
use crate::{
    api,
    base::{ObjectKey, ObjectKind},
    report::{Finding, Report, printable},
};
use object::{Object, Refused};
use serde_json::Value;

/// What became of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    Fact {
        key: ObjectKey,
        fact: Fact,
        /// What is served otherwise than its author may think.
        findings: Vec<Finding>,
    },
    /// Nothing we read; a sentence where its author should know.
    Ignored(Option<String>),
    /// Known by its key, but not to be used: the errors say why.
    Refused { key: ObjectKey, findings: Vec<Finding> },
    /// Not even its key is known.
    Nameless { field: String, message: String },
}

/// The objects of a document: those of a list (`kind: List`, `IngressList`, as
/// `kubectl get -o yaml` prints them) one by one, else the document itself.
#[must_use]
pub fn objects(document: Value) -> Vec<Value> {
    let of = |field: &str| document.get(field).and_then(Value::as_str).map(str::to_owned);
    let item_kind = of("kind").and_then(|kind| kind.strip_suffix("List").map(str::to_owned));
    let (Some(item_kind), Some(Value::Array(_))) = (item_kind, document.get("items")) else {
        return vec![document];
    };
    let version = of("apiVersion");
    let Value::Object(mut list) = document else { return Vec::new() };
    let Some(Value::Array(items)) = list.remove("items") else { return Vec::new() };
    items.into_iter().flat_map(|item| objects(typed(item, &item_kind, version.as_deref()))).collect()
}

/// Items of a typed list may leave out what the list says for all of them.
fn typed(mut item: Value, kind: &str, version: Option<&str>) -> Value {
    if let (Value::Object(fields), Some(version), false) = (&mut item, version, kind.is_empty()) {
        fields.entry("kind").or_insert_with(|| kind.into());
        fields.entry("apiVersion").or_insert_with(|| version.into());
    }
    item
}

/// The age of an object: its creationTimestamp (unix seconds) if written, else
/// when the ledger saw it first.
#[must_use]
pub fn with_age(created: Option<i64>, first_seen: impl FnOnce() -> Age) -> Age {
    match created {
        Some(seconds) => Age { seconds, batch: 0 },
        None => first_seen(),
    }
}

type Reader = fn(&Object<'_>, &mut dyn FnMut() -> Age, &mut Report) -> Result<Option<Fact>, Refused>;

struct Kind {
    group: &'static str,
    version: &'static str,
    kind: ObjectKind,
    read: Reader,
}

const NETWORKING: &str = "networking.k8s.io";

/// Every kind we read, and where it is served by Kubernetes.
const KINDS: [Kind; 9] = [
    Kind { group: "", version: "v1", kind: ObjectKind::Namespace, read: namespace::read },
    Kind { group: NETWORKING, version: "v1", kind: ObjectKind::IngressClass, read: ingress_class::read },
    Kind { group: NETWORKING, version: "v1", kind: ObjectKind::Ingress, read: ingress::read },
    Kind { group: "", version: "v1", kind: ObjectKind::Service, read: service::read },
    Kind {
        group: "discovery.k8s.io",
        version: "v1",
        kind: ObjectKind::EndpointSlice,
        read: endpoint_slice::read,
    },
    Kind { group: "", version: "v1", kind: ObjectKind::Secret, read: secret::read },
    Kind {
        group: api::GROUP,
        version: api::VERSION,
        kind: ObjectKind::InfraSetting,
        read: ours::infra_setting,
    },
    Kind { group: api::GROUP, version: api::VERSION, kind: ObjectKind::VipPool, read: ours::vip_pool },
    Kind { group: api::GROUP, version: api::VERSION, kind: ObjectKind::DnsZone, read: ours::dns_zone },
];

/// Reads one object. `first_seen` is asked for the age of an Ingress or
/// IngressClass that has no creationTimestamp, once nothing else is wrong with it.
pub fn read(value: &Value, first_seen: &dyn Fn(&ObjectKey) -> Age) -> Reading {
    let (kind, written, kind_name) = match table_row(value) {
        Ok(found) => found,
        Err(reading) => return reading,
    };
    let key = match object::key(kind.kind, value) {
        Ok(key) => key,
        Err((field, message)) => return Reading::Nameless { field, message },
    };
    let mut report = Report::new();
    let right = kind.api_version();
    if written != right {
        let written = printable(written);
        let message = format!("{kind_name} of {written} is not read; write apiVersion: {right}");
        report.error(&key, "apiVersion", crate::report::Reason::Unsupported, message);
        return Reading::Refused { key, findings: report.into_findings() };
    }
    let result = Object::open(&key, value, &mut report)
        .and_then(|object| (kind.read)(&object, &mut || first_seen(&key), &mut report));
    let findings = report.into_findings();
    match result {
        Ok(Some(fact)) => Reading::Fact { key, fact, findings },
        Ok(None) => Reading::Ignored(findings.into_iter().next().map(|finding| finding.to_string())),
        Err(Refused) => Reading::Refused { key, findings },
    }
}

impl Kind {
    fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// The row of an object's kind, its apiVersion and kind as written.
fn table_row(value: &Value) -> Result<(&'static Kind, &str, &str), Reading> {
    let text = |field: &str| match value.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        Some(_) => Err(format!("{field} must be a text")),
        None => Err(format!("{field} is missing: every object has apiVersion, kind and metadata.name")),
    };
    let nameless = |field: &str, message| Reading::Nameless { field: field.to_owned(), message };
    if !value.is_object() {
        let message = "is no object: expected a mapping with apiVersion, kind and metadata".to_owned();
        return Err(nameless("", message));
    }
    let kind_name = text("kind").map_err(|message| nameless("kind", message))?;
    let written = text("apiVersion").map_err(|message| nameless("apiVersion", message))?;
    let group = written.split_once('/').map_or("", |(group, _)| group);
    let row = KINDS.iter().find(|row| {
        // Ingress lived in `extensions` first, and still does in old manifests.
        let old = row.kind == ObjectKind::Ingress && group == "extensions";
        row.kind.as_str() == kind_name && (row.group == group || old)
    });
    match row {
        Some(row) => Ok((row, written, kind_name)),
        None if group == api::GROUP => {
            let known: Vec<_> =
                KINDS.iter().filter(|row| row.group == group).map(|row| row.kind.as_str()).collect();
            let message =
                format!("'{}' is no kind of {group}; it has {}", printable(kind_name), known.join(", "));
            Err(nameless("kind", message))
        }
        None => {
            let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("(no name)");
            let [kind_name, written, name] = [kind_name, written, name].map(printable);
            Err(Reading::Ignored(Some(format!(
                "{kind_name} {name} ({written}) is of a kind that Tidegate does not read; ignored"
            ))))
        }
    }
}

#[cfg(test)]
mod tests;
