//! `InfraSetting` -> [`Setting`]: what a user wrote, judged field by field.

use super::World;
use crate::{
    api,
    base::{HostPattern, Hostname, ObjectKey, ObjectKind, Text},
    ir::{
        Edge, EscapedSlashes, Families, Limits, PathRules, Redirect, Timeouts, Underscores, UpstreamPolicy,
    },
    report::{Reason, Report},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// A setting that holds together: every field is within its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub pool: Option<Text>,
    pub families: Families,
    pub addresses: Vec<IpAddr>,
    pub sharing: api::VipSharing,
    /// At least 1.
    pub shards: u16,
    pub http: Option<u16>,
    pub https: Option<u16>,
    pub redirect: Option<Redirect>,
    pub route_timeout: Option<Duration>,
    pub edge: Arc<Edge>,
    pub implementation_specific: api::ImplementationSpecific,
    /// Of upstreams that nothing is said of in `backend_tls`.
    pub upstream_policy: Arc<UpstreamPolicy>,
    /// (namespace, service) -> (Secret, server name).
    pub backend_tls: BTreeMap<(Text, Text), (Text, Text)>,
    /// Host, and the namespaces that may use it beside its owner.
    pub grants: Vec<(HostPattern, BTreeSet<Text>)>,
}

impl Setting {
    /// How a backend of a namespace is treated under this setting.
    #[must_use]
    pub fn upstream_policy(&self, namespace: &Text, service: &Text) -> Arc<UpstreamPolicy> {
        match self.backend_tls.get(&(Arc::clone(namespace), Arc::clone(service))) {
            Some(verify) => {
                let verify = Some(verify.clone());
                Arc::new(UpstreamPolicy { verify, ..self.upstream_policy.as_ref().clone() })
            }
            None => Arc::clone(&self.upstream_policy),
        }
    }

    /// Namespaces that may use a host beside its owner.
    #[must_use]
    pub fn granted(&self, host: &HostPattern) -> BTreeSet<Text> {
        let covers = |grant: &HostPattern| {
            grant == host
                || host.hostname().is_some_and(|name| grant.covers(name) || grant.hostname() == Some(name))
        };
        let granted = self.grants.iter().filter(|(grant, _)| covers(grant));
        granted.flat_map(|(_, namespaces)| namespaces.iter().cloned()).collect()
    }
}

/// More shards than this is more VIPs than anyone wants to route.
const SHARDS_MAX: u16 = 64;
const HEADERS_KIB_MAX: u32 = 8_192;

/// The setting of a name; the defaults where there is no name, or nothing under it.
pub fn translate_setting(world: &mut dyn World, name: Option<&Text>, report: &mut Report) -> Setting {
    let spec = name.and_then(|name| world.infra_setting(name));
    let at = ObjectKey::cluster(ObjectKind::InfraSetting, name.map_or("", |name| name));
    let default = api::InfraSettingSpec::default();
    Judge { at: &at, report }.setting(spec.as_deref().unwrap_or(&default))
}

struct Judge<'a> {
    at: &'a ObjectKey,
    report: &'a mut Report,
}

impl Judge<'_> {
    fn setting(&mut self, spec: &api::InfraSettingSpec) -> Setting {
        let api::InfraSettingSpec {
            vip,
            listeners,
            https_redirect,
            timeouts,
            client_address,
            paths,
            headers,
            limits,
            backends,
            host_grants,
            access_log,
        } = spec;
        let api::VipSpec { pool, families, addresses, sharing, shards } = vip;
        let (http, https) = self.ports(listeners);
        let edge = Edge {
            trusted_hops: self.within("spec.clientAddress.trustedHops", client_address.trusted_hops, 0, 32),
            proxy_protocol: client_address.proxy_protocol,
            paths: path_rules(paths),
            underscores: underscores(headers.underscores),
            timeouts: edge_timeouts(timeouts),
            limits: self.limits(limits, headers),
            access_log: access_log.unwrap_or(true),
        };
        let connect_ms = self.within("spec.timeouts.connectMs", timeouts.connect_ms, 1, 600_000);
        Setting {
            pool: pool.as_deref().map(Into::into),
            families: self.families(families),
            addresses: self.addresses(vip, addresses),
            sharing: *sharing,
            shards: self.within("spec.vip.shards", *shards, 1, SHARDS_MAX),
            http,
            https,
            redirect: https_redirect.as_ref().and_then(|spec| self.redirect(spec, https)),
            route_timeout: millis(timeouts.route_ms),
            edge: Arc::new(edge),
            implementation_specific: paths.implementation_specific,
            upstream_policy: Arc::new(UpstreamPolicy {
                connect_timeout: Duration::from_millis(connect_ms),
                external_name: backends.external_name,
                verify: None,
            }),
            backend_tls: self.backend_tls(&backends.tls),
            grants: self.grants(host_grants),
        }
    }

    /// The value, or the nearest allowed one and a finding.
    fn within<T: PartialOrd + std::fmt::Display + Copy>(
        &mut self,
        field: &str,
        value: T,
        least: T,
        most: T,
    ) -> T {
        let nearest = if value < least {
            least
        } else if value > most {
            most
        } else {
            value
        };
        if nearest != value {
            let message = format!("{value} is outside {least} to {most}; {nearest} is used");
            self.report.error(self.at, field, Reason::Invalid, message);
        }
        nearest
    }

    fn ports(&mut self, spec: &api::ListenersSpec) -> (Option<u16>, Option<u16>) {
        let api::ListenersSpec { http, https } = *spec;
        let some = |port: u16| (port != 0).then_some(port);
        if http == https && http != 0 {
            let message =
                format!("port {https} is taken by spec.listeners.http; no HTTPS listener is opened");
            self.report.error(self.at, "spec.listeners.https", Reason::Invalid, message);
            return (some(http), None);
        }
        (some(http), some(https))
    }

    fn families(&mut self, spec: &[api::AddressFamily]) -> Families {
        let has = |family| spec.contains(&family);
        let families = Families { v4: has(api::AddressFamily::IPv4), v6: has(api::AddressFamily::IPv6) };
        if families.v4 || families.v6 {
            return families;
        }
        self.report.error(self.at, "spec.vip.families", Reason::Invalid, "is empty; IPv4 is used");
        Families { v4: true, v6: false }
    }

    fn addresses(&mut self, vip: &api::VipSpec, spec: &[IpAddr]) -> Vec<IpAddr> {
        let one = vip.sharing == api::VipSharing::IngressClass && vip.shards <= 1;
        if !one && !spec.is_empty() {
            let message = "cannot be given to several VIPs; none is asked for. Ask on the Ingress \
                           (annotation tidegate.dev/vip), or share one VIP by the class";
            self.report.error(self.at, "spec.vip.addresses", Reason::Invalid, message);
            return Vec::new();
        }
        let mut kept: Vec<IpAddr> = Vec::new();
        for (n, address) in spec.iter().enumerate() {
            if kept.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                let message = format!("{address} is a second address of its family; the first is used");
                self.report.error(self.at, format!("spec.vip.addresses[{n}]"), Reason::Invalid, message);
            } else {
                kept.push(*address);
            }
        }
        kept
    }

    fn redirect(&mut self, spec: &api::RedirectSpec, https: Option<u16>) -> Option<Redirect> {
        let api::RedirectSpec { status, port } = spec;
        let Some(port) = port.or(https) else {
            let message = "there is no HTTPS port to send clients to; nothing is redirected";
            self.report.error(self.at, "spec.httpsRedirect", Reason::Invalid, message);
            return None;
        };
        let status = if matches!(status, 301 | 302 | 303 | 307 | 308) {
            *status
        } else {
            let message = format!("{status} is none of 301, 302, 303, 307, 308; 308 is used");
            self.report.error(self.at, "spec.httpsRedirect.status", Reason::Invalid, message);
            308
        };
        Some(Redirect { port, status })
    }

    fn limits(&mut self, limits: &api::LimitsSpec, headers: &api::HeadersSpec) -> Limits {
        let api::LimitsSpec { concurrent_streams, connections, buffer_bytes } = *limits;
        let streams_max = i32::MAX.unsigned_abs();
        Limits {
            concurrent_streams: self.within(
                "spec.limits.concurrentStreams",
                concurrent_streams,
                1,
                streams_max,
            ),
            headers_kib: self.within("spec.headers.maxKib", headers.max_kib, 1, HEADERS_KIB_MAX),
            headers: self.within("spec.headers.maxCount", headers.max_count, 1, 10_000),
            connections: self.within("spec.limits.connections", connections, 1, 10_000_000),
            buffer_bytes: self.within("spec.limits.bufferBytes", buffer_bytes, 4_096, 64 * 1024 * 1024),
        }
    }

    fn backend_tls(&mut self, spec: &[api::BackendTls]) -> BTreeMap<(Text, Text), (Text, Text)> {
        let mut known = BTreeMap::new();
        for (n, tls) in spec.iter().enumerate() {
            let api::BackendTls { namespace, service, ca_secret, server_name } = tls;
            if let Err(why) = Hostname::parse(server_name) {
                let message = format!(
                    "'{}' {why}; the backend stays unreachable until it is mended",
                    server_name.escape_debug()
                );
                self.report.error(
                    self.at,
                    format!("spec.backends.tls[{n}].serverName"),
                    Reason::Invalid,
                    message,
                );
            }
            let key = (namespace.as_str().into(), service.as_str().into());
            if known.contains_key(&key) {
                let message = format!("{namespace}/{service} stands in the list already; the first is used");
                self.report.error(self.at, format!("spec.backends.tls[{n}]"), Reason::Duplicate, message);
                continue;
            }
            known.insert(key, (ca_secret.as_str().into(), server_name.as_str().into()));
        }
        known
    }

    fn grants(&mut self, spec: &[api::HostGrant]) -> Vec<(HostPattern, BTreeSet<Text>)> {
        let mut grants = Vec::new();
        for (n, api::HostGrant { host, namespaces }) in spec.iter().enumerate() {
            let parsed = match host.strip_prefix("*.") {
                Some(rest) => Hostname::parse(rest).map(HostPattern::AnyLabels),
                None => Hostname::parse(host).map(HostPattern::Exact),
            };
            match parsed {
                Ok(pattern) => {
                    grants.push((pattern, namespaces.iter().map(|name| name.as_str().into()).collect()));
                }
                Err(why) => {
                    let message = format!("'{}' {why}; nothing is granted", host.escape_debug());
                    self.report.error(
                        self.at,
                        format!("spec.hostGrants[{n}].host"),
                        Reason::Invalid,
                        message,
                    );
                }
            }
        }
        grants
    }
}

fn millis(value: u64) -> Option<Duration> {
    (value != 0).then(|| Duration::from_millis(value))
}

fn edge_timeouts(spec: &api::TimeoutsSpec) -> Timeouts {
    Timeouts {
        route: millis(spec.route_ms),
        stream_idle: millis(spec.stream_idle_ms),
        request_headers: millis(spec.request_headers_ms),
        connection_idle: millis(spec.connection_idle_ms),
        drain: Duration::from_millis(spec.drain_ms),
    }
}

fn path_rules(spec: &api::PathsSpec) -> PathRules {
    PathRules {
        normalize: spec.normalize,
        merge_slashes: spec.merge_slashes,
        escaped_slashes: match spec.escaped_slashes {
            api::EscapedSlashesSpec::Keep => EscapedSlashes::Keep,
            api::EscapedSlashesSpec::Reject => EscapedSlashes::Reject,
            api::EscapedSlashesSpec::Redirect => EscapedSlashes::Redirect,
            api::EscapedSlashesSpec::Unescape => EscapedSlashes::Unescape,
        },
    }
}

fn underscores(spec: api::UnderscoresSpec) -> Underscores {
    match spec {
        api::UnderscoresSpec::Allow => Underscores::Allow,
        api::UnderscoresSpec::Reject => Underscores::Reject,
        api::UnderscoresSpec::Drop => Underscores::Drop,
    }
}
