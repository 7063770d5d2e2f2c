//! `VipPool`: addresses that gateways may be given.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Addresses for virtual services. IPv4 and IPv6 may stand in one pool.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "VipPool",
    shortname = "vpool",
    category = "tidegate"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VipPoolSpec {
    /// CIDRs (`10.1.0.0/24`, `2001:db8::/120`), ranges (`10.1.0.10-10.1.0.50`)
    /// or single addresses. A CIDR gives all of its addresses, except the
    /// network and broadcast address of an IPv4 CIDR shorter than /31.
    pub addresses: Vec<String>,
    /// Addresses never given, written as above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Only claims of namespaces that have these labels, or are named here. A
    /// VIP that several namespaces share needs a pool without a selection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Selector>,
    /// Higher is tried first; equal priorities by name. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// How long a released address is kept from others, in seconds, so that
    /// nobody's cached DNS answer leads to a stranger. Default 60.
    #[serde(default = "quarantine_seconds")]
    pub quarantine_seconds: u32,
}

/// Which namespaces: named ones, or those with all of the labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

fn quarantine_seconds() -> u32 {
    60
}
