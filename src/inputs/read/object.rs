//! What all kinds have in common: identity, metadata, typed reading.

use super::names;
use crate::{
    base::{ObjectKey, ObjectKind, Text},
    report::{Reason, Report, printable},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The object cannot be used; its report says why.
#[derive(Debug)]
pub(super) struct Refused;

/// An object whose key and metadata have been read.
pub(super) struct Object<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) value: &'a Value,
    pub(super) metadata: ObjectMeta,
}

/// Bytes of all annotations of an object (Kubernetes, `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// The key of an object, or the field that is wrong and why. Names that
/// Kubernetes would not take never become a key.
pub(super) fn key(kind: ObjectKind, value: &Value) -> Result<ObjectKey, (String, String)> {
    let field = |name: &str| match value.get("metadata").and_then(|metadata| metadata.get(name)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err((format!("metadata.{name}"), format!("{}: must be a text", kind.as_str()))),
    };
    let Some(name) = field("name")? else {
        let message = format!("{}: metadata.name is missing", kind.as_str());
        return Err(("metadata.name".to_owned(), message));
    };
    let refuse = |field: &str, text: &str, must: &str| {
        let message = format!("{}: '{}' is no name: must be {must}", kind.as_str(), printable(text));
        Err((format!("metadata.{field}"), message))
    };
    let label = matches!(kind, ObjectKind::Namespace | ObjectKind::Service);
    if label && !names::is_label(name) {
        return refuse("name", name, names::LABEL);
    }
    if !names::is_subdomain(name) {
        return refuse("name", name, names::SUBDOMAIN);
    }
    if !kind.namespaced() {
        return Ok(ObjectKey::cluster(kind, name));
    }
    let namespace = field("namespace")?.unwrap_or("default");
    if !names::is_label(namespace) {
        return refuse("namespace", namespace, names::LABEL);
    }
    Ok(ObjectKey::new(kind, namespace, name))
}

impl<'a> Object<'a> {
    pub(super) fn open(key: &'a ObjectKey, value: &'a Value, report: &mut Report) -> Result<Self, Refused> {
        let metadata: ObjectMeta = parse(key, value.get("metadata"), "metadata", report)?;
        let annotations = metadata.annotations.iter().flatten();
        let size: usize = annotations.map(|(name, text)| name.len() + text.len()).sum();
        if size > ANNOTATIONS_BYTES_MAX {
            let message = format!(
                "annotations have {size} bytes together; Kubernetes takes at most {ANNOTATIONS_BYTES_MAX}"
            );
            report.error(key, "metadata.annotations", Reason::TooLarge, message);
            return Err(Refused);
        }
        Ok(Self { key, value, metadata })
    }

    /// The whole object as its API type: wrong types are errors with their path.
    pub(super) fn typed<T: DeserializeOwned>(&self, report: &mut Report) -> Result<T, Refused> {
        parse(self.key, Some(self.value), "", report)
    }

    /// One top-level field as its API type.
    pub(super) fn field<T: DeserializeOwned>(&self, name: &str, report: &mut Report) -> Result<T, Refused> {
        parse(self.key, self.value.get(name), name, report)
    }

    /// An annotation that is there and not empty.
    pub(super) fn annotation(&self, name: &str) -> Option<Text> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(name).filter(|text| !text.is_empty()).map(|text| text.as_str().into())
    }

    /// creationTimestamp in unix seconds, if written.
    pub(super) fn created(&self) -> Option<i64> {
        self.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second())
    }

    /// Refuses the object if anything was found to be an error.
    pub(super) fn checked(&self, report: &Report) -> Result<(), Refused> {
        let errors = |finding: &crate::report::Finding| finding.severity == crate::report::Severity::Error;
        if report.findings().iter().any(errors) { Err(Refused) } else { Ok(()) }
    }
}

fn parse<T: DeserializeOwned>(
    key: &ObjectKey,
    value: Option<&Value>,
    at: &str,
    report: &mut Report,
) -> Result<T, Refused> {
    let empty = Value::Object(serde_json::Map::new());
    let value = value.filter(|value| !value.is_null()).unwrap_or(&empty);
    serde_path_to_error::deserialize::<_, T>(value).map_err(|error| {
        let path = error.path().to_string();
        let field = match (at, path.as_str()) {
            (at, ".") => at.to_owned(),
            ("", path) => path.to_owned(),
            (at, path) if path.starts_with('[') => format!("{at}{path}"),
            (at, path) => format!("{at}.{path}"),
        };
        let said = error.into_inner().to_string();
        let message = match key.kind {
            // What stands there may be a key: only what should stand there is told.
            ObjectKind::Secret => match said.rsplit_once(", expected ") {
                Some((_, expected)) => format!("is of the wrong type: expected {}", printable(expected)),
                None => "is no base64".to_owned(),
            },
            _ => printable(&said),
        };
        report.error(key, printable(&field), Reason::Invalid, message);
        Refused
    })
}
