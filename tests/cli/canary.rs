//! A private key is printed by nothing but what is documented to hold it.

use super::{Site, support::golden, text, tidegate};
use std::fs;

/// Stands in a Secret where a key should: it is no PEM, so everything that speaks
/// of the Secret is tempted to quote it.
const CANARY: &str = "CANARY-9b1f6d5e";

#[test]
fn private_keys_are_printed_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).unwrap();
    let cases = golden::cases();
    let tls = cases.iter().find(|case| case.name == "tls").expect("the case is there");
    fs::write(manifests.join("tls.yaml"), &tls.manifests[0].1).unwrap();
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: bad, namespace: shop}\n\
         spec:\n  ingressClassName: tidegate\n  tls: [{hosts: [bad.demo.test], secretName: bad}]\n  \
         rules: [{host: bad.demo.test}]\n";
    let secret = |name: &str, data: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\n\
             type: kubernetes.io/tls\n{data}\n"
        )
    };
    let bad = secret("bad", &format!("stringData: {{tls.crt: $shop.crt, tls.key: {CANARY}}}"));
    let bad = bad.replace("$shop.crt", &serde_json::to_string(&shop_certificate()).unwrap());
    // Not base64, wrong types: errors of reading.
    let worse = secret("worse", &format!("data: {{tls.crt: '{CANARY}!', tls.key: '{CANARY}!'}}"));
    let worst = secret("worst", &format!("data: [{CANARY}]\nstringData: {CANARY}"));
    fs::write(manifests.join("bad.yaml"), [ingress, &bad, &worse, &worst].join("---\n")).unwrap();
    fs::write(manifests.join("broken.yaml"), format!("tls.key: {CANARY}\ntls.key: [\n")).unwrap();

    let path = text(&manifests);
    let mut said = Vec::new();
    for args in [
        &["validate", "-f", path][..],
        &["validate", "--all", "-o", "json", "-f", path],
        &["translate", "--to", "ir", "-f", path],
        &["translate", "--to", "ads", "-f", path],
        &["translate", "--to", "ads", "-o", "yaml", "-f", path],
    ] {
        let run = tidegate(args).ends(1);
        said.extend([run.out, run.err]);
    }
    assert!(said.iter().any(|text| text.contains("Secret/shop/bad")), "the bad Secret is spoken of");

    let (state, log) = (folder.path().join("state"), folder.path().join("log"));
    let site = Site::serve(&manifests, &state, &log);
    let admin = site.admin.as_str();
    for args in [
        &["status", "--admin", admin][..],
        &["status", "-o", "yaml", "--admin", admin],
        &["status", "Ingress/shop/bad", "-o", "json", "--admin", admin],
    ] {
        let run = tidegate(args).ends(1);
        said.extend([run.out, run.err]);
    }
    tidegate(&["status", "VipPool/public", "--admin", admin]).ends(0);
    tidegate(&["status", "Ingress/shop/absent", "--admin", admin]).ends(1);
    let listed = tidegate(&["vip", "list", "-o", "json", "--admin", admin]).ends(0);
    assert_eq!(listed.json()[0]["addresses"][0], "192.0.2.1");
    said.push(tidegate(&["vip", "history", "--admin", admin]).ends(0).out);
    drop(site);
    said.push(fs::read_to_string(log).unwrap());

    let keys = golden::private_keys();
    for text in said {
        assert!(!text.contains(CANARY), "the canary is in: {text}");
        assert!(!keys.iter().any(|key| text.contains(key)), "a private key is in: {text}");
    }
    // The one output that holds keys, as its help says.
    let run = tidegate(&["translate", "--to", "static", "-f", path]).ends(1);
    assert!(keys.iter().any(|key| run.out.contains(key)));
    assert!(!run.out.contains(CANARY) && !run.err.contains(CANARY));
}

fn shop_certificate() -> String {
    fs::read_to_string(golden::root().join("tests/golden/certificates/shop.crt")).unwrap()
}
