//! IR in, Envoy resources out: the only room that knows Envoy's types.
//!
//! *Takes* one IR value. *Gives* [`Resource`]s, encoded once. *Invariants*: total
//! (what cannot be built was refused before), versions are hashes of the IR,
//! never of protobuf bytes; no kube, no api, no inputs. *To add one*: a file
//! named as in `ir`; an HTTP filter is a row in `filters`.

mod access_log;
mod body;
mod bootstrap;
mod certificate;
mod edge;
mod endpoints;
mod filters;
mod host;
mod listener;
pub mod names;
mod print;
mod proto;
mod resource;
mod route;
mod standalone;
mod upstream;

pub use body::Body;
pub use bootstrap::{Admin, Bootstrap, ControlPlane, Share, build_bootstrap};
pub use certificate::{build_dedicated, build_sni};
pub use endpoints::build_endpoints;
pub use filters::MODULE;
pub use host::build_host;
pub use listener::build_listener;
pub use print::print_resource;
pub use resource::{Name, Resource, ResourceKey, ResourceKind, Update};
pub use standalone::{Standalone, build_standalone};
pub use upstream::build_upstream;

use crate::base::{ObjectKey, Version};
use std::sync::Arc;

/// Encodes once; the names it needs are sorted and each there once.
fn encode<M: prost::Message>(
    key: ResourceKey,
    version: Version,
    message: &M,
    needs: impl IntoIterator<Item = ResourceKey>,
    origins: impl Into<Arc<[ObjectKey]>>,
) -> Resource {
    let needs: std::collections::BTreeSet<_> = needs.into_iter().collect();
    Resource {
        key,
        version,
        body: Body::from(message.encode_to_vec()),
        needs: needs.into_iter().collect(),
        origins: origins.into(),
    }
}
