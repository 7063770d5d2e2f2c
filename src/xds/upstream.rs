//! One upstream as an Envoy cluster.

use super::{Resource, certificate, edge, encode, endpoints, names, proto};
use crate::{
    base::{ObjectKey, ObjectKind, Secret, Version},
    ir::{Endpoints, Upstream, UpstreamKey, UpstreamProtocol, UpstreamTls},
};
use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster, UpstreamConnectionOptions,
            circuit_breakers::Thresholds,
            cluster::{
                ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig,
                LbPolicy,
            },
        },
        core::v3::{Http1ProtocolOptions, Http2ProtocolOptions, TcpKeepalive},
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
        },
    },
    extensions::{
        clusters::{
            common::dns::v3::DnsLookupFamily,
            dns::v3::{DnsCluster, dns_cluster::RefreshRate},
        },
        transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
            UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            subject_alt_name_matcher::SanType,
        },
        upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
    },
    r#type::{matcher::v3::string_matcher::MatchPattern, v3::Percent},
};
use envoy_types::pb::google::protobuf::Any;
use std::{collections::HashMap, time::Duration};

/// Envoy's default of 1,024 turns a busy service into 503s; these only stop a
/// runaway. Each of one engine, for one upstream.
const CONNECTIONS_MAX: u32 = 65_536;
const REQUESTS_MAX: u32 = 262_144;
/// Requests that wait for a connection.
const PENDING_MAX: u32 = 65_536;
/// Bytes buffered for a connection before back-pressure.
const BUFFER_BYTES: u32 = 32 * 1024;
/// A peer that vanished without a word is noticed after 60 + 3 x 10 s.
const KEEPALIVE_IDLE_S: u32 = 60;
const KEEPALIVE_INTERVAL_S: u32 = 10;
const KEEPALIVE_PROBES: u32 = 3;
/// Below this share of ready endpoints Envoy uses the others too. Not 0: then
/// endpoints that drain would answer 503 when no other is left. Not Envoy's 50:
/// then they would be used while there is another.
const PANIC_PERCENT: f64 = 1.0;
/// A DNS name that does not resolve is asked again so often.
const DNS_RETRY: Duration = Duration::from_secs(1);
const DNS_RETRY_MAX: Duration = Duration::from_secs(10);

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster, and the authorities that it needs where it verifies.
#[must_use]
pub fn build_upstream(upstream: &Upstream) -> (Resource, Option<Resource>) {
    let key = &upstream.key;
    let mut origins = vec![service(key)];
    let secret = authorities(upstream).map(|pem| {
        let secret = names::authorities(key);
        let origin = key
            .policy
            .verify
            .as_ref()
            .map(|(name, _)| ObjectKey::new(ObjectKind::Secret, &key.namespace, name));
        origins.extend(origin.clone());
        certificate::build_authorities(&secret.name, pem, origin.as_slice())
    });
    let needs = secret.iter().map(|secret| secret.key.clone());
    let cluster = build_cluster(upstream, Delivery::Ads);
    (encode(names::cluster(key), version(upstream), &cluster, needs, origins), secret)
}

/// Whose upstream it is.
pub(super) fn service(key: &UpstreamKey) -> ObjectKey {
    ObjectKey::new(ObjectKind::Service, &key.namespace, &key.service)
}

fn authorities(upstream: &Upstream) -> Option<&[u8]> {
    Some(upstream.tls.as_ref()?.ca.as_ref()?.expose())
}

/// Authorities travel by themselves: new ones leave their cluster alone.
fn version(upstream: &Upstream) -> Version {
    let tls = upstream.tls.as_ref().map(|UpstreamTls { server_name, ca }| UpstreamTls {
        server_name: server_name.clone(),
        ca: ca.as_ref().map(|_| Secret::new([].into())),
    });
    Version::of(&Upstream { tls, ..upstream.clone() })
}

/// How a cluster gets its endpoints and authorities.
#[derive(Clone, Copy)]
pub(super) enum Delivery<'a> {
    Ads,
    /// All in here. No endpoints: nobody answers.
    Inline(Option<&'a Endpoints>),
}

pub(super) fn build_cluster(upstream: &Upstream, delivery: Delivery<'_>) -> Cluster {
    let Upstream { key, protocol, tls, sticky_source, external, connect_timeout } = upstream;
    let name = names::cluster(key).name.to_string();
    let cluster = Cluster {
        // Lets the bootstrap tell the statistics of upstreams from Envoy's own.
        alt_stat_name: format!("{STATS_PREFIX}{name}"),
        connect_timeout: Some(proto::duration(*connect_timeout)),
        per_connection_buffer_limit_bytes: Some(proto::uint(BUFFER_BYTES)),
        lb_policy: if *sticky_source { LbPolicy::Maglev } else { LbPolicy::RoundRobin }.into(),
        circuit_breakers: Some(circuit_breakers()),
        typed_extension_protocol_options: protocol_options(*protocol),
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: PANIC_PERCENT }),
            // Envoy would hold back a draining mark for 1 s.
            update_merge_window: Some(proto::duration(Duration::ZERO)),
            ..CommonLbConfig::default()
        }),
        transport_socket: tls.as_ref().map(|tls| {
            proto::transport_socket(
                "envoy.transport_sockets.tls",
                &tls_context(key, tls, *protocol, delivery),
            )
        }),
        upstream_connection_options: Some(keepalive()),
        // What the API server no longer lists is gone, whatever a health check thinks.
        ignore_health_on_host_removal: true,
        name,
        ..Cluster::default()
    };
    match (external, delivery) {
        (Some((host, port)), _) => by_dns(cluster, host, *port),
        (None, Delivery::Ads) => by_eds(cluster),
        (None, Delivery::Inline(endpoints)) => by_list(cluster, endpoints),
    }
}

/// What begins the statistics of upstreams: `cluster.upstream/...`.
pub(super) const STATS_PREFIX: &str = "upstream/";

fn by_eds(cluster: Cluster) -> Cluster {
    let eds = EdsClusterConfig { eds_config: Some(proto::ads()), service_name: cluster.name.clone() };
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(eds),
        ..cluster
    }
}

fn by_list(cluster: Cluster, list: Option<&Endpoints>) -> Cluster {
    let nobody = ClusterLoadAssignment { cluster_name: cluster.name.clone(), ..Default::default() };
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(list.map_or(nobody, endpoints::build_assignment)),
        ..cluster
    }
}

/// Strict, not logical, DNS: every address the name has is an endpoint, so load
/// is spread and stickiness holds. Nobody waits for the first answer: one name
/// that never resolves must not hold the acknowledgement of other clusters.
fn by_dns(cluster: Cluster, host: &str, port: u16) -> Cluster {
    let endpoint = Endpoint { address: Some(proto::socket_address(host, port)), ..Endpoint::default() };
    let endpoint = HostIdentifier::Endpoint(endpoint);
    let endpoint = LbEndpoint { host_identifier: Some(endpoint), ..LbEndpoint::default() };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    let dns = DnsCluster {
        respect_dns_ttl: true,
        dns_failure_refresh_rate: Some(RefreshRate {
            base_interval: Some(proto::duration(DNS_RETRY)),
            max_interval: Some(proto::duration(DNS_RETRY_MAX)),
        }),
        // Envoy's default takes IPv6 where a name has both, also where nothing routes it.
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        ..DnsCluster::default()
    };
    let strict =
        CustomClusterType { name: "envoy.clusters.dns".to_owned(), typed_config: Some(proto::any(&dns)) };
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(strict)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: cluster.name.clone(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        }),
        wait_for_warm_on_init: Some(proto::yes(false)),
        ..cluster
    }
}

fn circuit_breakers() -> CircuitBreakers {
    let thresholds = Thresholds {
        max_connections: Some(proto::uint(CONNECTIONS_MAX)),
        max_pending_requests: Some(proto::uint(PENDING_MAX)),
        max_requests: Some(proto::uint(REQUESTS_MAX)),
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}

fn protocol_options(protocol: UpstreamProtocol) -> HashMap<String, Any> {
    match protocol {
        UpstreamProtocol::Http1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
        }
        UpstreamProtocol::Http2 => explicit_http2(Http2ProtocolOptions {
            initial_stream_window_size: Some(proto::uint(edge::STREAM_WINDOW_BYTES)),
            initial_connection_window_size: Some(proto::uint(edge::CONNECTION_WINDOW_BYTES)),
            ..Http2ProtocolOptions::default()
        }),
    }
}

pub(super) fn explicit_http2(options: Http2ProtocolOptions) -> HashMap<String, Any> {
    explicit(ProtocolConfig::Http2ProtocolOptions(options))
}

/// One entry: a map that has no order to lose.
fn explicit(protocol: ProtocolConfig) -> HashMap<String, Any> {
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(PROTOCOL_OPTIONS.to_owned(), proto::any(&options))])
}

fn keepalive() -> UpstreamConnectionOptions {
    UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive {
            keepalive_probes: Some(proto::uint(KEEPALIVE_PROBES)),
            keepalive_time: Some(proto::uint(KEEPALIVE_IDLE_S)),
            keepalive_interval: Some(proto::uint(KEEPALIVE_INTERVAL_S)),
        }),
        ..UpstreamConnectionOptions::default()
    }
}

fn tls_context(
    key: &UpstreamKey,
    tls: &UpstreamTls,
    protocol: UpstreamProtocol,
    delivery: Delivery<'_>,
) -> UpstreamTlsContext {
    let UpstreamTls { server_name, ca } = tls;
    let alpn = match protocol {
        UpstreamProtocol::Http1 => "http/1.1",
        UpstreamProtocol::Http2 => "h2",
    };
    let expected = expected_name(server_name.as_deref());
    let validation = ca.as_ref().map(|pem| match delivery {
        Delivery::Ads => {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(expected),
                validation_context_sds_secret_config: Some(SdsSecretConfig {
                    name: names::authorities(key).name.to_string(),
                    sds_config: Some(proto::ads()),
                }),
                ..CombinedCertificateValidationContext::default()
            })
        }
        Delivery::Inline(_) => ValidationContextType::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(proto::inline(pem.expose())),
            ..expected
        }),
    });
    UpstreamTlsContext {
        sni: server_name.as_deref().unwrap_or_default().to_owned(),
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: vec![alpn.to_owned()],
            validation_context_type: validation,
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    }
}

/// A certificate of the right authority but of somebody else is refused.
fn expected_name(name: Option<&str>) -> CertificateValidationContext {
    let matcher = name.map(|name| SubjectAltNameMatcher {
        san_type: SanType::Dns.into(),
        matcher: Some(proto::text(MatchPattern::Exact(name.to_owned()))),
        oid: String::new(),
    });
    CertificateValidationContext {
        match_typed_subject_alt_names: matcher.into_iter().collect(),
        ..CertificateValidationContext::default()
    }
}
