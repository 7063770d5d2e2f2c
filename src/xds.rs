//! IR in, Envoy resources out: the only room that knows Envoy's types.
//!
//! *Takes* one IR value. *Gives* [`Resource`]s, encoded once. *Invariants*: total
//! (what cannot be built was refused before), versions are hashes of the IR,
//! never of protobuf bytes; no kube, no api, no inputs. *To add one*: a file
//! named as in `ir`; an HTTP filter is a row in `filters`.

mod resource;

pub use resource::{Name, Resource, ResourceKey, ResourceKind, Update};
