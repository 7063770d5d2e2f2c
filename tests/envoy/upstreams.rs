//! How backends are spoken to: appProtocol, TLS, what is refused.

use crate::support::live::{
    Backend, Request, Service, Tenant, client,
    http2::Http2,
    tenant::{self, http},
    tls::Authority,
};
use serde_json::json;

#[test]
fn grpc_through_h2c() {
    let tenant = Tenant::new("grpc");
    let service = Service::new(&tenant.name, "echo").app_protocol("kubernetes.io/h2c");
    tenant.apply_service(&service);
    let host = tenant.host("echo");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&host, "/", "echo"));
    let mut connection = Http2::plain(http(vip)).expect("HTTP/2 without TLS is spoken");
    for message in [b"hello".as_slice(), &[7; 100_000]] {
        let (back, status) = connection.grpc(&host, "/echo.Echo/Say", message).expect("an answer");
        assert_eq!((back.as_slice(), status.as_str()), (message, "0"));
    }
    // The other way about: HTTP/1.1 outside, HTTP/2 inside.
    assert_eq!(tenant::get(vip, &host, "/").served_by("echo").json()["proto"], "HTTP/2.0");
}

#[test]
fn tls_to_the_backend() {
    let wanted = |service: &str, name: &str| json!({"namespace": "inner", "service": service, "caSecret": "ca", "serverName": name});
    let tls = [
        wanted("verified", "backend.internal"),
        wanted("misnamed", "other.internal"),
        wanted("stranger", "backend.internal"),
    ];
    let tenant = Tenant::with("inner", &json!({"backends": {"tls": tls}}));
    let authority = Authority::shared();
    let ca = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "inner", "name": "ca"},
        "stringData": {"ca.crt": authority.pem()},
    });
    tenant.apply("ca", &[ca]);
    let known = authority.issue(&["backend.internal"]).server();
    let unknown = Authority::new().issue(&["backend.internal"]).server();
    let mut ingress = tenant.ingress("hosts");
    let services = ["verified", "misnamed", "stranger", "unverified"].map(|name| {
        let server = if name == "stranger" { &unknown } else { &known };
        let backend = Backend::start_tls(name, std::sync::Arc::clone(server));
        let service = Service::with_backends("inner", name, vec![backend]).app_protocol("https");
        tenant.apply_service(&service);
        ingress = ingress.clone().prefix(&tenant.host(name), "/", name);
        service
    });
    let vip = tenant.serve("hosts", ingress);
    tenant::get(vip, &tenant.host("verified"), "/").served_by("verified");
    tenant::get(vip, &tenant.host("misnamed"), "/").refused_with(503);
    tenant::get(vip, &tenant.host("stranger"), "/").refused_with(503);
    tenant::get(vip, &tenant.host("unverified"), "/").served_by("unverified");
    tenant.live.finding("Service/inner/unverified", "UpstreamUnverified");
    for service in &services[..3] {
        let object = tenant.live.object(&format!("Service/inner/{}", service.name));
        let text = object.unwrap_or_default().to_string();
        assert!(!text.contains("UpstreamUnverified"), "{text}");
    }
}

/// Fails closed: a check that cannot be made is not left out.
#[test]
fn an_authority_that_is_missing() {
    let tls =
        json!([{"namespace": "noca", "service": "any", "caSecret": "ca", "serverName": "backend.internal"}]);
    let tenant = Tenant::with("noca", &json!({"backends": {"tls": tls}}));
    let server = Authority::shared().issue(&["backend.internal"]).server();
    let backend = Backend::start_tls("any", server);
    let service = Service::with_backends("noca", "any", vec![backend]).app_protocol("https");
    tenant.apply_service(&service);
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&tenant.host("one"), "/", "any"));
    tenant.live.finding(&tenant.key("one"), "BadCertificate");
    tenant::get(vip, &tenant.host("one"), "/").refused_with(503);
    assert_eq!(service.backends[0].0.requests(), 0);
}

#[test]
fn external_names_are_not_followed() {
    let tenant = Tenant::new("external");
    let mut service = Service::new(&tenant.name, "away");
    service.spec = json!({"type": "ExternalName", "externalName": "localhost"});
    tenant.apply_service(&service);
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&tenant.host("one"), "/", "away"));
    tenant.live.finding(&tenant.key("one"), "Unsupported");
    tenant::get(vip, &tenant.host("one"), "/").refused_with(503);
    assert_eq!(service.backends[0].0.requests(), 0);
}

/// A hand-made slice must not lead to where only this machine may go.
#[test]
fn our_own_addresses_are_no_endpoints() {
    let tenant = Tenant::new("inward");
    let mut service = tenant.service("inward");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&tenant.host("one"), "/", "inward"));
    tenant::get(vip, &tenant.host("one"), "/").served_by("inward");
    service.backends[0].0.address = tenant.live.admin();
    tenant.apply_service(&service);
    tenant.live.finding("EndpointSlice/inward/inward-0", "EndpointRefused");
    let request = Request::get(&tenant.host("one"), "/healthz");
    tenant.live.answered(http(vip), &request, |answer| answer.status == 503);
    service.backends[0].0.address = http(vip);
    tenant.apply_service(&service);
    tenant.live.finding("EndpointSlice/inward/inward-0", "EndpointRefused");
    tenant.live.answered(http(vip), &request, |answer| answer.status == 503);
}

#[test]
fn the_same_client_reaches_the_same_backend() {
    let tenant = Tenant::new("sticky");
    let backends = (0..5).map(|_| Backend::start("sticky")).collect();
    let mut service = Service::with_backends(&tenant.name, "sticky", backends);
    service.spec = json!({"sessionAffinity": "ClientIP"});
    tenant.apply_service(&service);
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&tenant.host("one"), "/", "sticky"));
    let asked = |_| {
        let answer = tenant::get(vip, &tenant.host("one"), "/");
        answer.served_by("sticky").json()["backend"].to_string()
    };
    let seen: std::collections::BTreeSet<_> = (0..30).map(asked).collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let asked: Vec<_> = service.backends.iter().map(|(backend, _)| backend.requests()).collect();
    assert_eq!(asked.iter().sum::<usize>(), 30, "{asked:?}");
}

/// A body of a few megabytes, both ways of framing it behind Envoy.
#[test]
fn uploads() {
    let tenant = Tenant::new("upload");
    let _service = tenant.service("upload");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&tenant.host("one"), "/", "upload"));
    let body = vec![b'x'; 5_000_000];
    let request = Request::new("POST", &tenant.host("one"), "/").body(&body);
    let answer = client::must(http(vip), &request);
    assert_eq!(answer.served_by("upload").json()["received"], body.len());
    // An answer that comes in pieces goes on in pieces.
    let answer = tenant::get(vip, &tenant.host("one"), "/?trickle=400");
    assert_eq!(answer.served_by("upload").header("transfer-encoding"), Some("chunked"));
}
