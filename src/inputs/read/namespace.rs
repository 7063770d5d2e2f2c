//! Namespace: its labels, and the InfraSetting that overrides its class's.

use super::object::{Object, Refused};
use crate::{
    inputs::{
        Fact,
        fact::{Age, Namespace},
    },
    report::Report,
};
use std::sync::Arc;

pub(super) const SETTING: &str = "tidegate.dev/infra-setting";

pub(super) fn read(
    object: &Object<'_>,
    _age: &mut dyn FnMut() -> Age,
    _report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let setting = object.annotation(SETTING);
    Ok(Some(Fact::Namespace(Arc::new(Namespace { labels, setting }))))
}
