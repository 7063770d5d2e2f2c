//! Manifests that read as sentences. JSON is YAML.

use super::{backend::Backend, tls::Issued};
use serde_json::{Value, json};

/// Several objects as one file.
#[must_use]
pub fn documents(objects: &[Value]) -> String {
    let texts: Vec<_> = objects.iter().map(|object| format!("{object:#}\n")).collect();
    texts.join("---\n")
}

/// An Ingress, as a value of its fields.
#[derive(Debug, Clone)]
pub struct Ingress {
    metadata: serde_json::Map<String, Value>,
    spec: serde_json::Map<String, Value>,
    rules: Vec<Value>,
    tls: Vec<Value>,
}

impl Ingress {
    #[must_use]
    pub fn new(namespace: &str, name: &str, class: &str) -> Self {
        let map = |value: Value| value.as_object().cloned().expect("an object");
        let metadata = map(json!({"namespace": namespace, "name": name}));
        let spec = map(json!({"ingressClassName": class}));
        Self { metadata, spec, rules: Vec::new(), tls: Vec::new() }
    }

    /// How old it is: a year.
    #[must_use]
    pub fn since(mut self, year: u16) -> Self {
        self.metadata.insert("creationTimestamp".to_owned(), format!("{year}-01-01T00:00:00Z").into());
        self
    }

    /// Everything of a host, element-wise below a path. An empty host is all hosts.
    #[must_use]
    pub fn prefix(self, host: &str, path: &str, service: &str) -> Self {
        self.rule(host, path, "Prefix", service)
    }

    #[must_use]
    pub fn exact(self, host: &str, path: &str, service: &str) -> Self {
        self.rule(host, path, "Exact", service)
    }

    fn rule(mut self, host: &str, path: &str, kind: &str, service: &str) -> Self {
        let path = json!({"path": path, "pathType": kind, "backend": backend(service)});
        let mut rule = json!({"http": {"paths": [path]}});
        if !host.is_empty() {
            rule["host"] = host.into();
        }
        self.rules.push(rule);
        self
    }

    #[must_use]
    pub fn default_backend(mut self, service: &str) -> Self {
        self.spec.insert("defaultBackend".to_owned(), backend(service));
        self
    }

    /// With no hosts it is for all of them.
    #[must_use]
    pub fn tls(mut self, hosts: &[&str], secret: &str) -> Self {
        self.tls.push(json!({"hosts": hosts, "secretName": secret}));
        self
    }
}

impl From<Ingress> for Value {
    fn from(ingress: Ingress) -> Self {
        let Ingress { metadata, mut spec, rules, tls } = ingress;
        if !rules.is_empty() {
            spec.insert("rules".to_owned(), rules.into());
        }
        if !tls.is_empty() {
            spec.insert("tls".to_owned(), tls.into());
        }
        let kind = ("networking.k8s.io/v1", "Ingress");
        json!({"apiVersion": kind.0, "kind": kind.1, "metadata": metadata, "spec": spec})
    }
}

fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"name": "http"}}})
}

/// What an EndpointSlice says of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    NotReady,
    /// Going away, and still answering.
    Terminating,
    /// Going away, and answering no more.
    Terminated,
    /// Not listed.
    Gone,
}

impl State {
    fn conditions(self) -> Option<Value> {
        let (ready, serving, terminating) = match self {
            Self::Ready => (true, true, false),
            Self::NotReady => (false, false, false),
            Self::Terminating => (false, true, true),
            Self::Terminated => (false, false, true),
            Self::Gone => return None,
        };
        Some(json!({"ready": ready, "serving": serving, "terminating": terminating}))
    }
}

/// A Service and its backends, each in a slice of its own, for each has another port.
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub backends: Vec<(Backend, State)>,
    /// Fields beside the defaults of `spec`.
    pub spec: Value,
    pub app_protocol: Option<String>,
}

impl Service {
    /// One ready backend, behind port `http`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self::with_backends(namespace, name, vec![Backend::start(name)])
    }

    #[must_use]
    pub fn with_backends(namespace: &str, name: &str, backends: Vec<Backend>) -> Self {
        let backends = backends.into_iter().map(|backend| (backend, State::Ready)).collect();
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { namespace, name, backends, spec: json!({}), app_protocol: None }
    }

    #[must_use]
    pub fn app_protocol(mut self, name: &str) -> Self {
        self.app_protocol = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn manifests(&self) -> Vec<Value> {
        let Self { namespace, name, backends, spec, app_protocol } = self;
        let mut port = json!({"name": "http", "port": 8080, "protocol": "TCP"});
        if let Some(protocol) = app_protocol {
            port["appProtocol"] = protocol.as_str().into();
        }
        let mut all = json!({"ports": [port]});
        merge(&mut all, spec);
        let metadata = json!({"namespace": namespace, "name": name});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": all});
        let slices = backends.iter().enumerate().map(|(n, (backend, state))| self.slice(n, backend, *state));
        std::iter::once(service).chain(slices).collect()
    }

    fn slice(&self, n: usize, backend: &Backend, state: State) -> Value {
        let endpoint = |conditions| {
            let addresses = [backend.address.ip().to_string()];
            json!({"addresses": addresses, "conditions": conditions})
        };
        let endpoints: Vec<_> = state.conditions().map(endpoint).into_iter().collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": format!("{}-{n}", self.name),
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": backend.address.port(), "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    }
}

/// Fields of the second stand in the place of those of the first.
pub fn merge(into: &mut Value, from: &Value) {
    for (name, value) in from.as_object().into_iter().flatten() {
        into[name] = value.clone();
    }
}

/// A Secret of type `kubernetes.io/tls`.
#[must_use]
pub fn tls_secret(namespace: &str, name: &str, certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"namespace": namespace, "name": name},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    })
}

#[must_use]
pub fn issued_secret(namespace: &str, name: &str, issued: &Issued) -> Value {
    tls_secret(namespace, name, &issued.certificate, &issued.key)
}

/// A class of ours with a setting of the same name, on the ports of tests; the
/// fields of the second stand over the defaults.
#[must_use]
pub fn class(name: &str, setting: &Value) -> [Value; 2] {
    let mut spec = json!({"listeners": {"http": super::HTTP, "https": super::HTTPS}});
    merge(&mut spec, setting);
    let parameters =
        json!({"apiGroup": "tidegate.dev", "kind": "InfraSetting", "name": name, "scope": "Cluster"});
    let class = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {"controller": "tidegate.dev/ingress-controller", "parameters": parameters},
    });
    let setting = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "InfraSetting",
        "metadata": {"name": name},
        "spec": spec,
    });
    [class, setting]
}

#[must_use]
pub fn dns_zone(name: &str, zone: &str) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "DnsZone",
        "metadata": {"name": name},
        "spec": {"zone": zone},
    })
}
