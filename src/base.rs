//! Small values, valid by construction.
//!
//! *Takes* strings and numbers from the border. *Gives* types that cannot hold
//! nonsense. *Invariants*: parsed once, at the border; knows nothing of
//! Kubernetes and nothing of Envoy. *To add one*: a file, and a `pub use` here.

mod chain;
mod hostname;
mod object_key;
mod secret;
mod sorted_map;
mod version;

pub use chain::chain;
pub use hostname::{HostPattern, Hostname, HostnameError};
pub use object_key::{ObjectKey, ObjectKind};
pub use secret::Secret;
pub use sorted_map::SortedMap;
pub use version::{BUILDER_REVISION, Version};

/// A string shared by all who hold it: names are kept once.
pub type Text = std::sync::Arc<str>;

/// The word every annotation, label and API group of ours begins with.
pub const DOMAIN: &str = "tidegate.dev";
