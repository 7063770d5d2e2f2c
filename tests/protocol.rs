//! Transcripts of the delta ADS session: each named for the trap it holds off
//! (numbers: the project's list of xDS traps), and a simulated fleet.

#[path = "support/transcript.rs"]
mod transcript;

#[path = "protocol/certificates.rs"]
mod certificates;
#[path = "protocol/order.rs"]
mod order;
#[path = "protocol/refusals.rs"]
mod refusals;
#[path = "protocol/relay.rs"]
mod relay;
#[path = "protocol/restarts.rs"]
mod restarts;
#[path = "protocol/simulation.rs"]
mod simulation;
#[path = "protocol/subscriptions.rs"]
mod subscriptions;
