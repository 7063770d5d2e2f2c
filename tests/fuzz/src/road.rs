//! A user's file -> facts -> resources.

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster,
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener,
        route::v3::{RouteConfiguration, ScopedRouteConfiguration},
    },
    extensions::transport_sockets::tls::v3::Secret,
};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tidegate::{
    base::ObjectKey,
    desired::{Desired, show},
    inputs::{Change, Fact, fact::Age, read},
    report::Finding,
    translate::Options,
    xds::{Resource, ResourceKey, ResourceKind, Update},
    yaml,
};

/// What every world has: addresses, and a class whose paths may be patterns.
const SITE: &str = "\
apiVersion: tidegate.dev/v1alpha1
kind: VipPool
metadata: {name: the-site}
spec: {addresses: [192.0.2.0/24]}
---
apiVersion: tidegate.dev/v1alpha1
kind: InfraSetting
metadata: {name: the-site}
spec: {paths: {implementationSpecific: Regex}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: tidegate}
spec:
  controller: tidegate.dev/ingress-controller
  parameters: {apiGroup: tidegate.dev, kind: InfraSetting, name: the-site, scope: Cluster}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
";

/// Less than the product takes: millions of inputs are tried.
fn limits() -> yaml::Limits {
    yaml::Limits {
        bytes: 1 << 16,
        documents: 50,
        nodes: 5_000,
        scalar_bytes: 1 << 16,
        aliases: 100,
        ..yaml::Limits::default()
    }
}

/// What a message may not hold: whoever reads it has a terminal.
fn prints(text: &str) {
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.chars().any(hidden), "{text:?}");
    assert!(text.len() < 20_000, "a message of {} bytes", text.len());
}

fn told(findings: &[Finding]) {
    for finding in findings {
        prints(&finding.to_string());
        assert!(!finding.message.is_empty());
    }
}

/// The facts of a text, each object once, and what is told of the rest.
fn facts(data: &[u8]) -> BTreeMap<ObjectKey, Fact> {
    let mut facts = BTreeMap::new();
    let limits = limits();
    let text = match yaml::text(data, &limits) {
        Ok(text) => text,
        Err(error) => {
            prints(&error.to_string());
            return facts;
        }
    };
    let chunks = yaml::chunks(text, &limits).unwrap_or_default();
    for (n, chunk) in chunks.into_iter().enumerate() {
        let document = match yaml::document(chunk, &limits) {
            Ok(Some(document)) => document,
            Ok(None) => continue,
            Err(error) => {
                prints(&error.to_string());
                assert!(error.line > 0, "{error}: where?");
                continue;
            }
        };
        for object in read::objects(document.value) {
            let age = Age { seconds: 1_000 + i64::try_from(n).expect("few"), batch: 0 };
            match read::read(&object, &|_| age) {
                read::Reading::Fact { key, fact, findings } => {
                    told(&findings);
                    facts.entry(key).or_insert(fact);
                }
                read::Reading::Refused { key, findings } => {
                    told(&findings);
                    assert!(findings.iter().any(|finding| finding.object == key), "{key} is refused: why?");
                }
                read::Reading::Ignored(said) => prints(&said.unwrap_or_default()),
                read::Reading::Nameless { field, message } => prints(&format!("{field}: {message}")),
            }
        }
    }
    facts
}

/// Reading alone: no panic, and words that say what is wrong.
pub fn yaml(data: &[u8]) {
    facts(data);
}

fn site(data: &[u8], turned: bool) -> Desired {
    let mut all = facts(SITE.as_bytes());
    for (key, fact) in facts(data) {
        all.entry(key).or_insert(fact);
    }
    let mut changes: Vec<_> = all.into_iter().map(|(key, fact)| Change { key, fact: Some(fact) }).collect();
    if turned {
        changes.reverse();
    }
    Desired::in_memory(Options::default(), changes, 1_750_000_000)
}

/// The world of a text as one static config, and how many hosts it has.
pub fn world(data: &[u8]) -> (String, usize) {
    let mut desired = site(data, false);
    let config = show::standalone(&desired).to_string();
    let set = desired.publication().resources.set;
    (config, set.iter().filter(|resource| resource.key.kind == ResourceKind::Route).count())
}

/// The whole road: each resource once, as what it says it is, needing only what
/// is there, and the same whatever order the facts came in.
pub fn road(data: &[u8]) {
    let mut desired = site(data, false);
    for finding in desired.compiled().all_findings() {
        told(&[finding]);
    }
    let Update { set, removed } = desired.publication().resources;
    let keys: BTreeSet<&ResourceKey> = set.iter().map(|resource| &resource.key).collect();
    assert!(!removed.iter().any(|key| keys.contains(key)), "published and removed");
    assert_eq!(keys.len(), set.len(), "a resource twice");
    let mut scopes = BTreeSet::new();
    for resource in &set {
        whole(resource, &mut scopes);
        for need in resource.needs.iter().filter(|need| need.kind != ResourceKind::Secret) {
            assert!(keys.contains(need), "{} needs {need}", resource.key);
        }
    }
    let versions = |set: &[Resource]| -> BTreeMap<ResourceKey, String> {
        set.iter().map(|resource| (resource.key.clone(), resource.version.to_string())).collect()
    };
    assert_eq!(versions(&set), versions(&site(data, true).publication().resources.set));
}

fn whole(resource: &Resource, scopes: &mut BTreeSet<String>) {
    let Resource { key, body, .. } = resource;
    let body = body.bytes();
    let name = match key.kind {
        ResourceKind::Cluster => Cluster::decode(body).expect("a cluster").name,
        ResourceKind::Endpoints => ClusterLoadAssignment::decode(body).expect("endpoints").cluster_name,
        ResourceKind::Secret => {
            assert!(Secret::decode(body).expect("a secret").name.is_empty());
            return;
        }
        ResourceKind::Listener => Listener::decode(body).expect("a listener").name,
        ResourceKind::ScopedRoute => {
            let scope = ScopedRouteConfiguration::decode(body).expect("a scope");
            assert!(scopes.insert(format!("{:?}", scope.key)), "{key}: its scope is another's too");
            scope.name
        }
        ResourceKind::Route => RouteConfiguration::decode(body).expect("a table").name,
    };
    assert_eq!(name, *key.name);
}
