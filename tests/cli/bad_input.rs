//! A broken object changes nothing but itself, and its author is told where.

use super::{Run, tidegate, tidegate_reads};
use std::fs;

/// A site with one good host; what follows it is bad.
const SITE: &str = "\
apiVersion: tidegate.dev/v1alpha1
kind: VipPool
metadata: {name: public}
spec: {addresses: [192.0.2.0/24]}
---
apiVersion: tidegate.dev/v1alpha1
kind: InfraSetting
metadata: {name: public}
spec: {paths: {implementationSpecific: Regex}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: tidegate}
spec:
  controller: tidegate.dev/ingress-controller
  parameters: {apiGroup: tidegate.dev, kind: InfraSetting, name: public, scope: Cluster}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
";

fn ingress(name: &str, annotations: &str, rest: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
         metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}\n\
         spec:\n  ingressClassName: tidegate\n{rest}"
    )
}

fn rule(host: &str, path: &str, kind: &str) -> String {
    format!(
        "  - host: {host}\n    http: {{paths: [{{path: {path}, pathType: {kind}, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n"
    )
}

fn good() -> String {
    ingress("good", "", &format!("  rules:\n{}", rule("good.test", "/", "Prefix")))
}

/// The bad object comes behind the good ones: it is told with its line, and the
/// good host is served all the same.
#[track_caller]
fn check(bad: &str, says: &[&str]) -> Run {
    check_at(1, bad, says)
}

/// The same, told with another line of the bad text than its first.
#[track_caller]
fn check_at(at: usize, bad: &str, says: &[&str]) -> Run {
    let before = format!("{SITE}{}---\n", good());
    let line = before.lines().count() + at;
    let input = format!("{before}{bad}");
    let told = tidegate_reads(&["validate", "-f", "-"], &input).ends(1);
    let place = format!("-:{line}: ");
    let found = told.out.lines().find(|row| row.contains(says[0])).unwrap_or_else(|| panic!("{}", told.out));
    assert!(found.starts_with(&place), "no {place} in: {found}");
    for word in says {
        assert!(found.contains(word), "no '{word}' in: {found}");
    }
    let translated = tidegate_reads(&["translate", "--to", "ir", "-f", "-"], &input).ends(1);
    assert!(translated.err.contains(says[0]), "{}", translated.err);
    let ir = translated.json();
    let hosts: Vec<_> = ir["hosts"].as_array().unwrap().iter().map(|host| &host["key"]["host"]).collect();
    assert!(hosts.iter().any(|host| *host == "good.test"), "{hosts:?}");
    assert!(told.out.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", told.out);
    translated
}

#[test]
fn a_large_annotation() {
    let annotation = format!("note: {}", "x".repeat(1 << 20));
    check(
        &ingress("large", &annotation, &format!("  rules:\n{}", rule("large.test", "/", "Prefix"))),
        &["Ingress/shop/large metadata.annotations", "TooLarge", "1048580 bytes"],
    );
}

#[test]
fn ten_thousand_hosts_in_one_ingress() {
    let rules: String = (0..10_000).map(|n| rule(&format!("h{n}.test"), "/", "Prefix")).collect();
    let bad = rule("10.0.0.1", "/", "Prefix");
    let ir = check(
        &ingress("many", "", &format!("  rules:\n{rules}{bad}")),
        &["Ingress/shop/many spec.rules[10000].host", "Invalid", "IP address"],
    );
    assert_eq!(ir.json()["hosts"].as_array().unwrap().len(), 10_001);
}

#[test]
fn names_that_do_not_print() {
    for (host, shown) in [("\"nul\\0.test\"", "nul\\0.test"), ("\"bidi\\u202e.test\"", "bidi\\u{202e}.test")]
    {
        check(
            &ingress("odd", "", &format!("  rules:\n{}", rule(host, "/", "Prefix"))),
            &["Ingress/shop/odd spec.rules[0].host", shown],
        );
    }
    // An object whose name is none has no key to be told by: its line stands alone.
    for (name, shown) in [("\"nul\\0\"", "nul\\0"), ("\"bidi\\u202e\"", "bidi\\u{202e}")] {
        let bad = ingress(name, "", &format!("  rules:\n{}", rule("odd.test", "/", "Prefix")));
        check(&bad, &["metadata.name", shown]);
    }
}

#[test]
fn regex_bombs() {
    for bomb in ["\"/(a{1000}){1000}\"", "\"/(((a*)*)*){900}{900}\"", "\"/[\""] {
        check(
            &ingress("bomb", "", &format!("  rules:\n{}", rule("bomb.test", bomb, "ImplementationSpecific"))),
            &["Ingress/shop/bomb spec.rules[0].http.paths[0].path", "regular expression"],
        );
    }
}

#[test]
fn a_certificate_without_its_key() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: half, namespace: shop}\n\
                  type: kubernetes.io/tls\nstringData: {tls.crt: x}\n";
    let tls = "  tls: [{hosts: [half.test], secretName: half}]\n";
    let bad = ingress("half", "", &format!("{tls}  rules:\n{}", rule("half.test", "/", "Prefix")));
    check(
        &format!("{bad}---\n{secret}"),
        &["Ingress/shop/half spec.tls[0].secretName", "BadCertificate", "Secret/shop/half has no tls.key"],
    );
}

#[test]
fn broken_yaml() {
    check_at(2, "apiVersion: v1\nkind: [\n", &["Error", "unclosed bracket"]);
}

#[test]
fn the_same_name_in_two_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), format!("{SITE}{}", good())).unwrap();
    let second = ingress("good", "", &format!("  rules:\n{}", rule("other.test", "/", "Prefix")));
    fs::write(folder.path().join("b.yaml"), format!("# a comment\n{second}")).unwrap();
    let path = folder.path().to_str().unwrap();
    let told = tidegate(&["validate", "-f", path]).ends(1).out;
    assert!(told.contains("b.yaml:2: Ingress/shop/good"), "{told}");
    assert!(told.contains("Duplicate") && told.contains("a.yaml:23"), "{told}");
    let ir = tidegate(&["translate", "--to", "ir", "-f", path]).ends(1).json();
    let hosts: Vec<_> = ir["hosts"].as_array().unwrap().iter().map(|host| &host["key"]["host"]).collect();
    assert_eq!(hosts, ["good.test"], "the first is used");
}
