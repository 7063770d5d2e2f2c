//! Our own kinds: the spec as it is typed in `api`, no field unknown.

use super::object::{Object, Refused};
use crate::{
    inputs::{Fact, fact::Age},
    report::{Reason, Report, printable},
};
use serde::de::DeserializeOwned;
use std::sync::Arc;

pub(super) fn infra_setting(
    object: &Object<'_>,
    _age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    Ok(Some(Fact::InfraSetting(Arc::new(spec(object, report)?))))
}

pub(super) fn vip_pool(
    object: &Object<'_>,
    _age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    Ok(Some(Fact::VipPool(Arc::new(spec(object, report)?))))
}

pub(super) fn dns_zone(
    object: &Object<'_>,
    _age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    Ok(Some(Fact::DnsZone(Arc::new(spec(object, report)?))))
}

/// What may stand beside `spec`.
const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

fn spec<T: DeserializeOwned>(object: &Object<'_>, report: &mut Report) -> Result<T, Refused> {
    for name in object.value.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !TOP.contains(&name.as_str()) {
            let message = format!("unknown field `{}`, expected one of {}", printable(name), TOP.join(", "));
            report.error(object.key, printable(name), Reason::Invalid, message);
        }
    }
    if object.value.get("spec").is_none() {
        report.error(object.key, "spec", Reason::Invalid, "is missing");
    }
    object.checked(report)?;
    object.field("spec", report)
}
