//! Ingress: rules, backends and TLS entries, held to what the API server takes.
//! Host names stay as written: `translate` judges them one by one.

use super::{
    names,
    object::{Object, Refused},
    service::number,
    with_age,
};
use crate::{
    base::{ObjectKey, Text},
    inputs::{
        Fact,
        fact::{Age, Backend, Ingress, Path, PathKind, Rule, Tls},
    },
    report::{Reason, Report, printable},
};
use k8s_openapi::api::networking::v1 as k8s;
use std::sync::Arc;

const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";
const VIP: &str = "tidegate.dev/vip";

/// Rules of one Ingress.
const RULES_MAX: usize = 20_000;
/// Paths of one rule.
const PATHS_MAX: usize = 1_000;
/// Hosts of all TLS entries of one Ingress; an entry without hosts counts as one.
const TLS_HOSTS_MAX: usize = 20_000;
/// Bytes of one path: what Envoy takes of a request's headers is 60 KiB.
const PATH_BYTES_MAX: usize = 8 << 10;
/// Bytes of one host as written; 253 is what a name may have.
const HOST_BYTES_MAX: usize = 1 << 10;

pub(super) fn read(
    object: &Object<'_>,
    age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    let k8s::Ingress { metadata: _, spec, status: _ } = object.typed(report)?;
    let k8s::IngressSpec { default_backend, ingress_class_name, rules, tls } = spec.unwrap_or_default();
    let (rules, tls) = (rules.unwrap_or_default(), tls.unwrap_or_default());
    check_sizes(object.key, &rules, &tls, report);
    object.checked(report)?;

    if rules.is_empty() && default_backend.is_none() {
        let message = "has neither rules nor a defaultBackend: write one of them";
        report.error(object.key, "spec", Reason::Invalid, message);
    }
    if let Some(class) = ingress_class_name.as_deref().filter(|class| !names::is_subdomain(class)) {
        let message = format!("'{}' is no name: must be {}", printable(class), names::SUBDOMAIN);
        report.error(object.key, "spec.ingressClassName", Reason::Invalid, message);
    }
    let mut checks = Checks { key: object.key, report };
    let default_backend = default_backend.and_then(|backend| checks.backend("spec.defaultBackend", backend));
    let rules = rules.into_iter().enumerate().map(|(index, rule)| checks.rule(index, rule)).collect();
    let tls = tls.into_iter().enumerate().map(|(index, entry)| checks.tls(index, entry)).collect();
    object.checked(report)?;
    Ok(Some(Fact::Ingress(Arc::new(Ingress {
        age: with_age(object.created(), age),
        class: ingress_class_name.map(Into::into),
        legacy_class: object.annotation(LEGACY_CLASS),
        vip: object.annotation(VIP),
        default_backend,
        rules,
        tls,
    }))))
}

fn check_sizes(key: &ObjectKey, rules: &[k8s::IngressRule], tls: &[k8s::IngressTLS], report: &mut Report) {
    let mut bound = |field: String, what: &str, count: usize, max: usize| {
        if count > max {
            let message = format!("has {count} {what}; at most {max} are read: make several Ingresses");
            report.error(key, field, Reason::TooLarge, message);
        }
    };
    bound("spec.rules".to_owned(), "rules", rules.len(), RULES_MAX);
    for (index, rule) in rules.iter().enumerate() {
        let paths = rule.http.as_ref().map_or(0, |http| http.paths.len());
        bound(format!("spec.rules[{index}].http.paths"), "paths", paths, PATHS_MAX);
        let host = rule.host.as_deref().map_or(0, str::len);
        bound(format!("spec.rules[{index}].host"), "bytes", host, HOST_BYTES_MAX);
    }
    let hosts = tls.iter().map(|entry| entry.hosts.as_ref().map_or(1, |hosts| hosts.len().max(1))).sum();
    bound("spec.tls".to_owned(), "hosts", hosts, TLS_HOSTS_MAX);
    for (index, entry) in tls.iter().enumerate() {
        let longest = entry.hosts.iter().flatten().map(String::len).max().unwrap_or(0);
        bound(format!("spec.tls[{index}].hosts"), "bytes in a host", longest, HOST_BYTES_MAX);
    }
}

/// Validation as in Kubernetes' `pkg/apis/networking/validation`; what is wrong
/// goes to the report, and its caller refuses the object.
struct Checks<'a> {
    key: &'a ObjectKey,
    report: &'a mut Report,
}

impl Checks<'_> {
    fn wrong(&mut self, field: String, message: String) {
        self.report.error(self.key, field, Reason::Invalid, message);
    }

    fn rule(&mut self, index: usize, rule: k8s::IngressRule) -> Rule {
        let k8s::IngressRule { host, http } = rule;
        let at = format!("spec.rules[{index}].http.paths");
        if http.as_ref().is_some_and(|http| http.paths.is_empty()) {
            self.wrong(at.clone(), "is empty: write at least one path, or leave http out".to_owned());
        }
        let paths = http.map(|http| http.paths).unwrap_or_default();
        let paths = paths
            .into_iter()
            .enumerate()
            .filter_map(|(path_index, path)| self.path(&format!("{at}[{path_index}]"), path))
            .collect();
        Rule { host: host.unwrap_or_default().into(), paths }
    }

    fn path(&mut self, at: &str, path: k8s::HTTPIngressPath) -> Option<Path> {
        let k8s::HTTPIngressPath { backend, path, path_type } = path;
        let path = path.unwrap_or_default();
        let kind = match path_type.as_str() {
            "Exact" => Some(PathKind::Exact),
            "Prefix" => Some(PathKind::Prefix),
            "ImplementationSpecific" => Some(PathKind::ImplementationSpecific),
            "" => {
                let message = "is missing: write Exact, Prefix or ImplementationSpecific".to_owned();
                self.wrong(format!("{at}.pathType"), message);
                None
            }
            other => {
                let other = printable(other);
                let message = format!("'{other}' is none of Exact, Prefix, ImplementationSpecific");
                self.wrong(format!("{at}.pathType"), message);
                None
            }
        };
        let kind = kind.filter(|kind| self.path_text(&format!("{at}.path"), &path, *kind));
        let backend = self.backend(&format!("{at}.backend"), backend);
        Some(Path { path: path.into(), kind: kind?, backend: backend? })
    }

    fn path_text(&mut self, at: &str, path: &str, kind: PathKind) -> bool {
        let shown = printable(path);
        let message = if path.len() > PATH_BYTES_MAX {
            format!("has {} bytes; at most {PATH_BYTES_MAX} are read", path.len())
        } else if path.chars().any(char::is_control) {
            format!("'{shown}' has a control character")
        } else {
            match kind {
                PathKind::ImplementationSpecific if path.is_empty() || path.starts_with('/') => return true,
                _ if !path.starts_with('/') => format!("'{shown}' must begin with '/'"),
                _ => match unclean(path) {
                    Some(part) => format!("'{shown}' must not have '{part}'"),
                    None => return true,
                },
            }
        };
        self.wrong(at.to_owned(), message);
        false
    }

    fn backend(&mut self, at: &str, backend: k8s::IngressBackend) -> Option<Backend> {
        let k8s::IngressBackend { resource, service } = backend;
        match (service, resource) {
            (Some(service), None) => self.service(&format!("{at}.service"), service),
            (None, Some(resource)) => {
                let group = resource.api_group.unwrap_or_default();
                let printed = format!("{}.{group} {}", resource.kind, resource.name);
                Some(Backend::Resource(printable(&printed).into()))
            }
            (None, None) => {
                self.wrong(at.to_owned(), "is missing: name a service and its port".to_owned());
                None
            }
            (Some(_), Some(_)) => {
                self.wrong(at.to_owned(), "has both a service and a resource: write one".to_owned());
                None
            }
        }
    }

    fn service(&mut self, at: &str, service: k8s::IngressServiceBackend) -> Option<Backend> {
        let k8s::IngressServiceBackend { name, port } = service;
        if !names::is_label(&name) {
            let message = format!("'{}' is no name: must be {}", printable(&name), names::LABEL);
            self.wrong(format!("{at}.name"), message);
            return None;
        }
        let k8s::ServiceBackendPort { name: port_name, number: port_number } = port.unwrap_or_default();
        let port_name = port_name.filter(|text| !text.is_empty());
        // Go's zero value stands for "not written" here.
        let port: Result<Text, String> = match (port_name, port_number.filter(|number| *number != 0)) {
            (Some(text), None) if names::is_port_name(&text) => Ok(text.into()),
            (Some(text), None) => {
                Err(format!("'{}' is no port name: must be {}", printable(&text), names::PORT_NAME))
            }
            (None, Some(value)) => match number(value) {
                Some(value) => Ok(value.to_string().into()),
                None => Err(format!("{value} is no port: must be 1 to 65535")),
            },
            (None, None) => Err("has neither name nor number: write one".to_owned()),
            (Some(_), Some(_)) => Err("has both a name and a number: write one".to_owned()),
        };
        match port {
            Ok(port) => Some(Backend::Service { name: name.into(), port }),
            Err(message) => {
                self.wrong(format!("{at}.port"), message);
                None
            }
        }
    }

    fn tls(&mut self, index: usize, entry: k8s::IngressTLS) -> Tls {
        let k8s::IngressTLS { hosts, secret_name } = entry;
        let secret = secret_name.filter(|name| !name.is_empty());
        if let Some(name) = secret.as_deref().filter(|name| !names::is_subdomain(name)) {
            let message = format!("'{}' is no name: must be {}", printable(name), names::SUBDOMAIN);
            self.wrong(format!("spec.tls[{index}].secretName"), message);
        }
        let hosts = hosts.unwrap_or_default().into_iter().map(Into::into).collect();
        Tls { hosts, secret: secret.map(Into::into) }
    }
}

/// What the API server refuses in Exact and Prefix paths: none of them could
/// match once a request's path is normalised.
fn unclean(path: &str) -> Option<&'static str> {
    const WITHIN: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const AT_END: [&str; 2] = ["/..", "/."];
    let within = WITHIN.into_iter().find(|part| path.contains(part));
    within.or_else(|| AT_END.into_iter().find(|part| path.ends_with(part)))
}
