//! Secret: certificates with their keys, and authorities. Others are not kept.

use super::object::{Object, Refused};
use crate::{
    base::Secret as Hidden,
    inputs::{
        Fact,
        fact::{Age, TlsSecret},
    },
    report::{Reason, Report},
};
use k8s_openapi::api::core::v1 as k8s;
use std::{collections::BTreeMap, sync::Arc};

/// Bytes of all entries of a Secret (Kubernetes, `MaxSecretSize`).
const SECRET_BYTES_MAX: usize = 1 << 20;

pub(super) fn read(
    object: &Object<'_>,
    _age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    let has = |map: &str, name: &str| object.value.get(map).is_some_and(|map| map.get(name).is_some());
    let tls = object.value.get("type").and_then(|kind| kind.as_str()) == Some("kubernetes.io/tls");
    if !tls && !has("data", "ca.crt") && !has("stringData", "ca.crt") {
        return Ok(None);
    }
    let k8s::Secret { data, string_data, immutable: _, metadata: _, type_: _ } = object.typed(report)?;
    let mut entries: BTreeMap<String, Vec<u8>> =
        data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0)).collect();
    // The API server lets stringData win.
    entries.extend(string_data.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into_bytes())));
    let size: usize = entries.values().map(Vec::len).sum();
    if size > SECRET_BYTES_MAX {
        let message = format!("has {size} bytes; Kubernetes takes at most {SECRET_BYTES_MAX}");
        report.error(object.key, "data", Reason::TooLarge, message);
        return Err(Refused);
    }
    let mut take = |name: &str| entries.remove(name).filter(|bytes| !bytes.is_empty());
    Ok(Some(Fact::Secret(Arc::new(TlsSecret {
        certificate: take("tls.crt").unwrap_or_default().into(),
        key: Hidden::new(take("tls.key").unwrap_or_default().into()),
        ca: take("ca.crt").map(Arc::from),
    }))))
}
