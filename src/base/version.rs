//! Versions: a hash of content, equal on every replica and after every restart.

use rustls::crypto::hash::Context;
use serde::{Serialize, Serializer};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// Raised whenever the bytes we build from an equal IR value change, so that an
/// Envoy fed by an older build is sent the new ones.
pub const BUILDER_REVISION: u32 = 1;

/// 128 bits of SHA-256 over a value's `Hash`: IR values hold no `HashMap`, so
/// equal values give equal versions in every process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u128);

impl Version {
    /// The version of a value.
    pub fn of<T: Hash + ?Sized>(value: &T) -> Self {
        let mut hasher = Sha256::new();
        BUILDER_REVISION.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.version()
    }

    /// Eight hex digits, for names.
    #[must_use]
    pub fn short(self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// Reads what `Display` prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Lets `#[derive(Hash)]` feed SHA-256.
struct Sha256(Box<dyn Context>);

impl Sha256 {
    fn new() -> Self {
        let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let tls13 = suite.tls13().expect("the suite is a TLS 1.3 suite");
        Self(tls13.common.hash_provider.start())
    }

    fn version(self) -> Version {
        let output = self.0.finish();
        let mut head = [0; 16];
        head.copy_from_slice(&output.as_ref()[..16]);
        Version(u128::from_be_bytes(head))
    }
}

impl Hasher for Sha256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let output = self.0.fork_finish();
        let mut head = [0; 8];
        head.copy_from_slice(&output.as_ref()[..8]);
        u64::from_be_bytes(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_content_and_nothing_else() {
        let version = Version::of(&("shop", 80_u16));
        assert_eq!(version, Version::of(&("shop", 80_u16)));
        assert_ne!(version, Version::of(&("shop", 81_u16)));
        assert_eq!(Version::parse(&version.to_string()), Some(version));
    }
}
