//! Tidegate's dynamic module for stock Envoy: it finds the routes of a host in a sharded table.
//!
//! Routes are sharded by SRDS: one small RouteConfiguration per (host, VIP), chosen by the header
//! `x-scope` (and `x-vip`). Envoy looks such a key up exactly or not at all: it knows no wildcard,
//! no default and no upper case. This module supplies the three.
//!
//! # Takes
//! * Early header mutation `scope`, before Envoy's first look at the routes: `:authority`. Its
//!   config is a `StringValue` of `name=value` words ([`constants`]), empty allowed.
//! * HTTP filter `walk`, the first filter of the chain: the scope key and Envoy's route table. Its
//!   config is a `StringValue` too, the upgrades that the listener allows ([`upgrades`]).
//!
//! # Gives
//! * `scope`: exactly one `x-scope`, the canonical host ([`scope::canonical`]), whatever the client
//!   sent; the same for each constant, such as `x-vip=vip0`. `x-sni=@sni` sets the server name of
//!   the TLS handshake in lower case, and removes the header where there was none. (The built-in
//!   `header_mutation` is not needed for it: the ABI has the attribute in this hook, and unlike the
//!   built-in's formatter this also removes what a client without SNI wrote.)
//! * `walk`: where the exact host has no route, the `x-scope` of the nearest wildcard that has one
//!   ([`scope::Steps`]); where the route found is named `->default`, the default scope is asked
//!   once more ([`walk::walk`]). An upgrade that is not allowed gets a 403 there.
//!
//! # Invariants
//! * Every route has a name: an unnamed one is not seen as found. Every RouteConfiguration of an
//!   exact host ends in a catch-all route, else a path without a route would look like a host
//!   without one and walk on to a wildcard.
//! * A key written here starts with `=` when it must never match: no scope may start so.
//! * No panic leaves a hook. `walk` then lets the request go on as it is; `scope` takes `x-scope`
//!   away, so that a client's own word is never the key, and the request gets a 404.
//! * The hit path allocates nothing here: one attribute read.
//! * Knows nothing of the control plane, clusters or paths.
//!
//! # What Envoy decides before the walk
//! A host that the walker finds has no route yet when Envoy builds the filter chain, so its route
//! is not asked for (each has its live test):
//! * whether a filter is on: `disabled` on the listener or `FilterConfig.disabled` on a route work
//!   on exact hosts only. A filter that not every route has goes into a slot (`composite` inside
//!   `ExtensionWithMatcher`), which reads the route when the request passes;
//! * upgrades: the listener allows them, a route refuses by matching the `upgrade` header;
//! * trace sampling: looked at again after the walk, but only ever raised.
//!
//! Timeouts, stream limits and per-route configs of filters are read later and need no care.
//! Internal redirects are not followed: the keys are gone from the request by then (each
//! RouteConfiguration removes them), and where they stayed, the old host's routes would answer.
//!
//! # To add one
//! A filter (the WAF) is a file of its own and an arm in `hooks.rs`, where filters are told apart
//! by name. A callback is declared in `abi.rs`, checked against `abi.h` of the pinned Envoy, and
//! wrapped in `envoy.rs`.
//!
//! Envoy loads `lib<name>.so` from the folder in `ENVOY_DYNAMIC_MODULES_SEARCH_PATH`, for the
//! `dynamic_module_config.name` of the listener: `tidegate_module` with cargo's file name.

// Without unwinding a panic in here would end the whole Envoy process.
#[cfg(panic = "abort")]
compile_error!("tidegate-module must be built with panic = \"unwind\"");

pub mod constants;
pub mod scope;
pub mod upgrades;
pub mod walk;

// Unit tests are a program of their own, without Envoy's callbacks to link to.
#[cfg(not(test))]
mod abi;
#[cfg(not(test))]
mod envoy;
#[cfg(not(test))]
mod hooks;

/// The ABI of Envoy's dynamic modules that this is written against (Envoy 1.40).
///
/// Envoy only warns when it differs, so the control plane compares it before it offers the module.
pub const ABI: &str = "v0.2.0";
