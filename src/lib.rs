//! Tidegate: one control plane that drives stock Envoy. ARCHITECTURE.md is the map.

pub mod admin;
pub mod api;
pub mod app;
pub mod base;
pub mod cli;
pub mod clock;
pub mod compile;
pub mod dns;
pub mod echo;
pub mod engine;
pub mod incremental;
pub mod inputs;
pub mod ipam;
pub mod ir;
pub mod pipeline;
pub mod report;
pub mod server;
pub mod settings;
pub mod source;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod translate;
pub mod xds;
pub mod yaml;
