//! Everything in one file: a config that stock Envoy runs without control plane
//! and without our module. The same builders as for ADS, put together otherwise:
//!
//! * one table of virtual hosts a listener instead of scopes (see `domains`);
//! * what the module writes is written by Envoy's own header mutation;
//! * certificates in the chain instead of on demand. Where there is a default
//!   certificate, an SNI that nobody knows gets it too: Envoy alone cannot tell
//!   "no SNI" from "any other". Without one, such a client is refused, as ever.

use super::{
    Name,
    bootstrap::{self, Admin},
    certificate,
    edge::Routes,
    filters, host,
    listener::{self, TlsChain},
    names, print, proto,
    upstream::{self, Delivery},
};
use crate::ir::{
    Certificate, DedicatedChain, Endpoints, GatewayKey, Host, Listener, Protocol, SniCertificate, Upstream,
    UpstreamKey,
};
use envoy_types::pb::envoy::{
    config::{
        bootstrap::v3::{Bootstrap, bootstrap::StaticResources},
        common::mutation_rules::v3::{HeaderMutation, header_mutation::Action},
        core::v3::{
            HeaderValue, HeaderValueOption, TypedExtensionConfig, header_value_option::HeaderAppendAction,
        },
        listener::v3::{self as envoy, Filter, FilterChain},
    },
    extensions::{
        http::early_header_mutation::header_mutation::v3::HeaderMutation as EarlyHeaderMutation,
        transport_sockets::tls::v3::{CommonTlsContext, DownstreamTlsContext},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

mod domains;

/// Handshakes end or fail within this.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What is served, whole. In any order: the outcome is sorted.
#[derive(Debug, Clone, Default)]
pub struct Standalone<'a> {
    pub listeners: Vec<&'a Listener>,
    pub hosts: Vec<&'a Host>,
    pub upstreams: Vec<&'a Upstream>,
    pub endpoints: Vec<&'a Endpoints>,
    pub certificates: Vec<&'a SniCertificate>,
    /// Certificates of dedicated chains, by the names the chains give them.
    pub dedicated: BTreeMap<Name, Arc<Certificate>>,
    /// None: no admin interface.
    pub admin: Option<Admin>,
}

/// The config as JSON, which is YAML as well. It holds private keys.
#[must_use]
pub fn build_standalone(all: &Standalone<'_>) -> serde_json::Value {
    let endpoints: BTreeMap<&UpstreamKey, &Endpoints> =
        all.endpoints.iter().map(|endpoints| (&endpoints.key, *endpoints)).collect();
    let clusters: BTreeMap<Name, _> = all
        .upstreams
        .iter()
        .map(|upstream| {
            let delivery = Delivery::Inline(endpoints.get(&upstream.key).copied());
            (names::cluster(&upstream.key).name, upstream::build_cluster(upstream, delivery))
        })
        .collect();
    let listeners: BTreeMap<_, _> =
        all.listeners.iter().filter_map(|listener| Some((&listener.key, build(listener, all)?))).collect();
    print::print_message(&Bootstrap {
        admin: all.admin.as_ref().map(bootstrap::build_admin),
        layered_runtime: Some(bootstrap::runtime()),
        static_resources: Some(StaticResources {
            listeners: listeners.into_values().collect(),
            clusters: clusters.into_values().collect(),
            secrets: Vec::new(),
        }),
        ..Bootstrap::default()
    })
}

/// Nothing for an HTTPS listener without any certificate: there is no handshake
/// it could finish, and Envoy takes no listener without a chain.
fn build(listener: &Listener, all: &Standalone<'_>) -> Option<envoy::Listener> {
    let hosts: Vec<&Host> =
        all.hosts.iter().copied().filter(|host| host.key.gateway == listener.gateway).collect();
    let table = domains::build_table(names::listener(&listener.key).name.to_string(), &hosts);
    let filters = listener::network_filters(
        listener,
        Routes::Inline { table: Box::new(table), early: early_mutations(listener.protocol) },
    );
    let filter_chains = match listener.protocol {
        Protocol::Http => vec![FilterChain { name: "plain".to_owned(), filters, ..FilterChain::default() }],
        Protocol::Https => tls_chains(listener, &hosts, all, &filters),
    };
    (!filter_chains.is_empty()).then(|| envoy::Listener { filter_chains, ..listener::build_socket(listener) })
}

/// As our module does it: nothing the client sent survives. Each is removed
/// first, for the client may have sent several.
fn early_mutations(protocol: Protocol) -> Vec<TypedExtensionConfig> {
    let remove = |name: &str| Action::Remove(name.to_owned());
    let mut actions = vec![remove(host::SCOPE), remove(host::VIP), remove(host::SNI), remove(host::TLS)];
    actions.push(append(host::TLS, filters::tls_header(protocol)));
    if protocol == Protocol::Https {
        actions.push(append(host::SNI, "%REQUESTED_SERVER_NAME%"));
    }
    let mutations = actions.into_iter().map(|action| HeaderMutation { action: Some(action) }).collect();
    vec![
        filters::remove_envoy_headers(),
        proto::extension("internal-headers", &EarlyHeaderMutation { mutations }),
    ]
}

fn append(name: &str, value: &str) -> Action {
    Action::Append(HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    })
}

/// One chain for all names of this gateway, in which Envoy takes the certificate
/// that names the SNI; one for a default certificate; one for each dedicated host.
fn tls_chains(
    listener: &Listener,
    hosts: &[&Host],
    all: &Standalone<'_>,
    filters: &[Filter],
) -> Vec<FilterChain> {
    let dedicated: BTreeSet<String> = listener.dedicated.iter().map(|chain| chain.host.to_string()).collect();
    // Both print a wildcard as `*.example.com`, which is also how Envoy matches SNI.
    let names: BTreeSet<String> =
        hosts.iter().filter(|host| host.tls.is_some()).map(|host| host.key.host.to_string()).collect();
    let shared: BTreeMap<&str, &Certificate> = all
        .certificates
        .iter()
        .filter(|sni| names.contains(sni.name.as_ref()) && !dedicated.contains(sni.name.as_ref()))
        .map(|sni| (sni.name.as_ref(), sni.certificate.as_ref()))
        .collect();
    let mut chains = Vec::new();
    if !shared.is_empty() {
        let server_names = shared.keys().map(|name| (*name).to_owned()).collect();
        chains.push(chain("shared", server_names, shared.values().copied(), filters));
    }
    for DedicatedChain { host, shadowed: _, certificate } in &listener.dedicated {
        if let Some(certificate) = all.dedicated.get(certificate) {
            let name = host.to_string();
            chains.push(chain(&name, vec![name.clone()], [certificate.as_ref()], filters));
        }
    }
    if let Some(certificate) = default_certificate(&listener.gateway, all) {
        chains.push(chain("default", Vec::new(), [certificate], filters));
    }
    chains
}

fn default_certificate<'a>(gateway: &GatewayKey, all: &'a Standalone<'_>) -> Option<&'a Certificate> {
    let name = listener::default_certificate(gateway);
    all.certificates.iter().find(|sni| *sni.name == *name).map(|sni| sni.certificate.as_ref())
}

fn chain<'a>(
    name: &str,
    server_names: Vec<String>,
    certificates: impl IntoIterator<Item = &'a Certificate>,
    filters: &[Filter],
) -> FilterChain {
    let each_once: BTreeMap<_, _> =
        certificates.into_iter().map(|certificate| (&certificate.origin, certificate)).collect();
    let common = CommonTlsContext {
        tls_certificates: each_once.into_values().map(certificate::tls_certificate).collect(),
        ..listener::common_tls()
    };
    let context =
        DownstreamTlsContext { common_tls_context: Some(common), ..DownstreamTlsContext::default() };
    let tls = TlsChain { server_names, context, handshake: HANDSHAKE };
    listener::tls_chain(name, &tls, filters.to_vec())
}
