//! The model in our own words: what should be served, where, and how.
//!
//! *Takes* nothing: plain values. *Gives* `Eq + Hash + Serialize` values, so that
//! a version is their hash and a golden file their print. *Invariants*: knows
//! nothing of Kubernetes and nothing of Envoy; no `HashMap` (its order is not
//! content). *To add one*: a file named as the feature is named in `api` and `xds`.

mod certificate;
mod edge;
mod gateway;
mod host;
mod record;
mod upstream;

pub use certificate::{Certificate, DedicatedChain, SniCertificate};
pub use edge::{Edge, EscapedSlashes, Limits, PathRules, Timeouts, Underscores};
pub use gateway::{Claim, Families, GatewayKey, GatewayName, GatewayScope, Listener, ListenerKey, Protocol};
pub use host::{Action, Host, HostKey, HostTls, PathMatch, Redirect, Route};
pub use record::{RecordSet, Zone};
pub use upstream::{
    Endpoint, Endpoints, Upstream, UpstreamKey, UpstreamPolicy, UpstreamProtocol, UpstreamTls,
};
