//! What the site is told: the objects of a real one, a file for each host.

use crate::harness::tls::Leaf;

/// The namespace of all hosts.
const NAMESPACE: &str = "bench";
/// Where backends live; each on an address of its own, all on one port.
pub const BACKENDS: [(&str, &str); 2] = [("a", "127.81.1.1"), ("b", "127.81.1.2")];

/// Ports of the site.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
    pub backend: u16,
}

/// A host's name by its number.
pub fn host(number: usize) -> String {
    format!("h{number:05}.bench.test")
}

/// The file of a host.
pub fn host_file(number: usize) -> String {
    format!("host-{number:05}.yaml")
}

/// Pool, setting, class and zone.
pub fn gateway(ports: Ports) -> String {
    let Ports { http, https, backend: _ } = ports;
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: VipPool
metadata: {{name: bench}}
spec: {{addresses: [127.81.0.0/24]}}
---
apiVersion: tidegate.dev/v1alpha1
kind: InfraSetting
metadata: {{name: bench}}
spec:
  vip: {{pool: bench}}
  listeners: {{http: {http}, https: {https}}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: bench}}
spec:
  controller: tidegate.dev/ingress-controller
  parameters: {{apiGroup: tidegate.dev, kind: InfraSetting, name: bench, scope: Cluster}}
---
apiVersion: tidegate.dev/v1alpha1
kind: DnsZone
metadata: {{name: bench}}
spec: {{zone: bench.test, glue: {{ns1.bench.test: [127.0.0.1]}}}}
"
    )
}

/// A Service whose one endpoint is the backend `at` (an index of [`BACKENDS`]).
pub fn service(name: &str, at: usize, port: u16) -> String {
    let (_, address) = BACKENDS[at];
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {NAMESPACE}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{name: http, port: {port}, protocol: TCP}}]
endpoints: [{{addresses: [{address}]}}]
"
    )
}

/// One Ingress: `/` goes to the first Service, each other path to its own.
pub fn ingress(number: usize, service: &str, paths: &[(&str, &str)], tls: bool) -> String {
    let host = host(number);
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: h{number:05}, namespace: {NAMESPACE}}}
spec:
  ingressClassName: bench
"
    );
    if tls {
        text += &format!("  tls:\n  - hosts: [{host}]\n    secretName: h{number:05}-tls\n");
    }
    text += &format!("  rules:\n  - host: {host}\n    http:\n      paths:\n");
    for (path, service) in [("/", service)].iter().chain(paths) {
        text += &format!(
            "      - {{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{name: http}}}}}}}}\n"
        );
    }
    text
}

/// The certificate of a host.
pub fn secret(number: usize, leaf: &Leaf) -> String {
    format!(
        "---
apiVersion: v1
kind: Secret
metadata: {{name: h{number:05}-tls, namespace: {NAMESPACE}}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}",
        indented(&leaf.certificate),
        indented(&leaf.key)
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
