//! Facts that read as sentences, and a small universe of them for random histories.

use std::sync::Arc;
use tidegate::{
    api,
    base::{ObjectKey, ObjectKind, Secret},
    compile::{FactKey, Input},
    inputs::{Fact, fact},
};

/// A batch of facts.
pub struct Facts(Vec<(FactKey, Option<Input>)>);

impl Facts {
    pub fn inputs(self) -> Vec<(FactKey, Option<Input>)> {
        self.0
    }

    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn one(key: ObjectKey, fact: Fact) -> Self {
        Self(vec![(FactKey::Object(key), Some(Input::Object(fact)))])
    }

    /// An IngressClass of ours.
    pub fn class(name: &str) -> Self {
        Self::one(
            ObjectKey::cluster(ObjectKind::IngressClass, name),
            Fact::IngressClass(Arc::new(class(None))),
        )
    }

    /// Hosts `h0.example.com`, `h1.example.com`, ... each with its Ingress, Service and slice.
    pub fn hosts(class: &str, n: usize) -> Self {
        Self((0..n).flat_map(|n| Self::host(class, n).0).collect())
    }

    pub fn host(class: &str, n: usize) -> Self {
        Self::host_with_path(class, n, "/")
    }

    pub fn host_with_path(class: &str, n: usize, path: &str) -> Self {
        let (name, service) = (format!("i{n}"), format!("s{n}"));
        let mut ingress = ingress(Some(class), 1);
        ingress.rules = [rule(&format!("h{n}.example.com"), path, &service)].into();
        Self::one(ObjectKey::new(ObjectKind::Ingress, "shop", &name), Fact::Ingress(Arc::new(ingress)))
            .with(Self::service("shop", &service))
            .with(Self::slice("shop", &service, "10.0.0.1"))
    }

    /// A Service with port `http`, 80.
    pub fn service(namespace: &str, name: &str) -> Self {
        let key = ObjectKey::new(ObjectKind::Service, namespace, name);
        Self::one(key, Fact::Service(Arc::new(service(None))))
    }

    /// A slice of the Service with one ready endpoint, port 8080.
    pub fn slice(namespace: &str, service: &str, address: &str) -> Self {
        let key = ObjectKey::new(ObjectKind::EndpointSlice, namespace, &format!("{service}-1"));
        Self::one(key, Fact::EndpointSlice(Arc::new(slice(service, address, true))))
    }
}

pub fn class(setting: Option<&str>) -> fact::IngressClass {
    fact::IngressClass {
        controller: fact::CONTROLLER.into(),
        default: false,
        setting: setting.map(Into::into),
        foreign_parameters: None,
        age: fact::Age { seconds: 0, batch: 0 },
    }
}

pub fn ingress(class: Option<&str>, age: i64) -> fact::Ingress {
    fact::Ingress {
        age: fact::Age { seconds: age, batch: 0 },
        class: class.map(Into::into),
        legacy_class: None,
        vip: None,
        default_backend: None,
        rules: [].into(),
        tls: [].into(),
    }
}

pub fn rule(host: &str, path: &str, service: &str) -> fact::Rule {
    let backend = backend(service);
    let path = fact::Path { path: path.into(), kind: fact::PathKind::Prefix, backend };
    fact::Rule { host: host.into(), paths: [path].into() }
}

pub fn backend(service: &str) -> fact::Backend {
    fact::Backend::Service { name: service.into(), port: "http".into() }
}

pub fn service(app_protocol: Option<&str>) -> fact::Service {
    fact::Service {
        kind: fact::ServiceKind::Endpoints,
        ports: vec![fact::ServicePort {
            name: "http".into(),
            port: 80,
            app_protocol: app_protocol.map(Into::into),
        }],
        sticky_source: false,
        sticky_seconds: None,
        publish_not_ready: false,
    }
}

pub fn slice(service: &str, address: &str, ready: bool) -> fact::EndpointSlice {
    let address = address.parse().expect("an address");
    fact::EndpointSlice {
        service: service.into(),
        ports: vec![("http".into(), 8080)],
        endpoints: vec![fact::SliceEndpoint { address, ready, serving: true, terminating: !ready }],
    }
}

/// How many facts the small universe has.
pub const UNIVERSE: usize = 24;

/// A fact of the small universe in one of its variants; variant 0 is its absence.
pub fn of_universe(what: usize, variant: usize) -> (FactKey, Option<Input>) {
    let (key, fact) = match what {
        0..9 => universe_ingress(what, variant),
        9..12 => {
            let name = ["a", "b", "c"][what - 9];
            let protocol = [None, None, Some("h2c"), Some("https"), Some("odd"), None][variant];
            let mut service = service(protocol);
            service.sticky_source = variant == 5;
            (
                ObjectKey::new(ObjectKind::Service, NAMESPACES[variant % 2], name),
                Fact::Service(Arc::new(service)),
            )
        }
        12..15 => {
            let name = ["a", "b", "c"][what - 12];
            let address =
                ["10.0.0.1", "10.0.0.2", "10.0.0.3", "127.0.0.1", "10.1.0.1", "169.254.169.254"][variant];
            let slice = slice(name, address, variant != 2);
            (
                ObjectKey::new(ObjectKind::EndpointSlice, "red", &format!("{name}-1")),
                Fact::EndpointSlice(Arc::new(slice)),
            )
        }
        15..17 => {
            let mut class = class([None, None, Some("wide"), Some("own"), Some("missing"), None][variant]);
            class.default = variant == 5;
            (
                ObjectKey::cluster(ObjectKind::IngressClass, ["public", "inner"][what - 15]),
                Fact::IngressClass(Arc::new(class)),
            )
        }
        17 => (
            ObjectKey::cluster(ObjectKind::InfraSetting, "wide"),
            Fact::InfraSetting(Arc::new(wide(variant))),
        ),
        18 => {
            (ObjectKey::cluster(ObjectKind::InfraSetting, "own"), Fact::InfraSetting(Arc::new(own(variant))))
        }
        19 => {
            let setting = [None, None, Some("wide"), Some("own"), None, None][variant].map(Into::into);
            let namespace =
                fact::Namespace { labels: [("v".to_owned(), variant.to_string())].into(), setting };
            (ObjectKey::cluster(ObjectKind::Namespace, "red"), Fact::Namespace(Arc::new(namespace)))
        }
        20..22 => {
            let name = ["tls-a", "tls-b"][what - 20];
            (
                ObjectKey::new(ObjectKind::Secret, "red", name),
                Fact::Secret(Arc::new(secret(what - 20, variant))),
            )
        }
        22 => {
            let zone =
                ["example.com", "example.com", "foo.com", "example.org", "EXAMPLE.com.", "bad zone"][variant];
            let spec = serde_json::from_value(serde_json::json!({ "zone": zone })).expect("a zone");
            (ObjectKey::cluster(ObjectKind::DnsZone, "z"), Fact::DnsZone(Arc::new(spec)))
        }
        _ => {
            let gateway = ["public", "public", "public@own", "inner", "public/1", "public"][variant];
            let addresses: Vec<_> = [format!("10.1.0.{variant}").parse().expect("an address")].into();
            return (
                FactKey::Allocation(gateway.into()),
                (variant != 5).then(|| Input::Allocation(addresses.into())),
            );
        }
    };
    (FactKey::Object(key), (variant != 0).then_some(Input::Object(fact)))
}

const NAMESPACES: [&str; 2] = ["red", "blue"];

fn universe_ingress(what: usize, variant: usize) -> (ObjectKey, Fact) {
    let age = [3, 1, 2, 1, 2, 5, 4, 1, 2][what];
    let mut ingress =
        ingress([Some("public"), Some("public"), None, Some("inner")][(what + variant) % 4], age);
    let hosts = ["a.foo.com", "*.foo.com", "b.foo.com", "x.example.com", "", "not a host"];
    ingress.rules = [
        rule(hosts[variant], "/", ["a", "b", "c"][what % 3]),
        rule(hosts[(variant + what) % 6], ["/x", "/x/", "/y"][variant % 3], "b"),
    ]
    .into();
    if variant == 4 {
        ingress.default_backend = Some(backend("a"));
    }
    if variant >= 3 {
        let hosts = if what.is_multiple_of(2) { vec![hosts[variant - 2].into()] } else { Vec::new() };
        let secret = Some(["tls-a", "tls-b"][variant % 2].into());
        ingress.tls = [fact::Tls { hosts: hosts.into(), secret }].into();
    }
    let key = ObjectKey::new(ObjectKind::Ingress, NAMESPACES[what % 2], &format!("i{what}"));
    (key, Fact::Ingress(Arc::new(ingress)))
}

fn wide(variant: usize) -> api::InfraSettingSpec {
    let mut spec = api::InfraSettingSpec::default();
    spec.vip.shards = [1, 1, 3, 0, 2, 3][variant];
    if variant == 2 {
        spec.https_redirect = Some(api::RedirectSpec::default());
    }
    let namespaces = vec!["blue".to_owned(), "red".to_owned()];
    if variant >= 4 {
        spec.host_grants = vec![api::HostGrant { host: "*.foo.com".to_owned(), namespaces }];
    }
    spec
}

fn own(variant: usize) -> api::InfraSettingSpec {
    let mut spec = api::InfraSettingSpec::default();
    spec.vip.sharing = [api::VipSharing::Ingress, api::VipSharing::Host][variant % 2];
    spec.timeouts.connect_ms = [5_000, 5_000, 1_000, 0, 5_000, 1_000][variant];
    spec
}

/// Two certificates and what can be wrong with them.
fn secret(which: usize, variant: usize) -> fact::TlsSecret {
    static PAIRS: std::sync::OnceLock<Vec<Pair>> = std::sync::OnceLock::new();
    let pairs = PAIRS.get_or_init(|| {
        let names = [vec!["a.foo.com".to_owned()], vec!["*.foo.com".to_owned(), "x.example.com".to_owned()]];
        names.into_iter().map(self_signed).collect()
    });
    let (certificate, key) = pairs[which].clone();
    let (certificate, key) = match variant {
        2 => (certificate, pairs[1 - which].1.clone()),
        3 => (Arc::from(*b"not pem"), key),
        4 => (certificate, Arc::default()),
        _ => (certificate, key),
    };
    fact::TlsSecret { certificate, key: Secret::new(key), ca: None }
}

/// Certificate and key, PEM.
pub type Pair = (Arc<[u8]>, Arc<[u8]>);

/// A self-signed certificate and its key.
pub fn self_signed(names: Vec<String>) -> Pair {
    let made = rcgen::generate_simple_self_signed(names).expect("names of a certificate");
    (made.cert.pem().into_bytes().into(), made.signing_key.serialize_pem().into_bytes().into())
}
