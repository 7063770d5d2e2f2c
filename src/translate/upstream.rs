//! A Service's port -> [`Upstream`].

use super::World;
use crate::{
    base::{Hostname, ObjectKey, ObjectKind, Secret, Text},
    inputs::fact::{Service, ServiceKind, ServicePort},
    ir::{Upstream, UpstreamKey, UpstreamProtocol, UpstreamTls},
    report::{Reason, Report},
};
use std::sync::Arc;

/// Why there is nothing to forward to; reads on after the Service's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub reason: Reason,
    pub why: Text,
}

impl Missing {
    fn new(reason: Reason, why: impl Into<Text>) -> Self {
        Self { reason, why: why.into() }
    }
}

/// The upstream of a key.
///
/// # Errors
/// Why requests for it are answered 503.
pub fn translate_upstream(
    world: &mut dyn World,
    key: &UpstreamKey,
    report: &mut Report,
) -> Result<Upstream, Missing> {
    let at = ObjectKey::new(ObjectKind::Service, &key.namespace, &key.service);
    let service = world
        .service(&key.namespace, &key.service)
        .ok_or_else(|| Missing::new(Reason::NotFound, "is not there"))?;
    let (app_protocol, external) = match &service.kind {
        ServiceKind::ExternalName(name) => (None, Some(external(key, name)?)),
        ServiceKind::Endpoints => {
            let port = find_port(&service, &key.port)?;
            world.demand_endpoints(key);
            (port.app_protocol.clone(), None)
        }
    };
    let protocol = protocol(&at, app_protocol.as_deref(), report);
    let tls = match protocol.tls {
        true => Some(upstream_tls(world, &at, key, report)?),
        false => None,
    };
    affinity(&at, &service, report);
    Ok(Upstream {
        key: key.clone(),
        protocol: protocol.http,
        tls,
        sticky_source: service.sticky_source,
        external,
        connect_timeout: key.policy.connect_timeout,
    })
}

/// The port a route names, by number or name.
pub(super) fn find_port<'a>(service: &'a Service, port: &str) -> Result<&'a ServicePort, Missing> {
    let number = port.parse::<u16>().ok();
    let found = service.ports.iter().find(|known| match number {
        Some(number) => known.port == number,
        None => known.name.as_ref() == port,
    });
    found.ok_or_else(|| Missing::new(Reason::NotFound, format!("has no TCP port {}", port.escape_debug())))
}

fn external(key: &UpstreamKey, name: &Text) -> Result<(Text, u16), Missing> {
    if !key.policy.external_name {
        let why = "is of type ExternalName, which is not followed (InfraSetting spec.backends.externalName)";
        return Err(Missing::new(Reason::Unsupported, why));
    }
    let shown = name.escape_debug();
    let host = Hostname::parse(name).map_err(|why| {
        Missing::new(Reason::Invalid, format!("has spec.externalName '{shown}', which {why}"))
    })?;
    let local = host.parent().is_none() || host.as_str().ends_with(".localhost");
    if local {
        let why =
            format!("has spec.externalName '{shown}', which is a name of this machine or network alone");
        return Err(Missing::new(Reason::EndpointRefused, why));
    }
    let port = key.port.parse::<u16>().ok().filter(|port| *port != 0);
    let port = port
        .ok_or_else(|| Missing::new(Reason::Invalid, "is of type ExternalName: name its port by number"))?;
    Ok((host.as_str().into(), port))
}

struct Spoken {
    http: UpstreamProtocol,
    tls: bool,
}

/// `appProtocol`, by Kubernetes' names and by those in use before it had any.
fn protocol(at: &ObjectKey, app_protocol: Option<&str>, report: &mut Report) -> Spoken {
    let (http, tls) = match app_protocol {
        None | Some("" | "http" | "ws" | "kubernetes.io/ws" | "tcp") => (UpstreamProtocol::Http1, false),
        Some("h2c" | "grpc" | "kubernetes.io/h2c" | "http2") => (UpstreamProtocol::Http2, false),
        Some("https" | "wss" | "kubernetes.io/wss") => (UpstreamProtocol::Http1, true),
        Some("grpcs") => (UpstreamProtocol::Http2, true),
        Some(other) => {
            let message = format!("'{}' is not known; HTTP/1.1 is spoken", other.escape_debug());
            report.info(at, "spec.ports[].appProtocol", Reason::PartlyHonoured, message);
            (UpstreamProtocol::Http1, false)
        }
    };
    Spoken { http, tls }
}

/// Fails closed where a check is asked for and cannot be made.
fn upstream_tls(
    world: &mut dyn World,
    at: &ObjectKey,
    key: &UpstreamKey,
    report: &mut Report,
) -> Result<UpstreamTls, Missing> {
    let Some((secret, server_name)) = &key.policy.verify else {
        let message = "is reached over TLS, but nobody checks who answers: name its authority and its \
                       name in InfraSetting spec.backends.tls";
        report.warning(at, "", Reason::UpstreamUnverified, message);
        return Ok(UpstreamTls { server_name: None, ca: None });
    };
    Hostname::parse(server_name).map_err(|why| {
        Missing::new(Reason::Invalid, format!("has a server name in spec.backends.tls that {why}"))
    })?;
    let ca = world.secret(&key.namespace, secret).and_then(|secret| secret.ca.clone());
    let ca = ca.ok_or_else(|| {
        let why = format!("cannot be verified: Secret/{}/{secret} has no ca.crt", key.namespace);
        Missing::new(Reason::BadCertificate, why)
    })?;
    let ca = super::certificate::authorities(&ca).map_err(|why| {
        let why = format!("cannot be verified: ca.crt of Secret/{}/{secret} {why}", key.namespace);
        Missing::new(Reason::BadCertificate, why)
    })?;
    Ok(UpstreamTls { server_name: Some(Arc::clone(server_name)), ca: Some(Secret::new(ca)) })
}

fn affinity(at: &ObjectKey, service: &Service, report: &mut Report) {
    if let (true, Some(seconds)) = (service.sticky_source, service.sticky_seconds) {
        let message = format!(
            "a client keeps its endpoint while the endpoints stay the same; Envoy cannot end that after {seconds} s"
        );
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        report.info(at, field, Reason::PartlyHonoured, message);
    }
}
