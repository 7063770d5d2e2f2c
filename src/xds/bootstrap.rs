//! The config that an Envoy starts with: who it is, where its control plane is,
//! and what of the machine it may take.

use super::{print, proto, upstream};
use envoy_types::pb::{
    envoy::{
        config::{
            bootstrap::v3::{
                Admin as EnvoyAdmin, Bootstrap as Message, LayeredRuntime, RuntimeLayer,
                bootstrap::{DeferredStatOptions, DynamicResources, StaticResources},
                runtime_layer::LayerSpecifier,
            },
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType},
            },
            core::v3::{
                Address, ApiConfigSource, ApiVersion, BackoffStrategy, ConfigSource, GrpcService,
                Http2ProtocolOptions, KeepaliveSettings, Node, RetryPolicy, TransportSocket,
                api_config_source::ApiType,
                grpc_service::{EnvoyGrpc, TargetSpecifier},
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
            metrics::v3::{StatsConfig, StatsMatcher, stats_matcher},
        },
        extensions::{
            clusters::dns::v3::DnsCluster,
            transport_sockets::tls::v3::{
                CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsCertificate,
                UpstreamTlsContext, common_tls_context::ValidationContextType,
                subject_alt_name_matcher::SanType,
            },
        },
        r#type::matcher::v3::{ListStringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use overload::overload_manager;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

mod overload;

/// What a bootstrap is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// A hint only: who an Envoy is, its certificate says.
    pub node: String,
    pub fleet: String,
    pub control_plane: ControlPlane,
    pub admin: Admin,
    pub share: Share,
}

/// Where resources come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlPlane {
    /// The `tidegate engine` beside this Envoy: a Unix socket only both can open.
    Local { socket: String },
    /// The control plane itself, by mTLS. Envoy reads the files (PEM) once, when it starts.
    Remote {
        /// Host names or IP addresses, with ports; any of them will do.
        addresses: Vec<(String, u16)>,
        /// The name that must be in the control plane's certificate: DNS or IP.
        server_name: String,
        certificate_file: String,
        key_file: String,
        authorities_file: String,
    },
}

/// Where Envoy's admin interface listens: it can stop Envoy and has no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// A Unix socket of the owner alone.
    Socket(String),
    /// Loopback only.
    Address(SocketAddr),
}

/// What an engine may take of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Bytes of heap; near it Envoy first frees memory, then sheds load. None: unwatched.
    pub heap_bytes: Option<u64>,
    /// Client connections at once, all listeners together.
    pub connections: u32,
}

const XDS: &str = "xds";
const CONNECT: Duration = Duration::from_secs(2);
/// A connection to nowhere is noticed after 10 + 3 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// A control plane that comes back is found within 2 s (Envoy's own ceiling is
/// 30 s); both are jittered, so that a fleet does not come at once.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// RE2's cost of a path that a user wrote; Envoy's own 100 refuses ordinary
/// ones. `translate` bounds patterns before; this is the fence behind it.
const REGEX_PROGRAM_MAX: u32 = 65_536;

/// The config as JSON, which is YAML as well: `envoy --config-path` reads it.
#[must_use]
pub fn build_bootstrap(bootstrap: &Bootstrap) -> serde_json::Value {
    let Bootstrap { node, fleet, control_plane, admin, share } = bootstrap;
    let node = Node { id: node.clone(), cluster: fleet.clone(), ..Node::default() };
    print::print_message(&Message {
        node: Some(node),
        admin: Some(build_admin(admin)),
        static_resources: Some(StaticResources {
            clusters: vec![control_plane_cluster(control_plane)],
            ..StaticResources::default()
        }),
        dynamic_resources: Some(dynamic_resources()),
        layered_runtime: Some(runtime()),
        overload_manager: Some(overload_manager(*share)),
        stats_config: Some(stats_diet()),
        deferred_stat_options: Some(DeferredStatOptions { enable_deferred_creation_stats: true }),
        ..Message::default()
    })
}

pub(super) fn build_admin(admin: &Admin) -> EnvoyAdmin {
    let address = match admin {
        Admin::Socket(path) => proto::pipe(path),
        Admin::Address(address) => proto::ip_address(*address),
    };
    EnvoyAdmin { address: Some(address), ..EnvoyAdmin::default() }
}

pub(super) fn runtime() -> LayeredRuntime {
    let limit = Value { kind: Some(Kind::NumberValue(REGEX_PROGRAM_MAX.into())) };
    let fields = HashMap::from([("re2.max_program_size.error_level".to_owned(), limit)]);
    let layer_specifier = Some(LayerSpecifier::StaticLayer(Struct { fields }));
    LayeredRuntime { layers: vec![RuntimeLayer { name: "tidegate".to_owned(), layer_specifier }] }
}

/// Delta ADS for everything.
fn dynamic_resources() -> DynamicResources {
    let retry = RetryPolicy {
        retry_back_off: Some(BackoffStrategy {
            base_interval: Some(proto::duration(RETRY)),
            max_interval: Some(proto::duration(RETRY_MAX)),
        }),
        ..RetryPolicy::default()
    };
    let grpc = EnvoyGrpc { cluster_name: XDS.to_owned(), retry_policy: Some(retry), ..EnvoyGrpc::default() };
    let service =
        GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)), ..GrpcService::default() };
    let ads = ApiConfigSource {
        api_type: ApiType::DeltaGrpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    // An Envoy that starts while we are away waits for us; after Envoy's own
    // 15 s it would call itself ready, and serve nothing.
    let patient =
        || ConfigSource { initial_fetch_timeout: Some(proto::duration(Duration::ZERO)), ..proto::ads() };
    DynamicResources {
        ads_config: Some(ads),
        lds_config: Some(patient()),
        cds_config: Some(patient()),
        ..DynamicResources::default()
    }
}

fn control_plane_cluster(control_plane: &ControlPlane) -> Cluster {
    let (discovery, addresses, transport_socket) = match control_plane {
        ControlPlane::Local { socket } => {
            (ClusterDiscoveryType::Type(DiscoveryType::Static.into()), vec![proto::pipe_to(socket)], None)
        }
        ControlPlane::Remote { addresses, server_name, certificate_file, key_file, authorities_file } => {
            let dns = proto::any(&DnsCluster { respect_dns_ttl: true, ..DnsCluster::default() });
            let dns = CustomClusterType { name: "envoy.clusters.dns".to_owned(), typed_config: Some(dns) };
            let to = addresses.iter().map(|(host, port)| proto::socket_address(host, *port)).collect();
            let tls = mutual_tls(server_name, certificate_file, key_file, authorities_file);
            (ClusterDiscoveryType::ClusterType(dns), to, Some(tls))
        }
    };
    let http2 = Http2ProtocolOptions {
        connection_keepalive: Some(KeepaliveSettings {
            interval: Some(proto::duration(KEEPALIVE)),
            timeout: Some(proto::duration(KEEPALIVE_TIMEOUT)),
            ..KeepaliveSettings::default()
        }),
        ..Http2ProtocolOptions::default()
    };
    Cluster {
        name: XDS.to_owned(),
        connect_timeout: Some(proto::duration(CONNECT)),
        cluster_discovery_type: Some(discovery),
        load_assignment: Some(assignment(addresses)),
        typed_extension_protocol_options: upstream::explicit_http2(http2),
        transport_socket,
        ..Cluster::default()
    }
}

fn assignment(addresses: Vec<Address>) -> ClusterLoadAssignment {
    let endpoint = |address| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let lb_endpoints = addresses.into_iter().map(endpoint).collect();
    ClusterLoadAssignment {
        cluster_name: XDS.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }],
        ..ClusterLoadAssignment::default()
    }
}

fn mutual_tls(server_name: &str, certificate: &str, key: &str, authorities: &str) -> TransportSocket {
    let (san_type, sni) = match server_name.parse::<IpAddr>() {
        Ok(_) => (SanType::IpAddress, ""),
        Err(_) => (SanType::Dns, server_name),
    };
    let validation = CertificateValidationContext {
        trusted_ca: Some(proto::file(authorities)),
        match_typed_subject_alt_names: vec![SubjectAltNameMatcher {
            san_type: san_type.into(),
            matcher: Some(proto::text(MatchPattern::Exact(server_name.to_owned()))),
            oid: String::new(),
        }],
        ..CertificateValidationContext::default()
    };
    let identity = TlsCertificate {
        certificate_chain: Some(proto::file(certificate)),
        private_key: Some(proto::file(key)),
        ..TlsCertificate::default()
    };
    let context = UpstreamTlsContext {
        sni: sni.to_owned(),
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: vec![identity],
            alpn_protocols: vec!["h2".to_owned()],
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    proto::transport_socket("envoy.transport_sockets.tls", &context)
}

/// Statistics that grow with hosts and upstreams: at 10,000 they are a third of
/// Envoy's memory and 14 ms of each second, and access logs tell more.
fn stats_diet() -> StatsConfig {
    let contains = |text: &str| MatchPattern::Contains(text.to_owned());
    let prefix = |text: &str| MatchPattern::Prefix(text.to_owned());
    let patterns = vec![
        contains(".rds.r"),
        contains(".scoped_rds."),
        prefix("vhost."),
        prefix("sds."),
        contains(".sds."),
        contains("on_demand_secret.ssl.certificate."),
        prefix(&format!("cluster.{}", upstream::STATS_PREFIX)),
    ];
    let patterns = patterns.into_iter().map(proto::text).collect();
    let list = stats_matcher::StatsMatcher::ExclusionList(ListStringMatcher { patterns });
    StatsConfig { stats_matcher: Some(StatsMatcher { stats_matcher: Some(list) }), ..StatsConfig::default() }
}
