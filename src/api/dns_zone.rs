//! `DnsZone`: a zone whose names of ours are published.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// A zone the built-in server is authoritative for. Hosts of Ingresses that lie
/// in it are published; hosts in no zone are not.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "DnsZone",
    shortname = "dzone",
    category = "tidegate"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsZoneSpec {
    /// The zone's name: `apps.example.com`.
    pub zone: String,
    /// Names of its authoritative servers, the primary first. Default `ns1.` and the zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<String>,
    /// Addresses of name servers that lie in the zone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub glue: BTreeMap<String, Vec<IpAddr>>,
    /// Whom to write to: `hostmaster.example.com` stands for
    /// hostmaster@example.com. Default `hostmaster.` and the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// TTL of records, in seconds. Default 30, at least 1.
    #[serde(default = "ttl")]
    pub ttl: u32,
    /// How long "no such name" may be remembered, in seconds. Default 10.
    #[serde(default = "negative_ttl")]
    pub negative_ttl: u32,
    /// SOA refresh, in seconds. Default 3600.
    #[serde(default = "refresh")]
    pub refresh: u32,
    /// SOA retry, in seconds. Default 600.
    #[serde(default = "retry")]
    pub retry: u32,
    /// SOA expire, in seconds. Default 604800.
    #[serde(default = "expire")]
    pub expire: u32,
}

fn ttl() -> u32 {
    30
}

fn negative_ttl() -> u32 {
    10
}

fn refresh() -> u32 {
    3_600
}

fn retry() -> u32 {
    600
}

fn expire() -> u32 {
    604_800
}
