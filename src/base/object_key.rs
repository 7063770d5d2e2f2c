//! The identity of an object: kind, namespace, name.

use super::Text;
use serde::{Deserialize, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// The kinds we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    Namespace,
    IngressClass,
    InfraSetting,
    VipPool,
    DnsZone,
    Ingress,
    Service,
    EndpointSlice,
    Secret,
}

impl ObjectKind {
    /// All of them, cluster-wide kinds first.
    pub const ALL: [Self; 9] = [
        Self::Namespace,
        Self::IngressClass,
        Self::InfraSetting,
        Self::VipPool,
        Self::DnsZone,
        Self::Ingress,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
    ];

    /// As `kind:` in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::IngressClass => "IngressClass",
            Self::InfraSetting => "InfraSetting",
            Self::VipPool => "VipPool",
            Self::DnsZone => "DnsZone",
            Self::Ingress => "Ingress",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
        }
    }

    /// Whether objects of this kind live in a namespace.
    #[must_use]
    pub fn namespaced(self) -> bool {
        matches!(self, Self::Ingress | Self::Service | Self::EndpointSlice | Self::Secret)
    }
}

/// Which object: prints as `Ingress/shop/cart`, or `VipPool/public` where the
/// kind has no namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: ObjectKind,
    /// Empty for cluster-wide kinds.
    pub namespace: Text,
    pub name: Text,
}

impl ObjectKey {
    #[must_use]
    pub fn new(kind: ObjectKind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// A key of a kind that has no namespace.
    #[must_use]
    pub fn cluster(kind: ObjectKind, name: &str) -> Self {
        Self::new(kind, "", name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        f.write_str(kind.as_str())?;
        if !namespace.is_empty() {
            write!(f, "/{namespace}")?;
        }
        write!(f, "/{name}")
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads what [`ObjectKey`] prints; the kind's case does not matter.
impl FromStr for ObjectKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '/');
        let kind = parts.next().unwrap_or_default();
        let kind = ObjectKind::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(kind))
            .ok_or_else(|| format!("'{kind}' is no kind that Tidegate reads"))?;
        match (kind.namespaced(), parts.next(), parts.next()) {
            (true, Some(namespace), Some(name)) => Ok(Self::new(kind, namespace, name)),
            (false, Some(name), None) => Ok(Self::cluster(kind, name)),
            (true, ..) => Err(format!("write {}/NAMESPACE/NAME", kind.as_str())),
            (false, ..) => Err(format!("write {}/NAME", kind.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_back() {
        for text in ["Ingress/shop/cart", "VipPool/public"] {
            assert_eq!(text.parse::<ObjectKey>().expect("a key").to_string(), text);
        }
        assert_eq!("ingress/shop/cart".parse::<ObjectKey>().expect("a key").name.as_ref(), "cart");
        assert!("Ingress/cart".parse::<ObjectKey>().is_err());
        assert!("Pod/shop/cart".parse::<ObjectKey>().is_err());
    }
}
