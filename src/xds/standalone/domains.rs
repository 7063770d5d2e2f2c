//! All hosts of a gateway in one table, as the scope walker would find them.
//!
//! Envoy's own domains differ in three ways: `*.example.com` has any number of
//! labels before it; it stops at the first domain that fits; and there is no way
//! on from a host that has no route for a path. So the routes that the walker
//! would come to next are repeated behind each host's own.

use super::super::{host, proto};
use crate::{
    base::{HostPattern, Hostname},
    ir::Host,
};
use envoy_types::pb::envoy::{
    config::route::v3::{HeaderMatcher, Route, RouteConfiguration, RouteMatch, VirtualHost},
    r#type::matcher::v3::string_matcher::MatchPattern,
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn build_table(name: String, hosts: &[&Host]) -> RouteConfiguration {
    let table = Table(hosts.iter().map(|host| (host.key.host.clone(), *host)).collect());
    // Two kinds of wildcard may share a domain, and Envoy takes each domain once.
    let domains: BTreeSet<String> = table.0.keys().map(ToString::to_string).collect();
    let virtual_hosts = domains.into_iter().map(|domain| table.virtual_host(domain)).collect();
    RouteConfiguration {
        ignore_port_in_host_matching: true,
        ..host::route_configuration(name, virtual_hosts)
    }
}

struct Table<'a>(BTreeMap<HostPattern, &'a Host>);

impl Table<'_> {
    fn virtual_host(&self, domain: String) -> VirtualHost {
        let routes = match domain.strip_prefix("*.") {
            None if domain == "*" => self.default(),
            None => self.exact(&domain),
            Some(suffix) => self.wildcard(suffix),
        };
        VirtualHost { name: domain.clone(), domains: vec![domain], routes, ..VirtualHost::default() }
    }

    fn exact(&self, domain: &str) -> Vec<Route> {
        let name = Hostname::parse(domain).expect("the domain is a host's name, printed");
        self.with_default(&HostPattern::Exact(name)).expect("the domain is of a host in the table")
    }

    /// Names with one label more see their own host and then the default one;
    /// names with several see the next wildcard that takes several.
    fn wildcard(&self, suffix: &str) -> Vec<Route> {
        let suffix = Hostname::parse(suffix).expect("the domain is a host's name, printed");
        let one_label = self.with_default(&HostPattern::OneLabel(suffix.clone()));
        let mut routes: Vec<Route> =
            one_label.into_iter().flatten().map(|route| guarded(route, &suffix)).collect();
        let mut parents = std::iter::successors(Some(suffix), Hostname::parent);
        let wider = parents.find_map(|name| self.with_default(&HostPattern::AnyLabels(name)));
        routes.extend(wider.unwrap_or_else(|| self.default()));
        routes
    }

    /// The routes of a host, then those of the default host, and an end.
    fn with_default(&self, pattern: &HostPattern) -> Option<Vec<Route>> {
        let mut routes = host::host_routes(self.0.get(pattern)?);
        routes.extend(self.default());
        Some(routes)
    }

    fn default(&self) -> Vec<Route> {
        let pattern = HostPattern::Default;
        let mut routes = self.0.get(&pattern).map_or_else(Vec::new, |host| host::host_routes(host));
        routes.push(host::catch_all(&pattern));
        routes
    }
}

/// Only for hosts with exactly one label before the suffix; here the host is as
/// the client wrote it.
fn guarded(mut route: Route, suffix: &Hostname) -> Route {
    let regex = format!("(?i){}(:[0-9]+)?", host::one_label_regex(suffix.as_str()));
    let authority: HeaderMatcher = host::string(":authority", MatchPattern::SafeRegex(proto::regex(regex)));
    let RouteMatch { headers, .. } = route.r#match.get_or_insert_default();
    headers.push(authority);
    route
}
