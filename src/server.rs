//! The delta ADS server: one fleet's resources to its engines.
//!
//! *Takes* updates (resources encoded once, names removed). *Gives* each engine
//! what it asked for, in an order that breaks nothing, and tells what engines
//! accepted or refused. Knows nothing of the IR, of our kinds, of Kubernetes.
//!
//! *Invariants*:
//! - Before the first publish no stream is answered: an absence nobody has
//!   checked must not reach an Envoy.
//! - A stream's memory is what it asked for by name and what differs from the
//!   cache, never a copy of all versions. A cost of a change is O(change) for
//!   each stream.
//! - Make before break: a resource goes out when the engine holds what it needs
//!   (of earlier kinds; later ones follow right behind), and is removed a grace
//!   after nothing that the engine may hold needs it. A resource's `needs` name
//!   what it refers to, and the endpoints of a cluster bear the cluster's name.
//! - One unanswered response a kind (a few for routes, one edit each). Nothing of
//!   a refused response counts as held.
//! - A refused version is never sent again to anybody: engines that hold it keep
//!   it, others have the last good one, and where none was, hosts answer 503. What
//!   the last good version needs is kept with it.
//! - The fleet and the engine are those of the certificate; what a node says of
//!   itself is compared and never believed.
//!
//! *To add one*: a kind is a variant of [`crate::xds::ResourceKind`] at its place
//! in the order, and a row in the matches that the compiler then points at.

mod admission;
mod ads;
pub mod authority;
pub mod cache;
mod client;
mod codec;
mod fleet;
pub mod frame;
pub mod node;
mod refusal;
pub mod relay;
mod renewal;
pub mod session;

pub use ads::{Door, Listen, Server};
pub use authority::Authority;
pub use client::{Client, ConnectError, Credentials};
pub use fleet::{EngineEvent, EngineStatus, FleetEvent, Handle, Held, STREAMS_MAX};
pub use node::Identity;
pub use renewal::Renewal;
