//! The product on stock Envoy, seen from outside: manifests in a folder, requests
//! to VIPs. What one Envoy resource must look like is held elsewhere; here is what
//! a client gets.

mod support;

#[path = "envoy/edge.rs"]
mod edge;
#[path = "envoy/edits.rs"]
mod edits;
#[path = "envoy/endpoints.rs"]
mod endpoints;
#[path = "envoy/engine.rs"]
mod engine;
#[path = "envoy/join.rs"]
mod join;
#[path = "envoy/journey.rs"]
mod journey;
#[path = "envoy/names.rs"]
mod names;
#[path = "envoy/owners.rs"]
mod owners;
#[path = "envoy/process.rs"]
mod process;
#[path = "envoy/refusal.rs"]
mod refusal;
#[path = "envoy/tls.rs"]
mod tls;
#[path = "envoy/upstreams.rs"]
mod upstreams;
#[path = "envoy/vips.rs"]
mod vips;
#[path = "envoy/walker.rs"]
mod walker;
