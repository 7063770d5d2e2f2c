//! What a request goes through: early header mutations, then HTTP filters. Both
//! are tables in the order of the chain.

use super::{host, proto};
use crate::ir::{Listener, Protocol};
use envoy_types::pb::{
    envoy::{
        config::{
            common::mutation_rules::v3::{
                HeaderMutation,
                header_mutation::{Action, RemoveOnMatch},
            },
            core::v3::TypedExtensionConfig,
        },
        extensions::{
            dynamic_modules::v3::DynamicModuleConfig,
            filters::{
                http::{dynamic_modules::v3::DynamicModuleFilter, router::v3::Router},
                network::http_connection_manager::v3::{HttpFilter, http_filter::ConfigType},
            },
            http::early_header_mutation::{
                dynamic_modules::v3::DynamicModuleEarlyHeaderMutation,
                header_mutation::v3::HeaderMutation as EarlyHeaderMutation,
            },
        },
        r#type::matcher::v3::string_matcher::MatchPattern,
    },
    google::protobuf::{Any, StringValue},
};

/// Our dynamic module: Envoy loads `libtidegate_module.so` from the folder in
/// `ENVOY_DYNAMIC_MODULES_SEARCH_PATH`.
pub const MODULE: &str = "tidegate_module";

/// The one protocol a client may change to.
pub(super) const UPGRADE: &str = "websocket";

/// Headers a client may not speak to Envoy with. Envoy clears most of them from
/// requests of strangers by itself; all of them is easier to believe in.
const ENVOY_HEADERS: &str = "x-envoy-";

/// Before Envoy's first look at the routes, in this order: nothing of the
/// client's is left before we write ours.
pub(super) fn early_mutations(listener: &Listener) -> Vec<TypedExtensionConfig> {
    vec![
        remove_envoy_headers(),
        // Sets `x-scope` and the constants, each to one value, whatever the client sent.
        proto::extension("scope", &scope(listener)),
    ]
}

pub(super) fn remove_envoy_headers() -> TypedExtensionConfig {
    let matcher = proto::text(MatchPattern::Prefix(ENVOY_HEADERS.to_owned()));
    let action = Action::RemoveOnMatch(RemoveOnMatch { key_matcher: Some(matcher) });
    let mutations = vec![HeaderMutation { action: Some(action) }];
    proto::extension("envoy-headers", &EarlyHeaderMutation { mutations })
}

/// `x-sni` is asked for on plain listeners too: there it is only ever removed.
fn scope(listener: &Listener) -> DynamicModuleEarlyHeaderMutation {
    let tls = tls_header(listener.protocol);
    let (vip, sni, tls_name, gateway) = (host::VIP, host::SNI, host::TLS, &listener.gateway);
    let value = format!("{vip}={gateway} {sni}=@sni {tls_name}={tls}");
    DynamicModuleEarlyHeaderMutation {
        dynamic_module_config: Some(module()),
        early_header_mutation_name: "scope".to_owned(),
        early_header_mutation_config: Some(proto::any(&StringValue { value })),
    }
}

pub(super) fn tls_header(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => host::TLS_OFF,
        Protocol::Https => host::TLS_ON,
    }
}

/// One place of the chain.
struct Row {
    name: &'static str,
    build: fn() -> Any,
    /// Needs our module in Envoy.
    module: bool,
}

const CHAIN: [Row; 2] = [
    // First: all that follow may ask for the route, so it must be the right one by then.
    Row { name: "walk", build: walk, module: true },
    // Last: it ends the chain.
    Row { name: "envoy.filters.http.router", build: router, module: false },
];

/// The chain, with or without what our module does.
pub(super) fn http_filters(module: bool) -> Vec<HttpFilter> {
    let rows = CHAIN.iter().filter(|row| module || !row.module);
    rows.map(|Row { name, build, module: _ }| HttpFilter {
        name: (*name).to_owned(),
        config_type: Some(ConfigType::TypedConfig(build())),
        ..HttpFilter::default()
    })
    .collect()
}

/// Finds wildcard and default hosts where the exact host has no table. Envoy
/// refuses an upgrade by the listener's list only where it knew the route at once,
/// so the walker is given that list.
fn walk() -> Any {
    let value = format!("upgrade={UPGRADE}");
    proto::any(&DynamicModuleFilter {
        dynamic_module_config: Some(module()),
        filter_name: "walk".to_owned(),
        filter_config: Some(proto::any(&StringValue { value })),
        ..DynamicModuleFilter::default()
    })
}

fn router() -> Any {
    // `x-envoy-*` is a talk between Envoys; neither backends nor clients are part of it.
    proto::any(&Router { suppress_envoy_headers: true, ..Router::default() })
}

fn module() -> DynamicModuleConfig {
    // Once loaded it stays: unloading code while threads may still be in it gains nothing.
    DynamicModuleConfig { name: MODULE.to_owned(), do_not_close: true, ..DynamicModuleConfig::default() }
}
