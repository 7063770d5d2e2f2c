//! One JSON line a request on the engine's standard output.

use envoy_types::pb::{
    envoy::{
        config::accesslog::v3::{AccessLog, access_log::ConfigType},
        extensions::access_loggers::stream::v3 as envoy,
    },
    google::protobuf::{Any, Value, value::Kind},
};
use prost::{Message, Name};
use std::collections::BTreeMap;

/// The fields of a line; what has no value is left out. They are public: people
/// build dashboards on them, so a name is never reused for another meaning.
/// JSON, because a text format could be forged by what a client sends.
const FIELDS: [(&str, &str); 24] = [
    ("time", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"),
    ("vip", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
    // Of the connection itself: differs from `client` behind a trusted proxy.
    ("peer", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"),
    ("sni", "%REQUESTED_SERVER_NAME%"),
    ("tls_version", "%DOWNSTREAM_TLS_VERSION%"),
    ("protocol", "%PROTOCOL%"),
    ("method", "%REQ(:METHOD)%"),
    ("scheme", "%REQ(X-FORWARDED-PROTO)%"),
    ("host", "%REQ(:AUTHORITY)%"),
    ("path", "%REQ(:PATH)%"),
    ("route", "%ROUTE_NAME%"),
    ("upstream", "%UPSTREAM_CLUSTER_RAW%"),
    ("endpoint", "%UPSTREAM_HOST%"),
    ("status", "%RESPONSE_CODE%"),
    // Why there was no answer of a backend's: Envoy's own words.
    ("flags", "%RESPONSE_FLAGS%"),
    ("details", "%RESPONSE_CODE_DETAILS%"),
    ("grpc_status", "%GRPC_STATUS_NUMBER%"),
    ("duration_ms", "%DURATION%"),
    // Until the backend's first byte.
    ("upstream_ms", "%RESPONSE_DURATION%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
];

pub(super) fn build_access_log() -> AccessLog {
    let fields = FIELDS.map(|(name, format)| {
        let value = Value { kind: Some(Kind::StringValue(format.to_owned())) };
        (name.to_owned(), value)
    });
    let format = Format { json_format: Some(Fields { fields: fields.into() }), omit_empty_values: true };
    let stdout = Stdout { log_format: Some(format) };
    let any = Any { type_url: envoy::StdoutAccessLog::type_url(), value: stdout.encode_to_vec() };
    AccessLog {
        name: "envoy.access_loggers.stdout".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any)),
        ..AccessLog::default()
    }
}

// The same messages as `envoy::StdoutAccessLog` and what is in it, but with a
// map that has an order. envoy-types keeps a `Struct` in a `HashMap`: its bytes
// differ from one encoding to the next, and a filter chain whose bytes differ is
// another chain to Envoy, which would drain every connection of the VIP.

#[derive(Clone, PartialEq, Message)]
struct Stdout {
    #[prost(message, optional, tag = "1")]
    log_format: Option<Format>,
}

/// `envoy.config.core.v3.SubstitutionFormatString`
#[derive(Clone, PartialEq, Message)]
struct Format {
    #[prost(message, optional, tag = "2")]
    json_format: Option<Fields>,
    #[prost(bool, tag = "3")]
    omit_empty_values: bool,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, Message)]
struct Fields {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}
