//! The routes of one host: a scope that finds them and the table itself.

use super::{Resource, encode, names, proto, route};
use crate::{
    base::{HostPattern, Version},
    ir::{Host, HostKey, HostTls, Redirect},
};
use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher, RedirectAction, Route, RouteConfiguration, ScopedRouteConfiguration, VirtualHost,
        header_matcher::HeaderMatchSpecifier,
        redirect_action::{RedirectResponseCode, SchemeRewriteSpecifier},
        scoped_route_configuration::{
            Key,
            key::{Fragment, fragment},
        },
    },
    r#type::matcher::v3::string_matcher::MatchPattern,
};
use std::sync::Arc;

/// Headers that the early mutation of our module sets on every request and no
/// backend sees: the canonical host, the gateway, the server name of the TLS
/// handshake (lower case, absent without one), and whether the listener speaks TLS.
pub(super) const SCOPE: &str = "x-scope";
pub(super) const VIP: &str = "x-vip";
pub(super) const SNI: &str = "x-sni";
pub(super) const TLS: &str = "x-tls";
/// Values of [`TLS`].
pub(super) const TLS_ON: &str = "on";
pub(super) const TLS_OFF: &str = "off";
/// What is between us and Envoy, and no backend's affair.
const INTERNAL_HEADERS: [&str; 4] = [SCOPE, VIP, SNI, TLS];

/// The walker takes a route of this name for "ask the default host".
const TO_DEFAULT: &str = "->default";
const NOT_FOUND: &str = "-404";
const MISDIRECTED: &str = "-misdirected";
const PLAIN_ONLY: &str = "-plain-only";
const REDIRECT: &str = "-redirect";
const REDIRECT_PORT: &str = "-redirect-port";

/// The scope (which needs the table) and the table (which needs its clusters).
/// An edited route changes the table alone.
#[must_use]
pub fn build_host(host: &Host) -> [Resource; 2] {
    let Host { key, tls, routes, origins } = host;
    let (scope, table) = (names::scope(key), names::route_table(key));
    let message = build_scope(key, scope.name.to_string(), table.name.to_string());
    let scope = encode(scope, Version::of(key), &message, [table.clone()], Arc::clone(origins));
    let message = build_table(table.name.to_string(), key.host.scope(), {
        let mut all = host_routes(host);
        all.push(catch_all(&key.host));
        all
    });
    let needs = route::clusters(routes);
    // Whose objects they are is no content: a new owner of the same routes re-sends nothing.
    let table = encode(table, Version::of(&(key, tls, routes)), &message, needs, Arc::clone(origins));
    [scope, table]
}

fn build_scope(key: &HostKey, name: String, table: String) -> ScopedRouteConfiguration {
    let fragment = |text| Fragment { r#type: Some(fragment::Type::StringKey(text)) };
    ScopedRouteConfiguration {
        name,
        route_configuration_name: table,
        // In the order of the listener's scope_key_builder.
        key: Some(Key { fragments: vec![fragment(key.host.scope()), fragment(key.gateway.to_string())] }),
        ..ScopedRouteConfiguration::default()
    }
}

fn build_table(name: String, virtual_host: String, routes: Vec<Route>) -> RouteConfiguration {
    let virtual_host =
        VirtualHost { name: virtual_host, domains: vec!["*".to_owned()], routes, ..VirtualHost::default() };
    route_configuration(name, vec![virtual_host])
}

/// A table that keeps our own headers to itself.
pub(super) fn route_configuration(name: String, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name,
        virtual_hosts,
        request_headers_to_remove: INTERNAL_HEADERS.map(str::to_owned).to_vec(),
        ..RouteConfiguration::default()
    }
}

/// All routes but the catch-all: what guards the host, then what it serves.
pub(super) fn host_routes(host: &Host) -> Vec<Route> {
    let Host { key, tls, routes, origins: _ } = host;
    let mut all = match tls {
        Some(HostTls { covered, redirect }) => {
            let mut guards = Vec::from_iter(misdirected(covered));
            guards.extend(redirect.iter().flat_map(|redirect| redirects(&key.host, *redirect)));
            guards
        }
        None => vec![route::status(PLAIN_ONLY, vec![exact(TLS, TLS_ON)], 404, "")],
    };
    all.extend(routes.iter().map(route::build_route));
    all
}

/// Ends a table: without it a path that no route has would look like a host
/// that nobody has, and the walker would go on to a wildcard.
pub(super) fn catch_all(host: &HostPattern) -> Route {
    match host {
        HostPattern::Default => route::status(NOT_FOUND, Vec::new(), 404, ""),
        HostPattern::Exact(_) | HostPattern::OneLabel(_) | HostPattern::AnyLabels(_) => {
            route::status(TO_DEFAULT, Vec::new(), 404, "")
        }
    }
}

/// 421 (RFC 9110 section 15.5.20) for a connection that was opened under a name
/// that this host's certificate does not cover. One route that matches when all
/// its inverted matchers do. No SNI is no claim to a name, so `x-sni` must be there.
fn misdirected(covered: &[HostPattern]) -> Option<Route> {
    let mut headers = vec![present(SNI)];
    for name in covered {
        let pattern = match name {
            HostPattern::Default => return None,
            HostPattern::Exact(name) => MatchPattern::Exact(name.to_string()),
            HostPattern::OneLabel(suffix) => {
                MatchPattern::SafeRegex(proto::regex(one_label_regex(suffix.as_str())))
            }
            HostPattern::AnyLabels(suffix) => MatchPattern::Suffix(format!(".{suffix}")),
        };
        headers.push(HeaderMatcher { invert_match: true, ..string(SNI, pattern) });
    }
    Some(route::status(MISDIRECTED, headers, 421, ""))
}

/// One label before a suffix, both in lower case.
pub(super) fn one_label_regex(suffix: &str) -> String {
    format!("[^.]+\\.{}", suffix.replace('.', "\\."))
}

/// Plain requests go to https. Envoy drops a port from `Host` only where it is
/// the old scheme's own, so a Host that has one needs another answer than one
/// that has none: its Location names the port even where it is 443.
fn redirects(host: &HostPattern, redirect: Redirect) -> Vec<Route> {
    let Redirect { port, status } = redirect;
    let plain = exact("x-forwarded-proto", "http");
    let port_redirect = if port == 443 { 0 } else { u32::from(port) };
    let action = RedirectAction {
        response_code: redirect_code(status).into(),
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
        port_redirect,
        ..RedirectAction::default()
    };
    let with_port = MatchPattern::SafeRegex(proto::regex(".*:[0-9]+".to_owned()));
    match host {
        HostPattern::Exact(name) => {
            let action = RedirectAction { host_redirect: name.to_string(), ..action };
            vec![route::redirect(REDIRECT, vec![plain], action)]
        }
        _ if port_redirect != 0 => vec![route::redirect(REDIRECT, vec![plain], action)],
        HostPattern::Default | HostPattern::OneLabel(_) | HostPattern::AnyLabels(_) => {
            let named = RedirectAction { port_redirect: port.into(), ..action.clone() };
            vec![
                route::redirect(REDIRECT_PORT, vec![plain.clone(), string(":authority", with_port)], named),
                route::redirect(REDIRECT, vec![plain], action),
            ]
        }
    }
}

/// Another status was refused where it was read; 308 keeps the method, so it
/// can do no harm.
fn redirect_code(status: u16) -> RedirectResponseCode {
    match status {
        301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        _ => RedirectResponseCode::PermanentRedirect,
    }
}

fn exact(name: &str, value: &str) -> HeaderMatcher {
    string(name, MatchPattern::Exact(value.to_owned()))
}

pub(super) fn string(name: &str, pattern: MatchPattern) -> HeaderMatcher {
    let specifier = HeaderMatchSpecifier::StringMatch(proto::text(pattern));
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

fn present(name: &str) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..HeaderMatcher::default()
    }
}
