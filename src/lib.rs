//! Tidegate: one control plane that drives stock Envoy. ARCHITECTURE.md is the map.

pub mod api;
pub mod base;
pub mod inputs;
pub mod ir;
pub mod report;
pub mod source;
pub mod xds;
pub mod yaml;
