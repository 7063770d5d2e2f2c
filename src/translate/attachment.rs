//! Ingress -> [`Attachment`]: whose it is, which gateways it stands on, and what
//! it says of each host.

use super::{Setting, World, regex, shortened};
use crate::{
    api::{ImplementationSpecific, VipSharing},
    base::{HostPattern, Hostname, ObjectKey, ObjectKind, SortedMap, Text, Version},
    inputs::fact::{self, Backend, PathKind},
    ir::{GatewayKey, GatewayName, GatewayScope, PathMatch, UpstreamKey},
    report::{Reason, Report},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// An Ingress that is ours to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub age: fact::Age,
    pub class: Text,
    /// The InfraSetting in force, for messages and for the gateway.
    pub setting_name: Option<Text>,
    pub setting: Arc<Setting>,
    pub hosts: SortedMap<HostPattern, AttachedHost>,
}

/// What one Ingress says of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachedHost {
    pub gateways: Box<[GatewayKey]>,
    /// As written, each path once.
    pub paths: Vec<AttachedPath>,
    /// Takes what no path of the gateway matches: on the default host alone.
    pub default_backend: Option<AttachedBackend>,
    /// The Secret, and the number of its entry in `spec.tls`.
    pub tls: Option<(ObjectKey, u32)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedPath {
    pub path: PathMatch,
    /// Rule and path number: where it stands in the Ingress.
    pub at: (u32, u32),
    pub backend: AttachedBackend,
}

impl AttachedPath {
    /// The path of its field.
    #[must_use]
    pub fn field(&self) -> String {
        format!("spec.rules[{}].http.paths[{}]", self.at.0, self.at.1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachedBackend {
    Upstream(UpstreamKey),
    /// Told already; answered 503.
    Unsupported,
}

/// An Ingress as it is served; nothing when its class is not ours.
pub fn translate_ingress(world: &mut dyn World, at: &ObjectKey, report: &mut Report) -> Option<Attachment> {
    let ingress = world.ingress(at)?;
    let (class, class_setting) = class_of(world, at, &ingress, report)?;
    let own = world.namespace(&at.namespace).and_then(|namespace| namespace.setting.clone());
    let setting_name = own.clone().or(class_setting);
    if let Some(name) = &setting_name
        && world.infra_setting(name).is_none()
    {
        let said_by = match &own {
            Some(_) => format!("Namespace/{}", at.namespace),
            None => format!("IngressClass/{class}"),
        };
        let message = format!("InfraSetting/{name}, named by {said_by}, is not there; the defaults are used");
        report.error(at, "", Reason::NotFound, message);
    }
    let setting = world.setting(setting_name.as_ref());
    let hosts = Reader { at, setting: &setting, report, seen: HashSet::new() }.hosts(&ingress);
    let mut attachment = Attachment { age: ingress.age, class, setting_name: own, setting, hosts };
    place(at, &mut attachment);
    Some(attachment)
}

/// The class that serves it, and the setting the class names. `ingressClassName`
/// first, the old annotation second, the default class for neither.
fn class_of(
    world: &mut dyn World,
    at: &ObjectKey,
    ingress: &fact::Ingress,
    report: &mut Report,
) -> Option<(Text, Option<Text>)> {
    let named = ingress.class.clone().or_else(|| ingress.legacy_class.clone());
    let Some(name) = named.clone().or_else(|| world.default_class()) else {
        let message = "names no IngressClass and no class is marked as default; it is not served";
        report.info(at, "spec.ingressClassName", Reason::NotFound, message);
        return None;
    };
    let Some(class) = world.ingress_class(&name) else {
        let message = format!("IngressClass/{name} is not there; the Ingress is not served");
        report.warning(at, "spec.ingressClassName", Reason::NotFound, message);
        return None;
    };
    if class.controller.as_ref() != fact::CONTROLLER {
        return None;
    }
    if let Some(foreign) = &class.foreign_parameters {
        let key = ObjectKey::cluster(ObjectKind::IngressClass, &name);
        let message =
            format!("{foreign} is no InfraSetting of {}; the defaults are used", crate::base::DOMAIN);
        report.error(&key, "spec.parameters", Reason::Unsupported, message);
    }
    Some((name, class.setting.clone()))
}

struct Reader<'a> {
    at: &'a ObjectKey,
    setting: &'a Setting,
    report: &'a mut Report,
    /// Paths read so far: an Ingress may have thousands.
    seen: HashSet<(HostPattern, PathMatch)>,
}

impl Reader<'_> {
    fn hosts(&mut self, ingress: &fact::Ingress) -> SortedMap<HostPattern, AttachedHost> {
        let mut hosts: BTreeMap<HostPattern, AttachedHost> = BTreeMap::new();
        for (n, rule) in ingress.rules.iter().enumerate() {
            let field = format!("spec.rules[{n}].host");
            let Some(pattern) = self.host(&rule.host, &field) else { continue };
            let host = hosts.entry(pattern.clone()).or_default();
            for (m, path) in rule.paths.iter().enumerate() {
                self.path(&pattern, host, path, (number(n), number(m)));
            }
        }
        if let Some(backend) = &ingress.default_backend {
            let backend = self.backend(backend, "spec.defaultBackend");
            hosts.entry(HostPattern::Default).or_default().default_backend = Some(backend);
        }
        self.tls(ingress, &mut hosts);
        // Most hosts have one path, and pushing it made room for four.
        hosts.values_mut().for_each(|host| host.paths.shrink_to_fit());
        hosts.into_iter().collect()
    }

    fn host(&mut self, text: &str, field: &str) -> Option<HostPattern> {
        match HostPattern::parse_ingress(text) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                let message = format!("'{}' {why}; this rule is left out", text.escape_debug());
                self.report.error(self.at, field, Reason::Invalid, message);
                None
            }
        }
    }

    fn path(&mut self, of: &HostPattern, host: &mut AttachedHost, path: &fact::Path, at: (u32, u32)) {
        let field = format!("spec.rules[{}].http.paths[{}]", at.0, at.1);
        let matched = match path_match(&path.path, path.kind, self.setting.implementation_specific) {
            Ok(matched) => matched,
            Err(why) => {
                let message = format!("'{}' {why}; this path is left out", shortened(&path.path));
                self.report.error(self.at, format!("{field}.path"), Reason::Invalid, message);
                return;
            }
        };
        if !self.seen.insert((of.clone(), matched.clone())) {
            let message =
                format!("'{}' stands in this Ingress already; the first is used", shortened(&path.path));
            self.report.warning(self.at, format!("{field}.path"), Reason::PathConflict, message);
            return;
        }
        let backend = self.backend(&path.backend, &format!("{field}.backend"));
        host.paths.push(AttachedPath { path: matched, at, backend });
    }

    fn backend(&mut self, backend: &Backend, field: &str) -> AttachedBackend {
        match backend {
            Backend::Service { name, port } => AttachedBackend::Upstream(UpstreamKey {
                namespace: Arc::clone(&self.at.namespace),
                service: Arc::clone(name),
                port: Arc::clone(port),
                policy: self.setting.upstream_policy(&self.at.namespace, name),
            }),
            Backend::Resource(what) => {
                let message =
                    format!("{what} cannot be a backend here, only a Service can; it is answered 503");
                self.report.error(self.at, format!("{field}.resource"), Reason::Unsupported, message);
                AttachedBackend::Unsupported
            }
        }
    }

    /// An entry without hosts stands for all hosts of the Ingress; a host with an
    /// entry of its own keeps that.
    fn tls(&mut self, ingress: &fact::Ingress, hosts: &mut BTreeMap<HostPattern, AttachedHost>) {
        let below = if ingress.tls.is_empty() { HashMap::new() } else { by_parent(hosts.keys()) };
        for (n, tls) in ingress.tls.iter().enumerate() {
            let Some(secret) = &tls.secret else {
                let message = "names no Secret; its hosts are not served over TLS";
                self.report.error(
                    self.at,
                    format!("spec.tls[{n}].secretName"),
                    Reason::BadCertificate,
                    message,
                );
                continue;
            };
            let secret = ObjectKey::new(ObjectKind::Secret, &self.at.namespace, secret);
            for (m, text) in tls.hosts.iter().enumerate() {
                let field = format!("spec.tls[{n}].hosts[{m}]");
                let Some(pattern) = self.host(text, &field) else { continue };
                let mut covered = match &pattern {
                    HostPattern::OneLabel(parent) => below.get(parent).cloned().unwrap_or_default(),
                    HostPattern::Default | HostPattern::Exact(_) | HostPattern::AnyLabels(_) => Vec::new(),
                };
                if covered.is_empty() || hosts.contains_key(&pattern) {
                    covered.push(pattern);
                }
                for host in covered {
                    hosts.entry(host).or_default().tls.get_or_insert((secret.clone(), number(n)));
                }
            }
        }
        let all = ingress.tls.iter().enumerate().find(|(_, tls)| tls.hosts.is_empty());
        if let Some((n, fact::Tls { secret: Some(secret), .. })) = all {
            let secret = ObjectKey::new(ObjectKind::Secret, &self.at.namespace, secret);
            for host in hosts.values_mut() {
                host.tls.get_or_insert((secret.clone(), number(n)));
            }
        }
    }
}

/// Exact hosts by the name one label above: a TLS entry for a wildcard stands for them.
fn by_parent<'a>(hosts: impl Iterator<Item = &'a HostPattern>) -> HashMap<Hostname, Vec<HostPattern>> {
    let mut below: HashMap<Hostname, Vec<HostPattern>> = HashMap::new();
    for host in hosts {
        if let HostPattern::Exact(name) = host
            && let Some(parent) = name.parent()
        {
            below.entry(parent).or_default().push(host.clone());
        }
    }
    below
}

const PATH_MAX: usize = 4_096;

fn path_match(path: &str, kind: PathKind, unspecific: ImplementationSpecific) -> Result<PathMatch, String> {
    if path.len() > PATH_MAX {
        return Err(format!("is longer than {PATH_MAX} bytes"));
    }
    if path.chars().any(|c| c.is_control() || c == ' ') {
        return Err("has a space or a control character".to_owned());
    }
    let kind = match (kind, unspecific) {
        (PathKind::ImplementationSpecific, ImplementationSpecific::Regex) => {
            if path.is_empty() {
                return Ok(PathMatch::Prefix("/".into()));
            }
            return regex::check(path).map(|()| PathMatch::Regex(path.into()));
        }
        (PathKind::ImplementationSpecific, ImplementationSpecific::Exact) => PathKind::Exact,
        (PathKind::ImplementationSpecific, ImplementationSpecific::Prefix) => PathKind::Prefix,
        (kind @ (PathKind::Exact | PathKind::Prefix), _) => kind,
    };
    if path.contains(['?', '#']) {
        return Err("has '?' or '#', which no path of a request has".to_owned());
    }
    let path = if path.is_empty() { "/" } else { path };
    if !path.starts_with('/') {
        return Err("does not begin with '/'".to_owned());
    }
    if kind == PathKind::Exact {
        return Ok(PathMatch::Exact(path.into()));
    }
    // Element-wise: `/foo/` has `/foo` too (Ingress, "Path types").
    let trimmed = path.trim_end_matches('/');
    Ok(PathMatch::Prefix(if trimmed.is_empty() { "/" } else { trimmed }.into()))
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Decides on which gateways each host stands.
fn place(at: &ObjectKey, attachment: &mut Attachment) {
    let Attachment { class, setting_name, setting, hosts, .. } = attachment;
    let gateway = |scope| {
        GatewayKey::new(GatewayName { class: Arc::clone(class), setting: setting_name.clone(), scope })
    };
    let shared = |shard| gateway(GatewayScope::Shared { shard });
    for (pattern, host) in hosts.iter_mut() {
        host.gateways = match (setting.sharing, pattern) {
            (VipSharing::Ingress, _) => [gateway(GatewayScope::Ingress {
                namespace: Arc::clone(&at.namespace),
                name: Arc::clone(&at.name),
            })]
            .into(),
            (VipSharing::Host | VipSharing::IngressClass, HostPattern::Default) => {
                (0..setting.shards).map(shared).collect()
            }
            (VipSharing::Host, _) => [gateway(GatewayScope::Host { host: pattern.clone() })].into(),
            (VipSharing::IngressClass, _) => [shared(shard(pattern, setting.shards))].into(),
        };
    }
}

/// Rendezvous hashing: the shard whose hash with the host is highest, so that one
/// shard more takes 1/n of the hosts and moves no other.
fn shard(host: &HostPattern, shards: u16) -> u16 {
    if shards == 1 {
        return 0;
    }
    (0..shards).max_by_key(|shard| Version::of(&(host.scope(), shard))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, kind: PathKind, expected: &str) {
        let found = match path_match(path, kind, ImplementationSpecific::Regex) {
            Ok(PathMatch::Exact(path)) => format!("= {path}"),
            Ok(PathMatch::Prefix(path)) => format!("^ {path}"),
            Ok(PathMatch::Regex(path)) => format!("~ {path}"),
            Err(why) => format!("! {why}"),
        };
        assert!(found.starts_with(expected), "{path}: {found}, not {expected}");
    }

    #[test]
    fn paths() {
        check("/foo", PathKind::Exact, "= /foo");
        check("/foo/", PathKind::Exact, "= /foo/");
        check("/foo/", PathKind::Prefix, "^ /foo");
        check("/", PathKind::Prefix, "^ /");
        check("//", PathKind::Prefix, "^ /");
        check("foo", PathKind::Prefix, "! does not begin");
        check("/a?b", PathKind::Prefix, "! has '?'");
        check("/a\0", PathKind::Exact, "! has a space or a control");
        check("/v[0-9]+/.*", PathKind::ImplementationSpecific, "~ /v");
        check("/(a{1000}){1000}", PathKind::ImplementationSpecific, "! is a regular expression that repeats");
        check("/(", PathKind::ImplementationSpecific, "! is no regular expression");
        check(&"/a".repeat(3000), PathKind::Prefix, "! is longer");
    }

    #[test]
    fn one_more_shard_moves_its_share_and_no_more() {
        let hosts: Vec<_> = (0..2_000)
            .map(|n| HostPattern::parse_ingress(&format!("h{n}.example.com")).expect("a host"))
            .collect();
        let moved = hosts.iter().filter(|host| shard(host, 4) != shard(host, 5)).count();
        let to_others =
            hosts.iter().filter(|host| shard(host, 4) != shard(host, 5) && shard(host, 5) != 4).count();
        assert_eq!(to_others, 0);
        assert!((250..550).contains(&moved), "{moved} of 2,000 moved, a fifth is 400");
    }
}
