//! What an engine's refusal says, and what we serve in place of a refused route.

use super::relay;
use crate::{
    base::Version,
    xds::{Name, Resource, ResourceKey, ResourceKind},
};
use envoy_types::pb::envoy::config::{
    core::v3::{DataSource, data_source},
    route::v3::{
        DirectResponseAction, Route, RouteConfiguration, RouteMatch, VirtualHost, route, route_match,
    },
};
use prost::Message;

/// Words of a refusal that is the engine's own affair: a port another process
/// has, a module that is not installed there. Such a refusal says nothing about
/// the resource, so other engines still get it.
const OWN_FAILURES: [&str; 7] = [
    "cannot bind",
    "Address already in use",
    "Permission denied",
    "Cannot assign requested address",
    "Failed to load dynamic module",
    "error adding listener socket",
    relay::WAITS,
];

/// Whether only the engine that says so is concerned.
pub(super) fn own_failure(message: &str) -> bool {
    OWN_FAILURES.iter().any(|words| message.contains(words))
}

/// The one of `names` that a message names, if it names exactly one.
pub(super) fn named<'a>(message: &str, names: impl Iterator<Item = &'a Name>) -> Option<&'a Name> {
    let mut found = names.filter(|name| names_it(message, name));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Whether `name` stands in the message as a word of its own.
fn names_it(message: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let part = |c: char| c.is_alphanumeric() || "-_/*+~".contains(c);
    message.match_indices(name).any(|(at, _)| {
        let (before, after) = (&message[..at], &message[at + name.len()..]);
        let mut rest = after.chars();
        let ends = match rest.next() {
            Some('.') => !rest.next().is_some_and(part),
            Some(next) => !part(next),
            None => true,
        };
        ends && !before.ends_with(|c: char| part(c) || c == '.')
    })
}

/// A route table that answers 503: served where a host's only version was refused.
pub(super) fn unavailable(name: &Name) -> Resource {
    let body = DataSource {
        specifier: Some(data_source::Specifier::InlineString("no accepted configuration\n".to_owned())),
        ..Default::default()
    };
    let answer = DirectResponseAction { status: 503, body: Some(body), ..Default::default() };
    let route = Route {
        // The scope walker takes a route without a name for a miss.
        name: "refused".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(route::Action::DirectResponse(answer)),
        ..Default::default()
    };
    let host = VirtualHost {
        name: "refused".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    };
    table(name, "refused", vec![host])
}

/// A route table without hosts, which answers 404: said of a table that is not there.
pub(super) fn absent(name: &Name) -> Resource {
    table(name, "absent", Vec::new())
}

fn table(name: &Name, what: &str, virtual_hosts: Vec<VirtualHost>) -> Resource {
    let table = RouteConfiguration { name: name.to_string(), virtual_hosts, ..Default::default() };
    Resource {
        key: ResourceKey { kind: ResourceKind::Route, name: name.clone() },
        version: Version::of(&(what, name)),
        body: table.encode_to_vec().into(),
        needs: [].into(),
        origins: [].into(),
    }
}

/// Whether it is [`unavailable`], whatever it was made for.
pub(super) fn stands_in(resource: &Resource) -> bool {
    let ResourceKey { kind, name } = &resource.key;
    *kind == ResourceKind::Route && resource.version == stand_in(name)
}

/// Whether a table of this version is [`unavailable`] or [`absent`].
pub(super) fn is_ours(name: &Name, version: Version) -> bool {
    version == stand_in(name) || version == absent(name).version
}

fn stand_in(name: &Name) -> Version {
    Version::of(&("refused", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, names: &[&str], expected: Option<&str>) {
        let names: Vec<Name> = names.iter().map(|name| Name::from(*name)).collect();
        assert_eq!(named(message, names.iter()).map(AsRef::as_ref), expected);
    }

    #[test]
    fn a_name_counts_only_as_a_whole_word() {
        check(
            "Error adding cluster(s) shop/cart/80: bad",
            &["shop/cart/80", "shop/cart/8"],
            Some("shop/cart/80"),
        );
        check("duplicate a.b.example.com.", &["b.example.com", "a.b.example.com"], Some("a.b.example.com"));
        check("missing ): (", &["r/1", "r/2"], None);
        check("x and y differ", &["x", "y"], None);
    }
}
