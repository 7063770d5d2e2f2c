//! `InfraSetting`: how the gateways of an IngressClass, or of a namespace, are built.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// VIPs, listeners and edge behaviour. An IngressClass names one in
/// `spec.parameters` (apiGroup `tidegate.dev`, kind `InfraSetting`, scope
/// Cluster); a namespace overrides it whole by the annotation
/// `tidegate.dev/infra-setting: NAME`, and then has gateways of its own.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "InfraSetting",
    shortname = "infra",
    category = "tidegate"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InfraSettingSpec {
    pub vip: VipSpec,
    pub listeners: ListenersSpec,
    /// Sends plain requests of hosts that have TLS to https. Default off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_redirect: Option<RedirectSpec>,
    pub timeouts: TimeoutsSpec,
    pub client_address: ClientAddressSpec,
    pub paths: PathsSpec,
    pub headers: HeadersSpec,
    pub limits: LimitsSpec,
    pub backends: BackendsSpec,
    /// Lets several namespaces share hosts that would else belong to the
    /// namespace of the oldest Ingress alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_grants: Vec<HostGrant>,
    /// One JSON line a request on the engine's standard output. Default on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<bool>,
}

/// Which address a gateway gets, and who shares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VipSpec {
    /// Only this VipPool; default: the pools in order of priority that allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Default IPv4.
    pub families: Vec<AddressFamily>,
    /// These very addresses (one a family), for a VIP shared by a class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Default IngressClass.
    pub sharing: VipSharing,
    /// With sharing IngressClass: spread hosts over this many VIPs, 1 to 64, by
    /// rendezvous hashing (one more VIP moves 1/n of the hosts). Default 1.
    pub shards: u16,
}

impl Default for VipSpec {
    fn default() -> Self {
        Self {
            pool: None,
            families: vec![AddressFamily::IPv4],
            addresses: Vec::new(),
            sharing: VipSharing::IngressClass,
            shards: 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressFamily {
    IPv4,
    IPv6,
}

/// Who shares a VIP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VipSharing {
    /// All Ingresses of the class.
    #[default]
    IngressClass,
    /// Each Ingress has its own.
    Ingress,
    /// Each host has its own.
    Host,
}

/// Ports of a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenersSpec {
    /// Port for plain HTTP; 0 for none. Default 80.
    pub http: u16,
    /// Port for HTTPS, opened when a host of the VIP has TLS; 0 for none. Default 443.
    pub https: u16,
}

impl Default for ListenersSpec {
    fn default() -> Self {
        Self { http: 80, https: 443 }
    }
}

/// A redirect to https.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RedirectSpec {
    /// 301, 302, 303, 307 or 308. Default 308, which keeps the method.
    pub status: u16,
    /// The port clients see, where it is not the HTTPS listener's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl Default for RedirectSpec {
    fn default() -> Self {
        Self { status: 308, port: None }
    }
}

/// Times in milliseconds; 0 means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TimeoutsSpec {
    /// A whole answer. Default 0: uploads, event streams and gRPC streams last.
    pub route_ms: u64,
    /// Nothing moved on a stream. Default 300000.
    pub stream_idle_ms: u64,
    /// Until a request's headers are complete. Default 10000.
    pub request_headers_ms: u64,
    /// Nothing moved on a connection. Default 3600000.
    pub connection_idle_ms: u64,
    /// Connecting to a backend. Default 5000; at least 1.
    pub connect_ms: u64,
    /// Connections of a listener that goes away may finish. Default 30000.
    pub drain_ms: u64,
}

impl Default for TimeoutsSpec {
    fn default() -> Self {
        Self {
            route_ms: 0,
            stream_idle_ms: 300_000,
            request_headers_ms: 10_000,
            connection_idle_ms: 3_600_000,
            connect_ms: 5_000,
            drain_ms: 30_000,
        }
    }
}

/// Where a client's address comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientAddressSpec {
    /// How many proxies in front of us may be believed in `x-forwarded-for`.
    /// Default 0: the peer's own address.
    pub trusted_hops: u32,
    /// Clients (a load balancer in front) speak PROXY protocol. Default false;
    /// then a connection without it is refused.
    pub proxy_protocol: bool,
}

/// How paths are read before a route is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PathsSpec {
    /// Resolves `.` and `..` (RFC 3986 section 6). Default true.
    pub normalize: bool,
    /// Takes `//` for `/`. Default false.
    pub merge_slashes: bool,
    /// `%2F` and `%5C`. Default Keep.
    pub escaped_slashes: EscapedSlashesSpec,
    /// What an Ingress path of type ImplementationSpecific means. Default Prefix.
    pub implementation_specific: ImplementationSpecific,
}

impl Default for PathsSpec {
    fn default() -> Self {
        Self {
            normalize: true,
            merge_slashes: false,
            escaped_slashes: EscapedSlashesSpec::Keep,
            implementation_specific: ImplementationSpecific::Prefix,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EscapedSlashesSpec {
    /// Left as they are.
    Keep,
    /// Answered 400.
    Reject,
    /// Unescaped by a redirect.
    Redirect,
    /// Unescaped, and served.
    Unescape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImplementationSpecific {
    /// As pathType Prefix.
    Prefix,
    /// As pathType Exact.
    Exact,
    /// A regular expression (RE2) that must match the whole path; tried after
    /// Exact paths, and among Prefixes by length.
    Regex,
}

/// Header rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeadersSpec {
    /// Requests with `_` in a header name. Default Reject: backends that read
    /// `_` as `-` can be deceived.
    pub underscores: UnderscoresSpec,
    /// All request headers together, in KiB: 1 to 8192. Default 60.
    pub max_kib: u32,
    /// How many request headers. Default 100.
    pub max_count: u32,
}

impl Default for HeadersSpec {
    fn default() -> Self {
        Self { underscores: UnderscoresSpec::Reject, max_kib: 60, max_count: 100 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UnderscoresSpec {
    Allow,
    /// Answered 400.
    Reject,
    /// The header is dropped.
    Drop,
}

/// What one client may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// HTTP/2 streams at once on a connection. Default 100.
    pub concurrent_streams: u32,
    /// Connections at once on a listener of one engine. Default 100000.
    pub connections: u32,
    /// Bytes buffered for a connection. Default 32768.
    pub buffer_bytes: u32,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self { concurrent_streams: 100, connections: 100_000, buffer_bytes: 32_768 }
    }
}

/// How backends are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendsSpec {
    /// Follows Services of type ExternalName. Default false: a name can be made
    /// to lead anywhere, our own admin ports included.
    pub external_name: bool,
    /// How backends whose appProtocol is https or wss prove who they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<BackendTls>,
}

/// What the certificate of a TLS backend is checked against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTls {
    pub namespace: String,
    pub service: String,
    /// A Secret of that namespace with the authorities in `ca.crt`.
    pub ca_secret: String,
    /// The DNS name the certificate must have; also sent as SNI.
    pub server_name: String,
}

/// Namespaces that share a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostGrant {
    /// A host, or `*.example.com` for that host's whole subtree.
    pub host: String,
    /// These may use it beside its owner.
    pub namespaces: Vec<String>,
}
