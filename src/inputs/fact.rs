//! The facts themselves. Texts that a user wrote are kept as written where
//! `translate` judges them; sizes are bounded where they are read.

use crate::{
    api,
    base::{Secret, Text},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Cheap to clone: each variant is shared.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Namespace(Arc<Namespace>),
    IngressClass(Arc<IngressClass>),
    InfraSetting(Arc<api::InfraSettingSpec>),
    VipPool(Arc<api::VipPoolSpec>),
    DnsZone(Arc<api::DnsZoneSpec>),
    Ingress(Arc<Ingress>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Secret(Arc<TlsSecret>),
}

impl Fact {
    /// When its object was first seen, where that is how old it is.
    #[must_use]
    pub fn first_seen(&self) -> Option<Age> {
        let age = match self {
            Self::Ingress(ingress) => ingress.age,
            Self::IngressClass(class) => class.age,
            Self::Namespace(_)
            | Self::InfraSetting(_)
            | Self::VipPool(_)
            | Self::DnsZone(_)
            | Self::Service(_)
            | Self::EndpointSlice(_)
            | Self::Secret(_) => return None,
        };
        (age.batch != 0).then_some(age)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub labels: BTreeMap<String, String>,
    /// Annotation `tidegate.dev/infra-setting`.
    pub setting: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressClass {
    /// `spec.controller`; ours is [`CONTROLLER`].
    pub controller: Text,
    /// Annotation `ingressclass.kubernetes.io/is-default-class`.
    pub default: bool,
    /// The InfraSetting that `spec.parameters` names.
    pub setting: Option<Text>,
    /// Parameters of a kind that is not ours, printed.
    pub foreign_parameters: Option<Text>,
    pub age: Age,
}

/// The `spec.controller` of the IngressClasses we serve.
pub const CONTROLLER: &str = "tidegate.dev/ingress-controller";

/// How old an object is: older wins. Compare ages, then the objects' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age {
    /// Unix seconds: creationTimestamp if written, else when it was first seen.
    pub seconds: i64,
    /// The ledger's order of what was first seen; 0 where a timestamp is written.
    pub batch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    pub age: Age,
    /// `spec.ingressClassName`.
    pub class: Option<Text>,
    /// Annotation `kubernetes.io/ingress.class`, which the former overrides.
    pub legacy_class: Option<Text>,
    /// Annotation `tidegate.dev/vip`: addresses asked for, comma-separated.
    pub vip: Option<Text>,
    pub default_backend: Option<Backend>,
    pub rules: Box<[Rule]>,
    pub tls: Box<[Tls]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// As written; empty for all hosts.
    pub host: Text,
    pub paths: Box<[Path]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// As written; empty where none was.
    pub path: Text,
    pub kind: PathKind,
    pub backend: Backend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    Exact,
    Prefix,
    ImplementationSpecific,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The port's name or number, printed.
    Service { name: Text, port: Text },
    /// `backend.resource`, printed: nothing we can serve.
    Resource(Text),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// As written.
    pub hosts: Box<[Text]>,
    pub secret: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub kind: ServiceKind,
    /// TCP ports only.
    pub ports: Vec<ServicePort>,
    pub sticky_source: bool,
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`, where written.
    pub sticky_seconds: Option<i32>,
    pub publish_not_ready: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// ClusterIP (headless too), NodePort or LoadBalancer: has EndpointSlices.
    Endpoints,
    /// The DNS name as written.
    ExternalName(Text),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where a Service has one port without a name.
    pub name: Text,
    pub port: u16,
    pub app_protocol: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Label `kubernetes.io/service-name`, in the slice's own namespace.
    pub service: Text,
    /// TCP ports: the Service port's name, and the number in this slice.
    pub ports: Vec<(Text, u16)>,
    /// Endpoints of address type IPv4 or IPv6; FQDN slices have none.
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub address: IpAddr,
    /// Unknown counts as ready (EndpointSlice API, `conditions.ready`).
    pub ready: bool,
    /// Unknown counts as `ready`.
    pub serving: bool,
    pub terminating: bool,
}

/// A Secret of type `kubernetes.io/tls`, or one that has `ca.crt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSecret {
    /// PEM; empty where the entry is missing.
    pub certificate: Arc<[u8]>,
    pub key: Secret<Arc<[u8]>>,
    pub ca: Option<Arc<[u8]>>,
}
