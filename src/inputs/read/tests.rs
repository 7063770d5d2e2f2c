//! Rows for every kind: what is read, and the words in which it is refused.

use super::*;
use crate::{
    inputs::fact::{Backend, PathKind, ServiceKind},
    yaml,
};
use proptest::prelude::*;
use std::cell::Cell;

const SEEN: Age = Age { seconds: 1_000, batch: 7 };

#[track_caller]
fn reading(text: &str) -> Reading {
    let documents = yaml::documents(text, &yaml::Limits::default()).expect("is YAML");
    let [document] = documents.as_slice() else { panic!("one document") };
    read(&document.value, &|_| SEEN)
}

#[track_caller]
fn fact(text: &str) -> (ObjectKey, Fact) {
    match reading(text) {
        Reading::Fact { key, fact, findings } => {
            assert_eq!(findings, [], "no findings");
            (key, fact)
        }
        other => panic!("{other:?}"),
    }
}

/// What is said of an object, one line a finding.
#[track_caller]
fn check(text: &str, expected: &str) {
    let lines = |findings: Vec<Finding>| findings.iter().map(Finding::to_string).collect::<Vec<_>>();
    let found = match reading(text) {
        Reading::Fact { findings, .. } => lines(findings),
        Reading::Ignored(said) => vec![format!("ignored: {}", said.unwrap_or_default())],
        Reading::Refused { findings, .. } => lines(findings),
        Reading::Nameless { field, message } => vec![format!("{field}: {message}")],
    };
    assert_eq!(found.join("\n"), expected);
}

fn ingress(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: cart, namespace: shop}}\nspec: {spec}"
    )
}

/// An Ingress of one rule with this path.
fn path(path: &str) -> String {
    ingress(&format!("{{rules: [{{http: {{paths: [{path}]}}}}]}}"))
}

const BACKEND: &str = "backend: {service: {name: web, port: {number: 80}}}";

fn core(kind: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\n{rest}")
}

fn slice(rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: shop\n  \
         labels: {{kubernetes.io/service-name: web}}\n{rest}"
    )
}

fn ours(kind: &str, rest: &str) -> String {
    format!("apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: public}}\n{rest}")
}

#[test]
fn kinds_and_identity() {
    check("[1]", ": is no object: expected a mapping with apiVersion, kind and metadata");
    check("a: 1", "kind: kind is missing: every object has apiVersion, kind and metadata.name");
    check("kind: 3", "kind: kind must be a text");
    check(
        "kind: Service",
        "apiVersion: apiVersion is missing: every object has apiVersion, kind and metadata.name",
    );
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}",
        "ignored: Deployment web (apps/v1) is of a kind that Tidegate does not read; ignored",
    );
    check(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}",
        "ignored: Service web (serving.knative.dev/v1) is of a kind that Tidegate does not read; ignored",
    );
    check(
        "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: web}",
        "Ingress/default/web apiVersion: Error Unsupported: Ingress of extensions/v1beta1 is not read; \
         write apiVersion: networking.k8s.io/v1",
    );
    check(
        "apiVersion: networking.k8s.io/v1beta1\nkind: IngressClass\nmetadata: {name: web}",
        "IngressClass/web apiVersion: Error Unsupported: IngressClass of networking.k8s.io/v1beta1 is not \
         read; write apiVersion: networking.k8s.io/v1",
    );
    check(
        "apiVersion: tidegate.dev/v1alpha1\nkind: VIPPool\nmetadata: {name: a}",
        "kind: 'VIPPool' is no kind of tidegate.dev; it has InfraSetting, VipPool, DnsZone",
    );
    check("apiVersion: v1\nkind: Service", "metadata.name: Service: metadata.name is missing");
    check("apiVersion: v1\nkind: Service\nmetadata: {name: 3}", "metadata.name: Service: must be a text");
}

#[test]
fn names_that_are_none_are_printed_escaped() {
    let label = names::LABEL;
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: \"a\\0b\"}",
        &format!("metadata.name: Service: 'a\\0b' is no name: must be {label}"),
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: \"s\\u202ehop\"}",
        &format!("metadata.namespace: Service: 's\\u{{202e}}hop' is no name: must be {label}"),
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: A}\ntype: kubernetes.io/tls",
        &format!("metadata.name: Secret: 'A' is no name: must be {}", names::SUBDOMAIN),
    );
    let long = "a".repeat(64 << 10);
    let Reading::Nameless { message, .. } =
        reading(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {long}}}"))
    else {
        panic!("no name")
    };
    assert!(message.len() < 500, "a long name is cut: {}", message.len());
}

#[test]
fn namespaces_default_and_cluster_wide_kinds_have_none() {
    assert_eq!(
        fact("apiVersion: v1\nkind: Service\nmetadata: {name: web}").0.to_string(),
        "Service/default/web"
    );
    assert_eq!(fact(&ours("VipPool", "spec: {addresses: [10.0.0.1]}")).0.to_string(), "VipPool/public");
    let (key, read) = fact(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {team: a}\n  \
         annotations: {tidegate.dev/infra-setting: fast}",
    );
    assert_eq!(key.to_string(), "Namespace/shop");
    let Fact::Namespace(namespace) = read else { panic!("{read:?}") };
    assert_eq!(namespace.labels["team"], "a");
    assert_eq!(namespace.setting.as_deref(), Some("fast"));
}

#[test]
fn ingress_is_read_whole() {
    let (key, read) = fact(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: cart
  namespace: shop
  creationTimestamp: 2024-02-03T04:05:06Z
  annotations: {kubernetes.io/ingress.class: old, tidegate.dev/vip: '10.0.0.9,fd00::9'}
spec:
  ingressClassName: tidegate
  defaultBackend: {resource: {apiGroup: k8s.example.com, kind: Bucket, name: static}}
  rules:
  - host: Shop.Example.COM
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /x, pathType: Exact, backend: {service: {name: web, port: {name: http}}}}
      - {pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 81}}}}
  - host: '*.example.com'
  tls: [{hosts: [shop.example.com], secretName: shop-tls}, {}]
",
    );
    assert_eq!(key.to_string(), "Ingress/shop/cart");
    let Fact::Ingress(ingress) = read else { panic!("{read:?}") };
    assert_eq!(ingress.age, Age { seconds: 1_706_933_106, batch: 0 });
    assert_eq!(ingress.class.as_deref(), Some("tidegate"));
    assert_eq!(ingress.legacy_class.as_deref(), Some("old"));
    assert_eq!(ingress.vip.as_deref(), Some("10.0.0.9,fd00::9"));
    let bucket = Backend::Resource("Bucket.k8s.example.com static".into());
    assert_eq!(ingress.default_backend, Some(bucket));
    let hosts: Vec<&str> = ingress.rules.iter().map(|rule| rule.host.as_ref()).collect();
    assert_eq!(hosts, ["Shop.Example.COM", "*.example.com"]);
    let paths: Vec<_> = ingress.rules[0].paths.iter().map(|p| (p.path.as_ref(), p.kind)).collect();
    assert_eq!(
        paths,
        [("/", PathKind::Prefix), ("/x", PathKind::Exact), ("", PathKind::ImplementationSpecific)]
    );
    let named = Backend::Service { name: "web".into(), port: "http".into() };
    assert_eq!(ingress.rules[0].paths[1].backend, named);
    assert_eq!(ingress.tls[0].secret.as_deref(), Some("shop-tls"));
    assert_eq!((ingress.tls[0].hosts.len(), ingress.tls[1].hosts.len()), (1, 0));
}

#[test]
fn age_is_asked_for_where_none_is_written() {
    let text = path(&format!("{{path: /, pathType: Prefix, {BACKEND}}}"));
    let (_, Fact::Ingress(read)) = fact(&text) else { panic!("an Ingress") };
    assert_eq!(read.age, SEEN);
    let asked = Cell::new(0);
    let broken = yaml::documents(&ingress("{}"), &yaml::Limits::default()).expect("YAML");
    super::read(&broken[0].value, &|_| {
        asked.set(asked.get() + 1);
        SEEN
    });
    assert_eq!(asked.get(), 0, "what is refused is not asked about");
}

#[test]
fn ingress_refusals() {
    let at = "Ingress/shop/cart spec.rules[0].http.paths[0]";
    check(
        &ingress("{}"),
        "Ingress/shop/cart spec: Error Invalid: has neither rules nor a defaultBackend: write one of them",
    );
    check(
        &ingress("{rules: 3}"),
        "Ingress/shop/cart spec.rules: Error Invalid: invalid type: integer `3`, expected a sequence",
    );
    check(
        &path("{path: 3}"),
        &format!("{at}.path: Error Invalid: invalid type: integer `3`, expected a string"),
    );
    check(
        &ingress("{rules: [{http: {paths: []}}]}"),
        "Ingress/shop/cart spec.rules[0].http.paths: Error Invalid: is empty: write at least one path, or leave http out",
    );
    check(
        &path(&format!("{{path: /, {BACKEND}}}")),
        &format!("{at}.pathType: Error Invalid: is missing: write Exact, Prefix or ImplementationSpecific"),
    );
    check(
        &path(&format!("{{path: /, pathType: prefix, {BACKEND}}}")),
        &format!("{at}.pathType: Error Invalid: 'prefix' is none of Exact, Prefix, ImplementationSpecific"),
    );
    check(
        &path(&format!("{{path: a, pathType: Prefix, {BACKEND}}}")),
        &format!("{at}.path: Error Invalid: 'a' must begin with '/'"),
    );
    check(
        &path(&format!("{{pathType: Exact, {BACKEND}}}")),
        &format!("{at}.path: Error Invalid: '' must begin with '/'"),
    );
    check(
        &path(&format!("{{path: /a//b, pathType: Exact, {BACKEND}}}")),
        &format!("{at}.path: Error Invalid: '/a//b' must not have '//'"),
    );
    check(
        &path(&format!("{{path: \"/a\\0\\u202e\", pathType: Exact, {BACKEND}}}")),
        &format!("{at}.path: Error Invalid: '/a\\0\\u{{202e}}' has a control character"),
    );
}

#[test]
fn ingress_backends_that_are_refused() {
    let at = "Ingress/shop/cart spec.rules[0].http.paths[0]";
    check(
        &path("{path: /, pathType: Exact}"),
        &format!("{at}.backend: Error Invalid: is missing: name a service and its port"),
    );
    check(
        &path("{path: /, pathType: Exact, backend: {service: {name: web}}}"),
        &format!("{at}.backend.service.port: Error Invalid: has neither name nor number: write one"),
    );
    check(
        &path("{path: /, pathType: Exact, backend: {service: {name: web, port: {name: a, number: 1}}}}"),
        &format!("{at}.backend.service.port: Error Invalid: has both a name and a number: write one"),
    );
    check(
        &path("{path: /, pathType: Exact, backend: {service: {name: web, port: {number: 65536}}}}"),
        &format!("{at}.backend.service.port: Error Invalid: 65536 is no port: must be 1 to 65535"),
    );
    check(
        &path("{path: /, pathType: Exact, backend: {service: {name: web, port: {name: '80'}}}}"),
        &format!(
            "{at}.backend.service.port: Error Invalid: '80' is no port name: must be {}",
            names::PORT_NAME
        ),
    );
    check(
        &path("{path: /, pathType: Exact, backend: {service: {name: web, port: {number: '80'}}}}"),
        &format!(
            "{at}.backend.service.port.number: Error Invalid: invalid type: string \"80\", expected i32"
        ),
    );
    check(
        &ingress("{defaultBackend: {service: {name: a/b, port: {number: 1}}}}"),
        &format!(
            "Ingress/shop/cart spec.defaultBackend.service.name: Error Invalid: 'a/b' is no name: must be {}",
            names::LABEL
        ),
    );
    check(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, creationTimestamp: soon}",
        "Ingress/default/a metadata.creationTimestamp: Error Invalid: failed to parse four digit integer as \
         year: invalid digit, expected 0-9 but got s",
    );
}

#[test]
fn large_ingresses() {
    let rules = |count: usize| {
        let rule = |i| {
            format!(
                "  - host: h{i}.example.com\n    http: {{paths: [{{path: /, pathType: Prefix, {BACKEND}}}]}}\n"
            )
        };
        ingress(&format!("\n  rules:\n{}", (0..count).map(rule).collect::<String>()))
    };
    let (_, Fact::Ingress(read)) = fact(&rules(10_000)) else { panic!("an Ingress") };
    assert_eq!(read.rules.len(), 10_000);
    check(
        &rules(20_001),
        "Ingress/shop/cart spec.rules: Error TooLarge: has 20001 rules; at most 20000 are read: make several Ingresses",
    );
    let paths = vec![format!("{{path: /, pathType: Prefix, {BACKEND}}}"); 1_001].join(",");
    check(
        &path(&paths),
        "Ingress/shop/cart spec.rules[0].http.paths: Error TooLarge: has 1001 paths; at most 1000 are read: \
         make several Ingresses",
    );
    check(
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations: {{a: {}}}",
            "x".repeat(1 << 20)
        ),
        "Service/default/web metadata.annotations: Error TooLarge: annotations have 1048577 bytes together; \
         Kubernetes takes at most 262144",
    );
}

#[test]
fn ingress_classes() {
    let class = |rest: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: main\n  annotations: {{ingressclass.kubernetes.io/is-default-class: 'true'}}\nspec:\n  controller: tidegate.dev/ingress-controller\n{rest}"
        )
    };
    let read = |rest: &str| match fact(&class(rest)).1 {
        Fact::IngressClass(read) => read,
        other => panic!("{other:?}"),
    };
    let plain = read("");
    assert!(plain.default && plain.setting.is_none() && plain.foreign_parameters.is_none());
    assert_eq!((plain.controller.as_ref(), plain.age), (crate::inputs::fact::CONTROLLER, SEEN));
    let ours = read("  parameters: {apiGroup: tidegate.dev, kind: InfraSetting, name: fast}");
    assert_eq!((ours.setting.as_deref(), ours.foreign_parameters.as_deref()), (Some("fast"), None));
    let scoped = read(
        "  parameters: {apiGroup: tidegate.dev, kind: InfraSetting, name: fast, scope: Namespace, namespace: a}",
    );
    assert_eq!(scoped.foreign_parameters.as_deref(), Some("InfraSetting.tidegate.dev a/fast"));
    check(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: main}",
        "IngressClass/main spec.controller: Error Invalid: is missing; ours is tidegate.dev/ingress-controller",
    );
}

#[test]
fn services() {
    let read = |rest: &str| match fact(&core("Service", rest)).1 {
        Fact::Service(read) => read,
        other => panic!("{other:?}"),
    };
    let service = read(
        "spec:\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}\n  \
         publishNotReadyAddresses: true\n  ports:\n  - {name: web, port: 80, appProtocol: kubernetes.io/h2c}\n  \
         - {name: dns, port: 53, protocol: UDP}\n",
    );
    assert_eq!(service.kind, ServiceKind::Endpoints);
    assert_eq!(service.ports.len(), 1);
    assert_eq!(service.ports[0].app_protocol.as_deref(), Some("kubernetes.io/h2c"));
    assert!(service.sticky_source && service.publish_not_ready);
    assert_eq!(service.sticky_seconds, Some(60));
    let external = read("spec: {type: ExternalName, externalName: Api.Example.com.}");
    assert_eq!(external.kind, ServiceKind::ExternalName("Api.Example.com.".into()));
    assert!(read("").ports.is_empty());

    let at = "Service/shop/web spec";
    check(
        &core("Service", "spec: {type: Magic}"),
        &format!(
            "{at}.type: Error Invalid: 'Magic' is none of ClusterIP, NodePort, LoadBalancer, ExternalName"
        ),
    );
    check(
        &core("Service", "spec: {ports: [{port: 0}]}"),
        &format!("{at}.ports[0].port: Error Invalid: 0 is no port: must be 1 to 65535"),
    );
    check(
        &core("Service", "spec: {ports: [{port: http}]}"),
        &format!("{at}.ports[0].port: Error Invalid: invalid type: string \"http\", expected i32"),
    );
    check(
        &core("Service", "spec: {ports: [{port: 80}, {port: 81, name: a}]}"),
        &format!("{at}.ports[0].name: Error Invalid: is missing: a Service with several ports names each"),
    );
    check(
        &core("Service", "spec: {ports: [{port: 80, name: a}, {port: 81, name: a}]}"),
        &format!("{at}.ports[1].name: Error Invalid: 'a' names another port too"),
    );
    check(
        &core("Service", "spec: {ports: [{port: 80, protocol: tcp}]}"),
        &format!("{at}.ports[0].protocol: Error Invalid: 'tcp' is none of TCP, UDP, SCTP"),
    );
    check(
        &core("Service", "spec: {sessionAffinity: Cookie}"),
        &format!("{at}.sessionAffinity: Error Invalid: 'Cookie' is neither None nor ClientIP"),
    );
    check(
        &core("Service", "spec: {type: ExternalName, externalName: a b}"),
        &format!("{at}.externalName: Error Invalid: 'a b' is no DNS name: must be {}", names::SUBDOMAIN),
    );
}

#[test]
fn endpoint_slices() {
    let (_, Fact::EndpointSlice(read)) = fact(&slice(
        "addressType: IPv4\nports: [{name: web, port: 8080}, {name: dns, port: 53, protocol: UDP}]\nendpoints:\n\
         - {addresses: [10.0.0.1, 10.0.0.2]}\n- {addresses: [10.0.0.3], conditions: {ready: false, terminating: true}}\n\
         - {addresses: [10.0.0.4], conditions: {ready: false, serving: true, terminating: true}}\n",
    )) else {
        panic!("a slice")
    };
    assert_eq!(read.service.as_ref(), "web");
    assert_eq!(read.ports, [("web".into(), 8080)]);
    let seen: Vec<_> =
        read.endpoints.iter().map(|e| (e.address.to_string(), e.ready, e.serving, e.terminating)).collect();
    assert_eq!(
        seen,
        [
            ("10.0.0.1".to_owned(), true, true, false),
            ("10.0.0.3".to_owned(), false, false, true),
            ("10.0.0.4".to_owned(), false, true, true),
        ]
    );
    let at = "EndpointSlice/shop/web-1";
    check(
        &slice(
            "addressType: IPv4\nendpoints: [{addresses: ['fd00::1']}, {addresses: [\"x\\u202e\"]}, {addresses: []}]",
        ),
        &format!(
            "{at} endpoints[0].addresses[0]: Warning EndpointRefused: fd00::1 is not of the slice's addressType; not used\n\
             {at} endpoints[1].addresses[0]: Warning EndpointRefused: 'x\\u{{202e}}' is no IP address; not used\n\
             {at} endpoints[2].addresses[0]: Warning EndpointRefused: the endpoint has no address; not used"
        ),
    );
    check(
        &slice("addressType: IPv6\nendpoints: [{addresses: ['::ffff:127.0.0.1']}]"),
        &format!(
            "{at} endpoints[0].addresses[0]: Warning EndpointRefused: ::ffff:127.0.0.1 is an IPv4-mapped address: write it as IPv4; not used"
        ),
    );
    check(
        &slice("addressType: FQDN\nendpoints: [{addresses: [a.b]}]"),
        &format!(
            "{at} addressType: Warning Unsupported: FQDN endpoints are not used; list IPv4 or IPv6 addresses"
        ),
    );
    check(
        &slice("addressType: IPv5"),
        &format!("{at} addressType: Error Invalid: 'IPv5' is none of IPv4, IPv6, FQDN"),
    );
    check(
        &slice("addressType: IPv4\nports: [{name: a}]"),
        &format!(
            "{at} ports[0].port: Warning Unsupported: is missing (it then means every port); traffic needs a number, so it is not used"
        ),
    );
    check(
        &slice("addressType: IPv4\nports: [{port: 70000}]"),
        &format!("{at} ports[0].port: Error Invalid: 70000 is no port: must be 1 to 65535"),
    );
    let many =
        format!("addressType: IPv4\nendpoints: [{}]", vec!["{addresses: [10.0.0.1]}"; 1_001].join(","));
    check(
        &slice(&many),
        &format!(
            "{at} endpoints: Error TooLarge: has 1001; Kubernetes takes at most 1000: make several slices"
        ),
    );
    check(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4",
        "ignored: EndpointSlice/default/a metadata.labels: Info NotFound: has no label \
         kubernetes.io/service-name: it belongs to no Service, and is ignored",
    );
}

#[test]
fn secrets() {
    let (_, Fact::Secret(read)) = fact(&core(
        "Secret",
        "type: kubernetes.io/tls\ndata: {tls.crt: Y2VydA==, tls.key: b2xk}\nstringData: {tls.key: new, ca.crt: root}",
    )) else {
        panic!("a Secret")
    };
    assert_eq!(read.certificate.as_ref(), b"cert");
    assert_eq!(read.key.expose().as_ref(), b"new", "stringData wins");
    assert_eq!(read.ca.as_deref(), Some(b"root".as_slice()));
    let (_, Fact::Secret(read)) = fact(&core("Secret", "type: kubernetes.io/tls")) else {
        panic!("a Secret")
    };
    assert!(read.certificate.is_empty() && read.ca.is_none());
    fact(&core("Secret", "type: Opaque\ndata: {ca.crt: cm9vdA==}"));
    check(&core("Secret", "type: Opaque\ndata: {password: aHVudGVyMg==}"), "ignored: ");
    check(
        &core("Secret", "type: kubernetes.io/tls\ndata: {tls.key: hunter2-canary}"),
        "Secret/shop/web data.tls.key: Error Invalid: is no base64",
    );
    check(
        &core("Secret", "type: kubernetes.io/tls\nstringData: hunter2-canary"),
        "Secret/shop/web stringData: Error Invalid: is of the wrong type: expected a map",
    );
    check(
        &core("Secret", &format!("type: kubernetes.io/tls\nstringData: {{a: {}}}", "x".repeat(1 << 20 | 1))),
        "Secret/shop/web data: Error TooLarge: has 1048577 bytes; Kubernetes takes at most 1048576",
    );
}

#[test]
fn our_kinds_are_strict() {
    let (_, Fact::InfraSetting(read)) = fact(&ours("InfraSetting", "spec: {vip: {pool: a}}")) else {
        panic!("an InfraSetting")
    };
    assert_eq!((read.vip.pool.as_deref(), read.listeners.http), (Some("a"), 80));
    fact(&ours("DnsZone", "spec: {zone: apps.example.com, glue: {ns1: [10.0.0.1]}}"));
    check(&ours("VipPool", ""), "VipPool/public spec: Error Invalid: is missing");
    check(
        &ours("VipPool", "sepc: {}\nspec: {addresses: []}"),
        "VipPool/public sepc: Error Invalid: unknown field `sepc`, expected one of apiVersion, kind, metadata, spec, status",
    );
    check(
        &ours("VipPool", "spec: {addresses: [], prioritee: 3}"),
        "VipPool/public spec.prioritee: Error Invalid: unknown field `prioritee`, expected one of `addresses`, \
         `exclude`, `namespaces`, `priority`, `quarantineSeconds`",
    );
    check(
        &ours("InfraSetting", "spec: {timeouts: {routeMs: -1}}"),
        "InfraSetting/public spec.timeouts.routeMs: Error Invalid: invalid value: integer `-1`, expected u64",
    );
    check(
        &ours("DnsZone", "spec: {zone: a.b, glue: {ns1: [10.0.0.300]}}"),
        "DnsZone/public spec.glue.ns1[0]: Error Invalid: invalid IP address syntax",
    );
    check(&ours("DnsZone", "spec: {}"), "DnsZone/public spec: Error Invalid: missing field `zone`");
}

#[test]
fn lists_are_their_items() {
    let document = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "b"}}]},
        3,
    ]});
    let keys: Vec<_> = objects(document)
        .iter()
        .map(|item| match read(item, &|_| SEEN) {
            Reading::Fact { key, .. } => key.to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(keys[..2], ["Service/default/a", "Service/default/b"]);
    assert!(keys[2].starts_with("Nameless"), "{keys:?}");
    let plain = serde_json::json!({"kind": "List", "items": 3});
    assert_eq!(objects(plain.clone()), [plain]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof!["[a-z/.*]{0,6}", any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(
                prop_oneof![
                    Just("rules"),
                    Just("http"),
                    Just("paths"),
                    Just("backend"),
                    Just("service"),
                    Just("port"),
                    Just("name"),
                    Just("ports"),
                    Just("tls"),
                    Just("hosts"),
                    Just("tls.crt"),
                    Just("addresses"),
                    Just("path"),
                    Just("pathType"),
                    Just("number"),
                    Just("parameters"),
                    Just("vip"),
                ]
                .prop_map(str::to_owned),
                inner,
                0..5
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_objects_never_panic(row in 0..KINDS.len(), spec in any_json(), metadata in any_json(), extra in any_json()) {
        let kind = &KINDS[row];
        let mut value = serde_json::json!({
            "apiVersion": kind.api_version(), "kind": kind.kind.as_str(), "type": "kubernetes.io/tls",
            "spec": spec, "data": extra.clone(), "endpoints": extra.clone(), "ports": extra,
        });
        read(&value, &|_| SEEN);
        value["metadata"] = serde_json::json!({"name": "a", "labels": {"kubernetes.io/service-name": "b"}});
        read(&value, &|_| SEEN);
        value["metadata"] = metadata;
        read(&value, &|_| SEEN);
    }
}
