//! Small values as Envoy's protobuf spells them.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, Pipe, SocketAddress,
            TransportSocket, TypedExtensionConfig, address, config_source::ConfigSourceSpecifier,
            data_source, socket_address::PortSpecifier, transport_socket,
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{Any, BoolValue, Duration, UInt32Value},
};
use prost::{Message, Name};
use std::{net::SocketAddr, time};

pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(super) fn extension<M: Message + Name>(name: &str, message: &M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(message)) }
}

pub(super) fn transport_socket<M: Message + Name>(name: &str, message: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(message))),
    }
}

pub(super) fn duration(value: time::Duration) -> Duration {
    Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(DURATION_SECONDS_MAX).min(DURATION_SECONDS_MAX),
        nanos: value.subsec_nanos().cast_signed(),
    }
}

/// `google.protobuf.Duration` ends at 10,000 years; Envoy's own clock, in
/// nanoseconds, at 292.
const DURATION_SECONDS_MAX: i64 = 100 * 365 * 86_400;

/// Envoy takes a zero for "no limit" where leaving the field out would mean a
/// default of its own.
pub(super) fn limit(value: Option<time::Duration>) -> Duration {
    value.map(duration).unwrap_or_default()
}

pub(super) fn uint(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(super) fn yes(value: bool) -> BoolValue {
    BoolValue { value }
}

/// The one source of every resource. On-demand certificates of two listeners
/// are shared only where this is equal byte by byte.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub(super) fn socket_address(host: &str, port: u16) -> Address {
    let socket = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

pub(super) fn ip_address(at: SocketAddr) -> Address {
    socket_address(&at.ip().to_string(), at.port())
}

/// A socket that is listened on: nobody but the owner may speak to it.
pub(super) fn pipe(path: &str) -> Address {
    const OWNER_ONLY: u32 = 0o600;
    unix_socket(path, OWNER_ONLY)
}

/// A socket of somebody else, to connect to.
pub(super) fn pipe_to(path: &str) -> Address {
    unix_socket(path, 0)
}

fn unix_socket(path: &str, mode: u32) -> Address {
    Address { address: Some(address::Address::Pipe(Pipe { path: path.to_owned(), mode })) }
}

/// PEM is text; what is not goes as bytes, so that Envoy may say what is wrong with it.
pub(super) fn inline(bytes: &[u8]) -> DataSource {
    let specifier = match std::str::from_utf8(bytes) {
        Ok(text) => data_source::Specifier::InlineString(text.to_owned()),
        Err(_) => data_source::Specifier::InlineBytes(bytes.to_owned()),
    };
    DataSource { specifier: Some(specifier), watched_directory: None }
}

pub(super) fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), watched_directory: None }
}

pub(super) fn regex(regex: String) -> RegexMatcher {
    RegexMatcher { regex, engine_type: None }
}

pub(super) fn text(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}
