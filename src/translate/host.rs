//! All Ingresses that name a host on a gateway -> one table of routes.

use super::{
    AttachedBackend, AttachedHost, AttachedPath, Attachment, Contender, Missing, Owner, OwnerScope, Setting,
    World,
};
use crate::{
    base::{HostPattern, ObjectKey, Text},
    ir::{Action, Certificate, GatewayKey, Host, HostKey, HostTls, PathMatch, Route, UpstreamKey},
    report::{Reason, Report},
};
use std::{collections::BTreeMap, sync::Arc};

/// What came of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOutcome {
    pub host: Host,
    /// The certificate it wants served.
    pub sni: Option<Arc<SniClaim>>,
}

/// A wish to have a certificate served for an SNI: compares by age, so that the
/// oldest is the least.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SniClaim {
    pub by: Contender,
    pub gateway: GatewayKey,
    pub host: HostPattern,
    /// `h.example.com`, `*.example.com`, or `default/GATEWAY` for no SNI.
    pub name: Text,
    pub secret: ObjectKey,
}

/// One admitted Ingress and its say on the host.
struct Part {
    by: Contender,
    attachment: Arc<Attachment>,
}

impl Part {
    fn say(&self, host: &HostPattern) -> &AttachedHost {
        self.attachment.hosts.get(host).expect("the index holds Ingresses that name the host")
    }
}

/// The table of a host; nothing when no Ingress on this gateway may use it.
pub fn translate_host(world: &mut dyn World, key: &HostKey, report: &mut Report) -> Option<HostOutcome> {
    let parts = admitted(world, key, report);
    let setting = parts.first()?.attachment.setting.clone();
    let mut routes = Routes::default();
    for part in &parts {
        for path in &part.say(&key.host).paths {
            routes.add(world, part, path, &setting, report);
        }
    }
    let mut routes = routes.in_order_of_precedence();
    routes.extend(default_route(world, key, &parts, &setting, report));
    let (tls, sni) = tls(world, key, &parts, &setting, report);
    let origins = parts.iter().map(|part| part.by.ingress.clone()).collect();
    let routes = routes.into();
    Some(HostOutcome { host: Host { key: key.clone(), tls, routes, origins }, sni })
}

/// The Ingresses that may use the host, oldest first; the others are told.
fn admitted(world: &mut dyn World, key: &HostKey, report: &mut Report) -> Vec<Part> {
    let Some(owner) = world.owner(&OwnerScope::of(key)) else { return Vec::new() };
    let mut parts = Vec::new();
    for by in world.contenders(key) {
        if !owner.admits(&by.ingress.namespace) {
            refuse(key, &by, &owner, report);
        } else if let Some(attachment) = world.attachment(&by.ingress) {
            parts.push(Part { by, attachment });
        }
    }
    parts
}

fn refuse(key: &HostKey, by: &Contender, owner: &Owner, report: &mut Report) {
    let message = format!(
        "host {} belongs to namespace {} ({} is older); it is not served from here. \
         An InfraSetting's spec.hostGrants can share it",
        key.host, owner.namespace, owner.by
    );
    report.error(&by.ingress, "spec.rules", Reason::HostOwnedByOther, message);
}

/// Routes by match, each with the Ingress that won it.
#[derive(Default)]
struct Routes(BTreeMap<PathMatch, (Route, ObjectKey)>);

impl Routes {
    fn add(
        &mut self,
        world: &mut dyn World,
        part: &Part,
        path: &AttachedPath,
        setting: &Setting,
        report: &mut Report,
    ) {
        let at = &part.by.ingress;
        if let Some((_, winner)) = self.0.get(&path.path) {
            let message =
                format!("{winner} is older and has the same host and path; this path is not served");
            report.warning(at, path.field(), Reason::PathConflict, message);
            return;
        }
        let field = format!("{}.backend", path.field());
        let action = action(world, at, &field, &path.backend, setting, report);
        let name = format!("{}/{} {}", at.namespace, at.name, describe(&path.path)).into();
        let route = Route { name, path: path.path.clone(), action };
        self.0.insert(path.path.clone(), (route, at.clone()));
    }

    /// Exact paths first (none is longer than a Prefix that has it, too), then the
    /// longest; on equal length regular expression before Prefix, then by text.
    fn in_order_of_precedence(self) -> Vec<Route> {
        let mut routes: Vec<_> = self.0.into_values().map(|(route, _)| route).collect();
        routes.sort_by(|a, b| rank(&a.path).cmp(&rank(&b.path)));
        routes
    }
}

fn rank(path: &PathMatch) -> (bool, std::cmp::Reverse<usize>, u8, &str) {
    let (kind, text) = match path {
        PathMatch::Exact(text) => (0, text),
        PathMatch::Regex(text) => (1, text),
        PathMatch::Prefix(text) => (2, text),
    };
    (kind != 0, std::cmp::Reverse(text.len()), kind, text)
}

fn describe(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(text) => format!("= {text}"),
        PathMatch::Prefix(text) => format!("^ {text}"),
        PathMatch::Regex(text) => format!("~ {text}"),
    }
}

/// The default backend of the oldest Ingress that has one.
fn default_route(
    world: &mut dyn World,
    key: &HostKey,
    parts: &[Part],
    setting: &Setting,
    report: &mut Report,
) -> Option<Route> {
    let mut having = parts.iter().filter_map(|part| {
        part.say(&key.host).default_backend.as_ref().map(|backend| (&part.by.ingress, backend))
    });
    let (winner, backend) = having.next()?;
    for (loser, _) in having {
        let message = format!("{winner} is older and is the default backend of gateway {}", key.gateway);
        report.warning(loser, "spec.defaultBackend", Reason::PathConflict, message);
    }
    let action = action(world, winner, "spec.defaultBackend", backend, setting, report);
    let name = format!("{}/{} default", winner.namespace, winner.name).into();
    Some(Route { name, path: PathMatch::Prefix("/".into()), action })
}

fn action(
    world: &mut dyn World,
    at: &ObjectKey,
    field: &str,
    backend: &AttachedBackend,
    setting: &Setting,
    report: &mut Report,
) -> Action {
    let unavailable = || Action::Status { status: 503, body: "no backend\n".into() };
    let AttachedBackend::Upstream(key) = backend else { return unavailable() };
    match world.upstream(key) {
        Ok(upstream) => Action::Forward {
            upstream: key.clone(),
            timeout: setting.route_timeout,
            sticky_source: upstream.sticky_source,
        },
        Err(missing) => {
            tell_missing(at, field, key, &missing, report);
            unavailable()
        }
    }
}

fn tell_missing(at: &ObjectKey, field: &str, key: &UpstreamKey, missing: &Missing, report: &mut Report) {
    let Missing { reason, why } = missing;
    let message = format!("Service/{}/{} {why}; it is answered 503", key.namespace, key.service);
    report.error(at, field, *reason, message);
}

fn tls(
    world: &mut dyn World,
    key: &HostKey,
    parts: &[Part],
    setting: &Setting,
    report: &mut Report,
) -> (Option<HostTls>, Option<Arc<SniClaim>>) {
    let mut having = parts
        .iter()
        .filter_map(|part| part.say(&key.host).tls.as_ref().map(|(secret, n)| (part, secret, *n)));
    let Some((part, secret, n)) = having.next() else {
        // The default host takes what hosts with TLS did not match.
        let default = key.host == HostPattern::Default;
        return (default.then(|| HostTls { covered: [key.host.clone()].into(), redirect: None }), None);
    };
    for (other, other_secret, n) in having.filter(|(_, other, _)| *other != secret) {
        let message = format!(
            "{} is older and serves host {} with {secret}; {other_secret} is not used for it",
            part.by.ingress, key.host
        );
        report.warning(&other.by.ingress, format!("spec.tls[{n}].secretName"), Reason::PathConflict, message);
    }
    let certificate = world.certificate(secret);
    judge(&part.by.ingress, n, key, secret, &certificate, report);
    let is_default = key.host == HostPattern::Default;
    let covered = covered(&key.host, &certificate);
    let name = match &key.host {
        HostPattern::Default => format!("default/{}", key.gateway),
        host @ (HostPattern::Exact(_) | HostPattern::OneLabel(_) | HostPattern::AnyLabels(_)) => {
            host.to_string()
        }
    };
    let sni = SniClaim {
        by: part.by.clone(),
        gateway: key.gateway.clone(),
        host: key.host.clone(),
        name: name.into(),
        secret: secret.clone(),
    };
    let redirect = if is_default { None } else { setting.redirect };
    (Some(HostTls { covered, redirect }), Some(Arc::new(sni)))
}

/// Who asks for the host itself is never misdirected: with a certificate for other
/// names that would be everybody, and while one comes it would be the first.
fn covered(host: &HostPattern, certificate: &Result<Arc<Certificate>, Text>) -> Box<[HostPattern]> {
    let names = match certificate {
        Ok(certificate) if *host != HostPattern::Default => certificate.names.as_slice(),
        Ok(_) | Err(_) => &[],
    };
    let mut covered = [names, std::slice::from_ref(host)].concat();
    covered.sort_unstable();
    covered.dedup();
    covered.into()
}

/// Tells the Ingress what is wrong with its certificate.
fn judge(
    at: &ObjectKey,
    n: u32,
    key: &HostKey,
    secret: &ObjectKey,
    certificate: &Result<Arc<Certificate>, Text>,
    report: &mut Report,
) {
    let field = format!("spec.tls[{n}].secretName");
    match certificate {
        Err(why) => {
            let message =
                format!("{secret} {why}; TLS clients of host {} are refused until it is mended", key.host);
            report.error(at, field, Reason::BadCertificate, message);
        }
        Ok(certificate) if key.host != HostPattern::Default && !certificate.names_host(&key.host) => {
            let names: Vec<_> = certificate.names.iter().take(3).map(ToString::to_string).collect();
            let message = format!(
                "{secret} is for {}{}, not for host {}; it is served all the same, and clients will warn",
                names.join(", "),
                if certificate.names.len() > 3 { ", ..." } else { "" },
                key.host
            );
            report.warning(at, field, Reason::CertificateMismatch, message);
        }
        Ok(_) => {}
    }
}
