//! How HTTP clients are treated: the connection manager. Its bytes hold no host
//! and no route, for a chain whose bytes change loses its connections.

use super::{access_log, filters, host, proto};
use crate::ir::{Edge, EscapedSlashes, Limits, Listener, PathRules, Timeouts, Underscores};
use envoy_types::pb::envoy::{
    config::{
        core::v3::{
            CidrRange, Http2ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
            http_protocol_options::HeadersWithUnderscoresAction,
        },
        listener::v3::{Filter, filter::ConfigType},
        route::v3::RouteConfiguration,
    },
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, ScopedRds, ScopedRoutes,
        http_connection_manager::{
            InternalAddressConfig, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
            UpgradeConfig,
        },
        scoped_routes::{
            ConfigSpecifier, ScopeKeyBuilder,
            scope_key_builder::{
                FragmentBuilder,
                fragment_builder::{HeaderValueExtractor, Type, header_value_extractor::ExtractType},
            },
        },
    },
};

/// HTTP/2 flow control (Envoy's advice for the edge): the sums a client can
/// make us hold are small, and still 64 KiB are on their way for each stream.
pub(super) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Envoy's own bound on `max_request_headers_kb`.
const HEADERS_KIB_MAX: u32 = 8192;

/// The `server` of answers that have none: no version, which would help attackers alone.
const SERVER_NAME: &str = "tidegate";

/// Where routes come from.
pub(super) enum Routes {
    /// From the control plane, by host and gateway; needs our module.
    Scoped,
    /// All in here: a config that needs nobody.
    Inline { table: Box<RouteConfiguration>, early: Vec<TypedExtensionConfig> },
}

/// The last network filter of a chain.
pub(super) fn connection_manager(listener: &Listener, routes: Routes) -> Filter {
    let module = matches!(routes, Routes::Scoped);
    let (specifier, early) = match routes {
        Routes::Scoped => (RouteSpecifier::ScopedRoutes(scoped_routes()), filters::early_mutations(listener)),
        Routes::Inline { table, early } => (RouteSpecifier::RouteConfig(*table), early),
    };
    let manager = HttpConnectionManager {
        // Our module reads a host's name with or without it; Envoy alone does not.
        strip_trailing_host_dot: !module,
        stat_prefix: listener.key.to_string(),
        http_filters: filters::http_filters(module),
        early_header_mutation_extensions: early,
        route_specifier: Some(specifier),
        ..build_edge(&listener.edge)
    };
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(ConfigType::TypedConfig(proto::any(&manager))),
    }
}

fn build_edge(edge: &Edge) -> HttpConnectionManager {
    let Edge { trusted_hops, proxy_protocol: _, paths, underscores, timeouts, limits, access_log } = edge;
    let Timeouts { route: _, stream_idle, request_headers, connection_idle: _, drain } = timeouts;
    let PathRules { normalize, merge_slashes, escaped_slashes } = paths;
    HttpConnectionManager {
        common_http_protocol_options: Some(protocol_options(*underscores, timeouts, limits)),
        http2_protocol_options: Some(http2(limits.concurrent_streams)),
        max_request_headers_kb: Some(proto::uint(limits.headers_kib.clamp(1, HEADERS_KIB_MAX))),
        stream_idle_timeout: Some(proto::limit(*stream_idle)),
        request_headers_timeout: Some(proto::limit(*request_headers)),
        drain_timeout: Some(proto::duration(*drain)),
        use_remote_address: Some(proto::yes(true)),
        xff_num_trusted_hops: *trusted_hops,
        internal_address_config: Some(InternalAddressConfig {
            unix_sockets: false,
            cidr_ranges: vec![nobody()],
        }),
        append_x_forwarded_port: true,
        // The backend's own; ours where it has none, for the public Ingress conformance
        // suite wants one on every answer.
        server_header_transformation: ServerHeaderTransformation::AppendIfAbsent.into(),
        server_name: SERVER_NAME.to_owned(),
        normalize_path: Some(proto::yes(*normalize)),
        merge_slashes: *merge_slashes,
        path_with_escaped_slashes_action: escaped(*escaped_slashes).into(),
        upgrade_configs: vec![websocket()],
        access_log: if *access_log { vec![access_log::build_access_log()] } else { Vec::new() },
        ..HttpConnectionManager::default()
    }
}

/// Whose `x-envoy-*` headers are believed: the broadcast address's, which no client
/// has. An empty list would be Envoy's word for every private address.
fn nobody() -> CidrRange {
    CidrRange { address_prefix: "255.255.255.255".to_owned(), prefix_len: Some(proto::uint(32)) }
}

fn protocol_options(underscores: Underscores, timeouts: &Timeouts, limits: &Limits) -> HttpProtocolOptions {
    HttpProtocolOptions {
        idle_timeout: Some(proto::limit(timeouts.connection_idle)),
        max_headers_count: Some(proto::uint(limits.headers.max(1))),
        headers_with_underscores_action: match underscores {
            Underscores::Allow => HeadersWithUnderscoresAction::Allow,
            Underscores::Reject => HeadersWithUnderscoresAction::RejectRequest,
            Underscores::Drop => HeadersWithUnderscoresAction::DropHeader,
        }
        .into(),
        ..HttpProtocolOptions::default()
    }
}

fn http2(concurrent_streams: u32) -> Http2ProtocolOptions {
    /// RFC 9113 section 6.5.2; a value of 0 would close the door, which is not what a limit is for.
    const STREAMS_MAX: u32 = i32::MAX.cast_unsigned();
    Http2ProtocolOptions {
        max_concurrent_streams: Some(proto::uint(concurrent_streams.clamp(1, STREAMS_MAX))),
        initial_stream_window_size: Some(proto::uint(STREAM_WINDOW_BYTES)),
        initial_connection_window_size: Some(proto::uint(CONNECTION_WINDOW_BYTES)),
        ..Http2ProtocolOptions::default()
    }
}

fn escaped(slashes: EscapedSlashes) -> PathWithEscapedSlashesAction {
    match slashes {
        EscapedSlashes::Keep => PathWithEscapedSlashesAction::KeepUnchanged,
        EscapedSlashes::Reject => PathWithEscapedSlashesAction::RejectRequest,
        EscapedSlashes::Redirect => PathWithEscapedSlashesAction::UnescapeAndRedirect,
        EscapedSlashes::Unescape => PathWithEscapedSlashesAction::UnescapeAndForward,
    }
}

fn websocket() -> UpgradeConfig {
    UpgradeConfig { upgrade_type: super::filters::UPGRADE.to_owned(), ..UpgradeConfig::default() }
}

/// Every listener sees all scopes of the engine; the second fragment keeps the
/// gateways apart. In the order of the scopes' keys.
fn scoped_routes() -> ScopedRoutes {
    let header = |name: &str| FragmentBuilder {
        r#type: Some(Type::HeaderValueExtractor(HeaderValueExtractor {
            name: name.to_owned(),
            element_separator: String::new(),
            extract_type: Some(ExtractType::Index(0)),
        })),
    };
    ScopedRoutes {
        name: "routes".to_owned(),
        scope_key_builder: Some(ScopeKeyBuilder { fragments: vec![header(host::SCOPE), header(host::VIP)] }),
        rds_config_source: Some(proto::ads()),
        config_specifier: Some(ConfigSpecifier::ScopedRds(ScopedRds {
            scoped_rds_config_source: Some(proto::ads()),
            srds_resources_locator: String::new(),
        })),
    }
}
