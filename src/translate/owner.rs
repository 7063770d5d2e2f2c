//! Who owns a host: the namespace of its oldest Ingress.

use super::{OwnerScope, World};
use crate::base::{HostPattern, ObjectKey, Text};
use std::collections::BTreeSet;

/// The namespace that owns a host, and those it shares with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub namespace: Text,
    /// The Ingress that decided it.
    pub by: ObjectKey,
    /// Namespaces a setting grants the host to, too.
    pub granted: BTreeSet<Text>,
}

impl Owner {
    #[must_use]
    pub fn admits(&self, namespace: &Text) -> bool {
        *namespace == self.namespace || self.granted.contains(namespace)
    }
}

/// The owner of a host. A one-label wildcard owns the names below it too, unless
/// one of them is older: nobody takes a name out of another's wildcard.
pub fn resolve_owner(world: &mut dyn World, scope: &OwnerScope) -> Option<Owner> {
    let own = world.oldest(scope);
    let above = match scope {
        OwnerScope::Host(HostPattern::Exact(name)) => {
            name.parent().and_then(|parent| world.oldest(&OwnerScope::Host(HostPattern::OneLabel(parent))))
        }
        OwnerScope::Host(_) | OwnerScope::Default(_) => None,
    };
    let oldest = [own, above].into_iter().flatten().min()?;
    let setting = world.attachment(&oldest.ingress).map(|attachment| attachment.setting.clone());
    let granted = match (scope, setting) {
        (OwnerScope::Host(host), Some(setting)) => setting.granted(host),
        (OwnerScope::Host(_) | OwnerScope::Default(_), _) => BTreeSet::new(),
    };
    Some(Owner { namespace: oldest.ingress.namespace.clone(), by: oldest.ingress, granted })
}
