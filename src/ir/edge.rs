//! How a listener treats its clients. One value a gateway; every field has a
//! default that one may be paged for. Docs of each: `api::InfraSetting`.

use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Edge {
    /// Proxies in front of us whose `x-forwarded-for` we believe.
    pub trusted_hops: u32,
    /// Clients speak PROXY protocol (v1 or v2) before anything else.
    pub proxy_protocol: bool,
    pub paths: PathRules,
    pub underscores: Underscores,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub access_log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PathRules {
    /// RFC 3986 dot segments are resolved before a route is chosen.
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

/// What happens to `%2F` and `%5C` in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EscapedSlashes {
    Keep,
    Reject,
    Redirect,
    Unescape,
}

/// What happens to a request with `_` in a header name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Underscores {
    Allow,
    Reject,
    Drop,
}

/// Zero never means "no limit": that is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Timeouts {
    /// From the end of the request to the end of the answer; none by default,
    /// since Envoy's own 15 s ends uploads, event streams and gRPC streams.
    pub route: Option<Duration>,
    /// Nothing moved on a stream for this long.
    pub stream_idle: Option<Duration>,
    /// Until a request's headers are complete.
    pub request_headers: Option<Duration>,
    /// Nothing at all on a connection.
    pub connection_idle: Option<Duration>,
    /// How long a connection is given to close by itself when its listener drains.
    pub drain: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Limits {
    /// HTTP/2 streams at once on a connection.
    pub concurrent_streams: u32,
    pub headers_kib: u32,
    pub headers: u32,
    /// Connections at once on a listener of one engine.
    pub connections: u32,
    /// Bytes buffered for a connection before back-pressure.
    pub buffer_bytes: u32,
}
