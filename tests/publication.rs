//! What is published for what changed: no more than that, and nothing an Envoy
//! must refuse for being there twice.

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration};
use proptest::prelude::*;
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};
use tidegate::{
    base::Version,
    desired::Desired,
    inputs::Change,
    ipam::Ledger,
    source::files,
    translate::Options,
    xds::{Resource, ResourceKey, ResourceKind, ResourceKind::*, Update},
    yaml,
};

const NOW: i64 = 1_750_000_000;

const SITE: &str = "\
apiVersion: tidegate.dev/v1alpha1
kind: VipPool
metadata: {name: public}
spec: {addresses: [192.0.2.0/24]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: tidegate}
spec: {controller: tidegate.dev/ingress-controller}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
";

fn ingress(name: &str, rules: &[(&str, &str)]) -> String {
    let rule = |(host, path): &(&str, &str)| {
        let host = serde_json::to_string(host).expect("prints");
        format!(
            "  - host: {host}\n    http: {{paths: [{{path: {path}, pathType: Prefix, \
             backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n"
        )
    };
    let rules: String = rules.iter().map(rule).collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  ingressClassName: tidegate\n  rules:\n{rules}---\n"
    )
}

fn changes(text: &str) -> Vec<Change> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("all.yaml"), text).expect("written");
    let loaded = files::load_once(&[folder.path().to_owned()], NOW, &yaml::Limits::default());
    loaded.expect("a folder to read").changes
}

/// A site that serves this, all of it published, and what engines know of it.
struct Site {
    desired: Desired,
    known: BTreeMap<ResourceKey, Version>,
}

impl Site {
    fn new(more: &str) -> (Self, Update) {
        let desired = Desired::new(Options::default(), Ledger::default());
        let mut site = Self { desired, known: BTreeMap::new() };
        site.desired.take(changes(&format!("{SITE}{more}")));
        site.desired.first_sync();
        let first = site.settle();
        (site, first)
    }

    fn settle(&mut self) -> Update {
        let plan = self.desired.plan(NOW);
        self.desired.written(&plan);
        let Update { mut set, removed } = self.desired.publication().resources;
        // An equal version is no change: the server's cache holds it so.
        set.retain(|resource| {
            self.known.insert(resource.key.clone(), resource.version) != Some(resource.version)
        });
        Update { set, removed }
    }

    /// What is published when these come, and those go.
    fn edit(&mut self, text: &str, gone: &str) -> Update {
        let without = changes(gone).into_iter().map(|Change { key, fact: _ }| Change { key, fact: None });
        self.desired.take(without.chain(changes(text)).collect());
        self.settle()
    }
}

fn kinds(update: &Update) -> Vec<ResourceKind> {
    let Update { set, removed } = update;
    set.iter().map(|resource| resource.key.kind).chain(removed.iter().map(|key| key.kind)).collect()
}

fn of_kind(update: &Update, kind: ResourceKind) -> Vec<&Resource> {
    update.set.iter().filter(|resource| resource.key.kind == kind).collect()
}

#[test]
fn trap_31_a_listener_outlives_the_names_of_what_made_it() {
    let (mut site, first) = Site::new(&ingress("one", &[("a.test", "/")]));
    assert_eq!(of_kind(&first, Listener).len(), 1, "{first:?}");
    let renamed = site.edit(&ingress("two", &[("a.test", "/")]), &ingress("one", &[("a.test", "/")]));
    assert!(!kinds(&renamed).contains(&Listener), "{renamed:?}");
}

#[test]
fn trap_34_an_edit_of_routes_touches_no_listener() {
    let (mut site, _) = Site::new(&ingress("one", &[("a.test", "/")]));
    let edited = site.edit(&ingress("one", &[("a.test", "/x")]), "");
    assert_eq!(kinds(&edited), [Route]);
    let more = site.edit(&ingress("two", &[("b.test", "/")]), "");
    assert_eq!(kinds(&more), [ScopedRoute, Route]);
}

#[test]
fn trap_48_what_nobody_reads_publishes_nothing() {
    let (mut site, _) = Site::new(&ingress("one", &[("a.test", "/")]));
    for n in 0..100 {
        let other = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: other, namespace: shop}}\n\
             type: kubernetes.io/tls\nstringData: {{tls.crt: c{n}, tls.key: k{n}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: other, namespace: shop}}\n\
             spec: {{ports: [{{port: {}}}]}}\n",
            n + 1
        );
        assert_eq!(kinds(&site.edit(&other, "")), []);
    }
}

/// A host as people write it: of few labels, so that they meet.
fn host() -> impl Strategy<Value = String> {
    let label = prop_oneof![Just("a"), Just("A"), Just("b"), Just("xn--4ca"), Just("*")];
    let end = prop_oneof![6 => Just(""), 1 => Just("."), 1 => Just(":80"), 1 => Just(":8080")];
    (prop::collection::vec(label, 0..4), end).prop_map(|(labels, end)| labels.join(".") + end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Envoy refuses two scopes with one key, and a table with one domain twice.
    #[test]
    fn trap_28_no_name_stands_twice(
        objects in prop::collection::vec(prop::collection::vec((host(), 0..3_usize), 1..6), 1..4),
    ) {
        let paths = ["/", "/x", "/x/"];
        let texts = objects.iter().enumerate().map(|(n, rules)| {
            let rules: Vec<_> = rules.iter().map(|(host, path)| (host.as_str(), paths[*path])).collect();
            ingress(&format!("i{n}"), &rules)
        });
        let (_, update) = Site::new(&texts.collect::<String>());
        let mut keys = BTreeSet::new();
        for scope in of_kind(&update, ScopedRoute) {
            let scope = ScopedRouteConfiguration::decode(scope.body.clone()).expect("a scope");
            prop_assert!(keys.insert(format!("{:?}", scope.key)), "{:?} twice", scope.key);
        }
        for table in of_kind(&update, Route) {
            let table = RouteConfiguration::decode(table.body.clone()).expect("a table");
            let domains: Vec<_> = table.virtual_hosts.iter().flat_map(|host| &host.domains).collect();
            let lower: BTreeSet<_> = domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
            prop_assert_eq!(lower.len(), domains.len());
        }
        let names: BTreeSet<_> = update.set.iter().map(|resource| &resource.key).collect();
        prop_assert_eq!(names.len(), update.set.len());
    }
}
