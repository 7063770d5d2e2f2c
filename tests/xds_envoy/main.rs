//! What `xds` builds, given to the pinned stock Envoy: first to its validation,
//! then to run.
//!
//! Envoy is `TIDEGATE_ENVOY`, else what `envoy/install.sh` installs; the module
//! is `TIDEGATE_MODULE`, else the one that `cargo build --workspace` left.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test program: its environment, its clock, its panics, nobody outside it"
)]

mod ads;
mod build;
mod client;
mod envoy;
mod standalone;
mod world;
