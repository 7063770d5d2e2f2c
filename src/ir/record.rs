//! Names we answer for.

use crate::base::{HostPattern, Hostname};
use serde::Serialize;
use std::net::IpAddr;

/// The addresses of one published host, of both families.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct RecordSet {
    /// Exact, or a wildcard (which DNS answers for any number of labels,
    /// RFC 4592: more than an Ingress wildcard covers).
    pub name: HostPattern,
    /// Sorted, each once, never empty.
    pub addresses: Vec<IpAddr>,
    /// Seconds; none for the zone's own.
    pub ttl: Option<u32>,
}

/// A zone we are authoritative for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Zone {
    pub apex: Hostname,
    /// Authoritative servers, the primary first; never empty.
    pub name_servers: Vec<Hostname>,
    /// Addresses of those name servers that lie in the zone.
    pub glue: Vec<(Hostname, IpAddr)>,
    /// Whom to write to, as an SOA spells it: `hostmaster.example.com`.
    pub contact: Hostname,
    /// Seconds: of records that have none of their own.
    pub ttl: u32,
    /// Seconds: how long "no such name" may be remembered (RFC 2308).
    pub negative_ttl: u32,
    pub refresh: u32,
    pub retry: u32,
    pub expire: u32,
}
