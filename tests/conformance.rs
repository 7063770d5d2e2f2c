//! The scenarios of the public Ingress conformance suite
//! (kubernetes-sigs/ingress-controller-conformance, `features/`), as data of our
//! own: what stands, what is asked, what is answered. "The status shows an
//! address" is read from the admin API; everything else goes through stock Envoy.

mod support;

use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};
use support::live::{
    Answer, Backend, Request, Service, Tenant, client, manifest::issued_secret, tenant, tls, tls::Authority,
};

/// A file of `tests/conformance`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Feature {
    /// Not the test's own class.
    class: Option<String>,
    #[serde(default = "yes")]
    served: bool,
    services: Vec<Behind>,
    /// DNS names, by the Secret that holds the certificate.
    #[serde(default)]
    certificates: BTreeMap<String, Vec<String>>,
    /// Of the Ingress, but for its class.
    spec: Value,
    /// Every answer of a backend has these headers.
    #[serde(default)]
    answer_headers: Vec<String>,
    scenarios: Vec<Scenario>,
}

/// A Service, port `http`, 8080.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Behind {
    name: String,
    #[serde(default = "one")]
    backends: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    means: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// `METHOD URL`.
    ask: String,
    #[serde(default = "one")]
    times: usize,
    #[serde(default = "ok")]
    status: u16,
    /// Whose backend answers; none where nobody does.
    service: Option<String>,
    /// How many different backends answer, of all the times.
    #[serde(default = "one")]
    backends: usize,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn ok() -> u16 {
    200
}

const FEATURES: [&str; 5] = [
    include_str!("conformance/default_backend.yaml"),
    include_str!("conformance/host_rules.yaml"),
    include_str!("conformance/ingress_class.yaml"),
    include_str!("conformance/load_balancing.yaml"),
    include_str!("conformance/path_rules.yaml"),
];

fn read(text: &str) -> Feature {
    serde_saphyr::from_str(text).expect("a feature")
}

#[test]
fn all_scenarios_of_the_public_suite_are_here() {
    let counts = FEATURES.map(|text| read(text).scenarios.len());
    assert_eq!(counts, [1, 6, 1, 1, 16]);
    assert_eq!(counts.iter().sum::<usize>(), 25);
}

#[test]
fn default_backend() {
    check("default-backend", FEATURES[0]);
}

#[test]
fn host_rules() {
    check("host-rules", FEATURES[1]);
}

#[test]
fn ingress_class() {
    check("ingress-class", FEATURES[2]);
}

#[test]
fn load_balancing() {
    check("load-balancing", FEATURES[3]);
}

#[test]
fn path_rules() {
    check("path-rules", FEATURES[4]);
}

fn check(name: &str, text: &str) {
    let feature = read(text);
    let tenant = Tenant::new(name);
    let _services = apply(&tenant, &feature);
    if !feature.served {
        not_served(&tenant, &feature);
        return;
    }
    let vip = tenant.live.programmed(&tenant.key("conformance"));
    for scenario in &feature.scenarios {
        for row in &scenario.rows {
            check_row(vip, &feature, &scenario.means, row);
        }
    }
}

/// The backends live as long as what this gives.
fn apply(tenant: &Tenant, feature: &Feature) -> Vec<Service> {
    let mut services = Vec::new();
    for Behind { name, backends } in &feature.services {
        let backends = (0..*backends).map(|_| Backend::start(name)).collect();
        let service = Service::with_backends(&tenant.name, name, backends);
        tenant.apply_service(&service);
        services.push(service);
    }
    let mut objects = Vec::new();
    for (secret, names) in &feature.certificates {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        objects.push(issued_secret(&tenant.name, secret, &Authority::shared().issue(&names)));
    }
    let mut spec = feature.spec.clone();
    spec["ingressClassName"] = feature.class.as_deref().unwrap_or(&tenant.name).into();
    objects.push(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"namespace": tenant.name, "name": "conformance"},
        "spec": spec,
    }));
    tenant.apply("conformance", &objects);
    services
}

/// It is known, told why, and shows no address; also not after a neighbour that
/// came later is served.
fn not_served(tenant: &Tenant, feature: &Feature) {
    assert_eq!(feature.scenarios.len(), 1);
    tenant.live.finding(&tenant.key("conformance"), "NotFound");
    let _service = tenant.service("neighbour");
    let vip = tenant.serve("later", tenant.ingress("later").prefix("later.test", "/", "neighbour"));
    tenant::get(vip, "later.test", "/").served_by("neighbour");
    let object = tenant.live.object(&tenant.key("conformance")).expect("it is known");
    assert_eq!(object["served"], false, "{object}");
    assert_eq!(object["programmed"], false, "{object}");
    assert!(object["addresses"].as_array().is_none_or(Vec::is_empty), "{object}");
    tenant::get(vip, "ingress-class", "/").refused_with(404);
}

fn check_row(vip: IpAddr, feature: &Feature, means: &str, row: &Row) {
    let mut seen = BTreeSet::new();
    for _ in 0..row.times {
        let answer = ask(vip, &row.ask);
        assert_eq!(answer.status, row.status, "{means}: {}: {}", row.ask, answer.show());
        if let Some(service) = &row.service {
            seen.insert(check_echo(vip, feature, row, service, &answer));
        }
    }
    let backends = if row.service.is_some() { row.backends } else { 0 };
    assert_eq!(seen.len(), backends, "{means}: {seen:?}");
}

/// The parts of a URL: the scheme, the host, the path.
fn parts(ask: &str) -> (&str, &str, &str, &str) {
    let (method, url) = ask.split_once(' ').expect("METHOD URL");
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let slash = rest.find('/').expect("a URL with a path");
    (method, scheme, &rest[..slash], &rest[slash..])
}

const USER_AGENT: &str = "conformance/1.0";

fn ask(vip: IpAddr, text: &str) -> Answer {
    let (method, scheme, host, path) = parts(text);
    let host = if host.is_empty() { tenant::http(vip).to_string() } else { host.to_owned() };
    let request = Request::new(method, &host, path).header("User-Agent", USER_AGENT);
    match scheme {
        "https" => tls::send(tenant::https(vip), &request).expect("the certificate is verified"),
        _ => client::must(tenant::http(vip), &request),
    }
}

/// What the backend saw is what was asked; gives the backend.
fn check_echo(vip: IpAddr, feature: &Feature, row: &Row, service: &str, answer: &Answer) -> SocketAddr {
    answer.served_by(service);
    let (method, _, host, path) = parts(&row.ask);
    let host = if host.is_empty() { tenant::http(vip).to_string() } else { host.to_owned() };
    let saw = answer.json();
    for (field, expected) in [("method", method), ("host", &host), ("path", path), ("proto", "HTTP/1.1")] {
        assert_eq!(saw[field], expected, "{}: {saw}", row.ask);
    }
    assert_eq!(saw["headers"]["user-agent"], USER_AGENT, "{saw}");
    for name in &feature.answer_headers {
        assert!(answer.header(name).is_some(), "{}: no {name}: {}", row.ask, answer.show());
    }
    saw["backend"].as_str().and_then(|text| text.parse().ok()).expect("a backend says where it is")
}
