//! Facts in, IR out: what an Ingress and a Service mean.
//!
//! *Takes* a [`World`]: the facts and the outcomes of lower units. *Gives* IR
//! values and findings. *Invariants*: pure and total (a mistake becomes a finding
//! on its object and costs that object's part alone); nothing is read but through
//! the world; knows nothing of Envoy and of how it is called again. *To add one*:
//! a file an input kind, and its unit in `compile`.

mod attachment;
mod certificate;
mod endpoints;
mod gateway;
mod host;
mod owner;
mod records;
mod regex;
mod setting;
mod sni;
mod upstream;
mod world;

pub use attachment::{AttachedBackend, AttachedHost, AttachedPath, Attachment, translate_ingress};
pub use certificate::translate_secret;
pub use endpoints::translate_endpoints;
pub use gateway::{Gateway, translate_gateway};
pub use host::{HostOutcome, SniClaim, translate_host};
pub use owner::{Owner, resolve_owner};
pub use records::{apex_text, translate_records, translate_zone};
pub use setting::{Setting, translate_setting};
pub use sni::{Sni, translate_sni};
pub use upstream::{Missing, translate_upstream};
pub use world::{Contender, OwnerScope, World};

/// What holds for the whole process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Endpoints on loopback addresses may be sent traffic: for demos and tests
    /// on one machine.
    pub loopback_endpoints: bool,
    /// Never sent traffic, whatever else is allowed: where we listen ourselves. The
    /// unspecified address stands for every loopback address beside those listed.
    pub forbidden_endpoints: std::collections::BTreeSet<std::net::SocketAddr>,
}

/// A user's text in a message: escaped, and not longer than a line.
fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let escaped = text.escape_debug().to_string();
    match escaped.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &escaped[..end]),
        None => escaped,
    }
}
