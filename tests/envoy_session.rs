//! The delta ADS server against stock Envoy, over mTLS.

#[path = "envoy_session/control.rs"]
mod control;
#[path = "envoy_session/engines.rs"]
mod engines;
/// Values of the IR, where a real listener of ours is wanted.
#[path = "xds_envoy/world.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
mod ir_world;
#[path = "envoy_session/quarantine.rs"]
mod quarantine;
#[path = "support/stock_envoy.rs"]
mod stock_envoy;
#[path = "envoy_session/traps.rs"]
mod traps;
#[path = "envoy_session/world.rs"]
mod world;
