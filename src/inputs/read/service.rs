//! Service: its TCP ports, and how its endpoints are chosen.

use super::{
    names,
    object::{Object, Refused},
};
use crate::{
    inputs::{
        Fact,
        fact::{Age, Service, ServiceKind, ServicePort},
    },
    report::{Reason, Report, printable},
};
use k8s_openapi::api::core::v1 as k8s;
use std::{collections::BTreeSet, sync::Arc};

/// Ports of one Service that we read.
const PORTS_MAX: usize = 1_000;

pub(super) fn read(
    object: &Object<'_>,
    _age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    let k8s::Service { metadata: _, spec, status: _ } = object.typed(report)?;
    let spec = spec.unwrap_or_default();
    let kind = kind(object, &spec, report);
    let ports = ports(object, spec.ports.unwrap_or_default(), report);
    let sticky_source = match spec.session_affinity.as_deref() {
        None | Some("" | "None") => false,
        Some("ClientIP") => true,
        Some(other) => {
            let message = format!("'{}' is neither None nor ClientIP", printable(other));
            report.error(object.key, "spec.sessionAffinity", Reason::Invalid, message);
            false
        }
    };
    object.checked(report)?;
    let sticky_seconds = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
    Ok(Some(Fact::Service(Arc::new(Service {
        kind,
        ports,
        sticky_source,
        sticky_seconds,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
    }))))
}

fn kind(object: &Object<'_>, spec: &k8s::ServiceSpec, report: &mut Report) -> ServiceKind {
    match spec.type_.as_deref() {
        None | Some("" | "ClusterIP" | "NodePort" | "LoadBalancer") => {}
        Some("ExternalName") => {
            let name = spec.external_name.as_deref().unwrap_or_default();
            if !names::is_subdomain(&name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()) {
                let message = format!("'{}' is no DNS name: must be {}", printable(name), names::SUBDOMAIN);
                report.error(object.key, "spec.externalName", Reason::Invalid, message);
            }
            return ServiceKind::ExternalName(name.into());
        }
        Some(other) => {
            let message =
                format!("'{}' is none of ClusterIP, NodePort, LoadBalancer, ExternalName", printable(other));
            report.error(object.key, "spec.type", Reason::Invalid, message);
        }
    }
    ServiceKind::Endpoints
}

fn ports(object: &Object<'_>, written: Vec<k8s::ServicePort>, report: &mut Report) -> Vec<ServicePort> {
    if written.len() > PORTS_MAX {
        let message = format!("has {} ports; at most {PORTS_MAX} are read", written.len());
        report.error(object.key, "spec.ports", Reason::TooLarge, message);
        return Vec::new();
    }
    let several = written.len() > 1;
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for (index, port) in written.into_iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        let name = port.name.unwrap_or_default();
        if name.is_empty() && several {
            let message = "is missing: a Service with several ports names each";
            report.error(object.key, at("name"), Reason::Invalid, message);
        } else if !name.is_empty() && !names::is_label(&name) {
            let message = format!("'{}' is no port name: must be {}", printable(&name), names::LABEL);
            report.error(object.key, at("name"), Reason::Invalid, message);
        } else if !seen.insert(name.clone()) {
            let message = format!("'{name}' names another port too");
            report.error(object.key, at("name"), Reason::Invalid, message);
        }
        let Some(number) = number(port.port) else {
            let message = format!("{} is no port: must be 1 to 65535", port.port);
            report.error(object.key, at("port"), Reason::Invalid, message);
            continue;
        };
        match port.protocol.as_deref() {
            None | Some("" | "TCP") => {}
            Some("UDP" | "SCTP") => continue,
            Some(other) => {
                let message = format!("'{}' is none of TCP, UDP, SCTP", printable(other));
                report.error(object.key, at("protocol"), Reason::Invalid, message);
            }
        }
        let app_protocol = port.app_protocol.filter(|text| !text.is_empty()).map(Into::into);
        ports.push(ServicePort { name: name.into(), port: number, app_protocol });
    }
    ports
}

/// A port number, where it is one.
pub(super) fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}
