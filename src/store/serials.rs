//! The serial of each DNS zone, and what the zone held at that serial.

use crate::base::Version;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::collections::BTreeMap;

/// A serial belongs to a content: the same content keeps it over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serial {
    /// The hash of the zone's records.
    #[serde(deserialize_with = "version")]
    pub content: Version,
    /// SOA serial (RFC 1035, RFC 1982).
    pub serial: u32,
}

/// By zone apex.
pub type Serials = BTreeMap<String, Serial>;

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
    let text = String::deserialize(deserializer)?;
    Version::parse(&text).ok_or_else(|| D::Error::custom("a content hash has 32 hex digits"))
}
