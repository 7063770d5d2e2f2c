//! IngressClass: whose it is, whether it is the default, and its InfraSetting.

use super::{
    object::{Object, Refused},
    with_age,
};
use crate::{
    api,
    base::Text,
    inputs::{
        Fact,
        fact::{Age, IngressClass},
    },
    report::{Reason, Report, printable},
};
use k8s_openapi::api::networking::v1 as k8s;
use std::sync::Arc;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

pub(super) fn read(
    object: &Object<'_>,
    age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    let k8s::IngressClass { metadata: _, spec } = object.typed(report)?;
    let k8s::IngressClassSpec { controller, parameters } = spec.unwrap_or_default();
    let controller = controller.unwrap_or_default();
    if controller.is_empty() {
        let message = format!("is missing; ours is {}", crate::inputs::fact::CONTROLLER);
        report.error(object.key, "spec.controller", Reason::Invalid, message);
    }
    object.checked(report)?;
    let (setting, foreign_parameters) = parameters.map_or((None, None), parameters_of);
    Ok(Some(Fact::IngressClass(Arc::new(IngressClass {
        controller: controller.into(),
        default: object.annotation(DEFAULT).as_deref() == Some("true"),
        setting,
        foreign_parameters,
        age: with_age(object.created(), age),
    }))))
}

/// The InfraSetting that is named, or what else is, printed.
fn parameters_of(named: k8s::IngressClassParametersReference) -> (Option<Text>, Option<Text>) {
    let k8s::IngressClassParametersReference { api_group, kind, name, namespace, scope } = named;
    let group = api_group.unwrap_or_default();
    // InfraSetting is cluster-wide: a reference into a namespace names nothing of ours.
    let cluster = namespace.is_none() && scope.as_deref().unwrap_or("Cluster") == "Cluster";
    if group == api::GROUP && kind == "InfraSetting" && cluster {
        return (Some(name.into()), None);
    }
    let place = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    (None, Some(printable(&format!("{kind}.{group} {place}{name}")).into()))
}
