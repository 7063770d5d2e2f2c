//! The seam between what should be published and who publishes it.

use crate::{base::HostPattern, ir::RecordSet};

/// Takes changes of published names. The embedded responder does it at once and
/// cannot fail; a provider that writes to someone else's DNS will stand behind
/// this as a queue of its own, with ownership, budgets and retries, because the
/// caller must not wait for it.
pub trait Publish {
    /// Publishes these addresses under this name, in place of any before.
    fn set(&self, records: RecordSet);

    /// Withdraws a name.
    fn remove(&self, name: &HostPattern);
}
