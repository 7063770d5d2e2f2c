//! One route: a path, and what answers it.

use super::{ResourceKey, names, proto};
use crate::ir::{Action, PathMatch, Route};
use envoy_types::pb::envoy::config::route::v3::{
    self as envoy, DirectResponseAction, HeaderMatcher, RedirectAction, RouteAction, RouteMatch,
    route_action::{
        ClusterSpecifier, HashPolicy,
        hash_policy::{ConnectionProperties, PolicySpecifier},
    },
    route_match::PathSpecifier,
};
use std::{collections::BTreeSet, time::Duration};

pub(super) fn build_route(route: &Route) -> envoy::Route {
    let Route { name, path, action } = route;
    let action = match action {
        Action::Forward { upstream, timeout, sticky_source } => {
            let cluster = names::cluster(upstream).name.to_string();
            envoy::route::Action::Route(forward(cluster, *timeout, *sticky_source))
        }
        Action::Status { status, body } => direct(*status, body),
    };
    envoy::Route {
        name: name.to_string(),
        r#match: Some(RouteMatch { path_specifier: Some(path_specifier(path)), ..RouteMatch::default() }),
        action: Some(action),
        ..envoy::Route::default()
    }
}

/// The clusters that routes name, each once.
pub(super) fn clusters(routes: &[Route]) -> BTreeSet<ResourceKey> {
    routes.iter().filter_map(|route| route.action.upstream()).map(names::cluster).collect()
}

/// An answer of our own for every path whose headers match.
pub(super) fn status(name: &str, headers: Vec<HeaderMatcher>, status: u16, body: &str) -> envoy::Route {
    every_path(name, headers, direct(status, body))
}

/// A redirect for every path whose headers match.
pub(super) fn redirect(name: &str, headers: Vec<HeaderMatcher>, action: RedirectAction) -> envoy::Route {
    every_path(name, headers, envoy::route::Action::Redirect(action))
}

fn every_path(name: &str, headers: Vec<HeaderMatcher>, action: envoy::route::Action) -> envoy::Route {
    let path_specifier = Some(PathSpecifier::Prefix("/".to_owned()));
    envoy::Route {
        name: name.to_owned(),
        r#match: Some(RouteMatch { path_specifier, headers, ..RouteMatch::default() }),
        action: Some(action),
        ..envoy::Route::default()
    }
}

fn path_specifier(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.to_string()),
        PathMatch::Prefix(path) if path.as_ref() == "/" => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Prefix(path) => PathSpecifier::PathSeparatedPrefix(path.to_string()),
        PathMatch::Regex(regex) => PathSpecifier::SafeRegex(proto::regex(regex.to_string())),
    }
}

fn forward(cluster: String, timeout: Option<Duration>, sticky_source: bool) -> RouteAction {
    let source = PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true });
    let source = HashPolicy { policy_specifier: Some(source), terminal: false };
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        // Always said: unsaid it is 15 s, which ends uploads and streams.
        timeout: Some(proto::limit(timeout)),
        hash_policy: if sticky_source { vec![source] } else { Vec::new() },
        ..RouteAction::default()
    }
}

fn direct(status: u16, body: &str) -> envoy::route::Action {
    envoy::route::Action::DirectResponse(DirectResponseAction {
        status: status.into(),
        body: (!body.is_empty()).then(|| proto::inline(body.as_bytes())),
        ..DirectResponseAction::default()
    })
}
