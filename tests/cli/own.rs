//! A control plane that listens on every address of its machine.

use super::{Site, TIDEGATE, tidegate, wait_for};
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
};

const SITE: &str = "
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
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: inward, namespace: shop}
spec:
  ingressClassName: tidegate
  defaultBackend: {service: {name: inward, port: {number: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: inward, namespace: shop}
spec: {ports: [{port: 80}]}
";

/// A slice of the Service above, of one family.
fn slice(family: &str, port: u16, addresses: &[&IpAddr]) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|ip| format!("{{addresses: [\"{ip}\"]}}")).collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
         metadata: {{name: {}-{port}, namespace: shop, labels: {{kubernetes.io/service-name: inward}}}}\n\
         ports: [{{port: {port}}}]\nendpoints: [{}]\n",
        family.to_lowercase(),
        endpoints.join(", "),
    )
}

#[track_caller]
fn none_is_an_endpoint(at: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [state, log, objects] = ["state", "log", "objects"].map(|name| folder.path().join(name));
    fs::create_dir(&objects).unwrap();
    fs::write(objects.join("site.yaml"), SITE).unwrap();
    let site = Site::serve_by(Command::new(TIDEGATE), at, &objects, &state, &log);
    let up: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(state.join("up.json")).unwrap()).unwrap();
    let ports = ["admin", "xds"].map(|what| up[what].as_str().unwrap().parse::<SocketAddr>().unwrap().port());

    let mut own: BTreeSet<_> =
        if_addrs::get_if_addrs().unwrap().iter().map(if_addrs::Interface::ip).collect();
    own.extend(["127.0.0.1", "127.9.9.9", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    let (four, six): (Vec<_>, Vec<_>) = own.iter().partition(|ip| ip.is_ipv4());
    let slices = ports.map(|port| slice("IPv4", port, &four) + &slice("IPv6", port, &six));
    fs::write(objects.join("slices.yaml"), slices.concat()).unwrap();
    for port in ports {
        for (family, addresses) in [("ipv4", &four), ("ipv6", &six)] {
            let key = format!("EndpointSlice/shop/{family}-{port}");
            let ask = || tidegate(&["status", &key, "-o", "json", "--admin", &site.admin]).out;
            let told = wait_for(&key, || Some(ask()).filter(|told| told.contains("EndpointRefused")));
            for ip in addresses {
                let refused = format!("{} is an address of Tidegate itself", SocketAddr::new(**ip, port));
                assert!(told.contains(&refused), "{refused}: {told}");
            }
        }
    }
}

#[test]
fn where_a_site_listens_on_all_of_ipv4_is_no_endpoint() {
    none_is_an_endpoint("0.0.0.0:0");
}

#[test]
fn where_a_site_listens_on_everything_is_no_endpoint() {
    none_is_an_endpoint("[::]:0");
}
