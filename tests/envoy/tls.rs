//! Certificates by SNI, what happens to bad ones, 421, redirects.

use crate::support::live::{
    Ingress, Request, Tenant, client,
    http2::Http2,
    load::Load,
    manifest::{issued_secret, tls_secret},
    tenant::{self, http, https},
    tls::{self, Authority, Trust},
};
use serde_json::json;

/// A certificate for these labels of the tenant's domain, in a Secret `name`.
fn certificate(tenant: &Tenant, name: &str, labels: &[&str]) -> tls::Issued {
    let names: Vec<_> = labels.iter().map(|label| tenant.host(label)).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let issued = Authority::shared().issue(&names);
    tenant.apply(&format!("secret-{name}"), &[issued_secret(&tenant.name, name, &issued)]);
    issued
}

#[test]
fn each_host_has_its_certificate() {
    let tenant = Tenant::new("certs");
    let _services = ["one", "wild"].map(|name| tenant.service(name));
    let one = certificate(&tenant, "one", &["one"]);
    let wild = certificate(&tenant, "wild", &["*"]);
    let (exact, any) = (tenant.host("one"), tenant.host("*"));
    let ingress = tenant
        .ingress("hosts")
        .prefix(&exact, "/", "one")
        .prefix(&any, "/", "wild")
        .tls(&[&exact], "one")
        .tls(&[&any], "wild");
    let vip = tenant.serve("hosts", ingress);
    for (host, service, issued) in
        [("one", "one", &one), ("two", "wild", &wild), ("three", "wild", &wild), ("ONE", "one", &one)]
    {
        let host = tenant.host(host);
        let answer = tls::send(https(vip), &Request::get(&host, "/")).expect("it is verified");
        answer.served_by(service);
        assert_eq!(answer.seen("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(tls::served(https(vip), Some(&host)).expect("it is served"), issued.der, "{host}");
    }
    let mut connection = Http2::tls(https(vip), &exact).expect("h2 is chosen");
    connection.get(&exact, "/").expect("an answer").served_by("one");
    // One label only, for TLS as for HTTP.
    assert!(tls::connect(https(vip), Some(&tenant.host("a.b")), Trust::Anything).is_err());
    assert!(tls::connect(https(vip), Some("elsewhere.org"), Trust::Anything).is_err());
}

#[test]
fn a_host_without_tls_is_not_served_over_it() {
    let tenant = Tenant::new("plain");
    let _services = ["plain", "secure"].map(|name| tenant.service(name));
    let (plain, secure) = (tenant.host("plain"), tenant.host("secure"));
    certificate(&tenant, "secure", &["secure", "plain"]);
    let ingress = tenant
        .ingress("hosts")
        .prefix(&plain, "/", "plain")
        .prefix(&secure, "/", "secure")
        .tls(&[&secure], "secure");
    let vip = tenant.serve("hosts", ingress);
    tenant::get(vip, &plain, "/").served_by("plain");
    tenant::get(vip, &secure, "/").served_by("secure");
    tls::must(https(vip), Some(&secure), &Request::get(&secure, "/")).served_by("secure");
    tls::must(https(vip), Some(&secure), &Request::get(&plain, "/")).refused_with(404);
    assert!(tls::connect(https(vip), Some(&plain), Trust::Anything).is_err());
}

/// Whatever is wrong with one certificate, the listener stays, the reason is
/// told, and the other hosts are as they were.
#[test]
fn trap_37_bad_certificates_cost_their_host_alone() {
    let tenant = Tenant::new("bad");
    let _service = tenant.service("any");
    let names = |label: &str| tenant.host(label);
    let authority = Authority::shared();
    let (good, other) = (authority.issue(&[&names("good")]), authority.issue(&[&names("other")]));
    let expired = authority.issue_expired(&[&names("expired")]);
    let crossed = tls_secret(&tenant.name, "crossed", &good.certificate, &other.key);
    let garbage = tls_secret(&tenant.name, "garbage", "-----BEGIN CERTIFICATE-----\nno\n", &good.key);
    let secret = |name: &str, issued: &tls::Issued| issued_secret(&tenant.name, name, issued);
    let secrets = [secret("good", &good), secret("expired", &expired), secret("mismatched", &other)];
    tenant.apply("secrets", &[&secrets[..], &[crossed, garbage]].concat());
    let labels = ["good", "missing", "crossed", "garbage", "expired", "mismatched"];
    let ingresses = labels.map(|label| {
        let host = names(label);
        tenant.ingress(label).prefix(&host, "/", "any").tls(&[&host], label).into()
    });
    tenant.apply("ingresses", &ingresses);
    let vip = tenant.live.programmed(&tenant.key("good"));
    for (label, reason) in [
        ("missing", "BadCertificate"),
        ("crossed", "BadCertificate"),
        ("garbage", "BadCertificate"),
        ("expired", "CertificateExpired"),
        ("mismatched", "CertificateMismatch"),
    ] {
        let finding = tenant.live.finding(&tenant.key(label), reason);
        assert!(finding["field"].as_str().is_some_and(|field| field.contains("tls")), "{finding}");
        tenant::get(vip, &names(label), "/").served_by("any");
    }
    for label in ["missing", "crossed", "garbage"] {
        assert!(tls::connect(https(vip), Some(&names(label)), Trust::Anything).is_err(), "{label}");
    }
    for (label, issued) in [("expired", &expired), ("mismatched", &other)] {
        assert_eq!(tls::served(https(vip), Some(&names(label))).expect("it is served"), issued.der);
        let refused = tls::send(https(vip), &Request::get(&names(label), "/"));
        assert!(refused.is_err(), "{label}: a client that verifies does not take it");
        // One that takes it is where it wanted to be.
        let request = Request::get(&names(label), "/");
        tls::must(https(vip), Some(&names(label)), &request).served_by("any");
    }
    tls::send(https(vip), &Request::get(&names("good"), "/")).expect("it is verified").served_by("any");
    // Mended: nothing remembers that it was bad.
    tenant.apply("mended", &[secret("missing", &authority.issue(&[&names("missing")]))]);
    tenant.live.eventually("the mended host is served", || {
        let sent = tls::send(https(vip), &Request::get(&names("missing"), "/"));
        sent.map_err(|why| why.to_string()).map(|answer| answer.served_by("any").status)
    });
}

/// 421 only where the SNI is covered by no name of the certificate that serves
/// the Host: a browser may use one connection for all names of a certificate.
#[test]
fn misdirected_requests() {
    let tenant = Tenant::new("sni");
    let _service = tenant.service("any");
    certificate(&tenant, "one", &["one"]);
    certificate(&tenant, "two", &["two"]);
    certificate(&tenant, "both", &["three", "four"]);
    certificate(&tenant, "wild", &["*.w"]);
    let mut ingress = tenant.ingress("hosts");
    for (label, secret) in [
        ("one", "one"),
        ("two", "two"),
        ("three", "both"),
        ("four", "both"),
        ("a.w", "wild"),
        ("b.w", "wild"),
    ] {
        let host = tenant.host(label);
        ingress = ingress.prefix(&host, "/", "any").tls(&[&host], secret);
    }
    let vip = tenant.serve("hosts", ingress);
    let rows = [
        ("one", "one", 200),
        ("one", "two", 421),
        ("two", "one", 421),
        ("three", "four", 200),
        ("four", "three", 200),
        ("a.w", "b.w", 200),
        ("b.w", "a.w", 200),
        ("a.w", "one", 421),
        ("one", "a.w", 421),
        ("one", "ONE", 200),
        ("ONE", "one", 200),
    ];
    for (sni, host, status) in rows {
        let request = Request::get(&tenant.host(host), "/").header("x-sni", &tenant.host(host));
        let answer = tls::must(https(vip), Some(&tenant.host(sni)), &request);
        assert_eq!(answer.status, status, "SNI {sni}, Host {host}: {}", answer.show());
    }
    let mut coalesced = Http2::tls(https(vip), &tenant.host("a.w")).expect("h2 is chosen");
    for (label, status) in [("a.w", 200), ("b.w", 200), ("two", 421)] {
        let answer = coalesced.get(&tenant.host(label), "/").expect("an answer");
        assert_eq!(answer.status, status, "{label}: {}", answer.show());
    }
}

/// What no path of a host takes goes to the default backend, over TLS as over
/// plain HTTP; so does a host that nobody has.
#[test]
fn the_default_backend_behind_tls() {
    let tenant = Tenant::new("behind");
    let _services = ["one", "default"].map(|name| tenant.service(name));
    certificate(&tenant, "one", &["one"]);
    let one = tenant.host("one");
    let ingress = tenant.ingress("one").prefix(&one, "/only", "one").default_backend("default");
    let vip = tenant.serve("one", ingress.tls(&[&one], "one"));
    let ask = |host: &str, path: &str| tls::must(https(vip), Some(&one), &Request::get(host, path));
    ask(&one, "/only").served_by("one");
    ask(&one, "/else").served_by("default");
    ask("elsewhere.org", "/").served_by("default");
    tenant::get(vip, &one, "/else").served_by("default");
    tenant::get(vip, "elsewhere.org", "/").served_by("default");
}

/// The certificate of the default host is for clients that name none.
#[test]
fn no_sni() {
    let tenant = Tenant::new("nosni");
    let _services = ["one", "default"].map(|name| tenant.service(name));
    certificate(&tenant, "one", &["one"]);
    let one = tenant.host("one");
    let ingress = tenant.ingress("one").prefix(&one, "/", "one").tls(&[&one], "one");
    let vip = tenant.serve("one", ingress);
    tls::send(https(vip), &Request::get(&one, "/")).expect("it is verified").served_by("one");
    assert!(tls::connect(https(vip), None, Trust::Anything).is_err(), "there is no certificate for it");
    let issued = certificate(&tenant, "default", &["default"]);
    let default = tenant.ingress("default").default_backend("default").tls(&[], "default");
    tenant.serve("default", default);
    tenant.live.eventually("the default certificate is served", || {
        let served = tls::served(https(vip), None).map_err(|why| why.to_string())?;
        if served == issued.der { Ok(()) } else { Err("another certificate".to_owned()) }
    });
    tls::must(https(vip), None, &Request::get(&vip.to_string(), "/")).served_by("default");
    // No SNI is no claim to a name: it is not misdirected.
    tls::must(https(vip), None, &Request::get(&one, "/")).served_by("one");
}

#[test]
fn redirects() {
    let rows = [
        ("redirect", json!({"httpsRedirect": {}}), 308, ":18443"),
        ("moved", json!({"httpsRedirect": {"status": 301, "port": 443}}), 301, ""),
        ("fronted", json!({"httpsRedirect": {"status": 307, "port": 8443}}), 307, ":8443"),
    ];
    for (name, setting, status, port) in rows {
        let tenant = Tenant::with(name, &setting);
        let _service = tenant.service("any");
        certificate(&tenant, "one", &["one"]);
        certificate(&tenant, "wild", &["*.w"]);
        let (one, wild, plain) = (tenant.host("one"), tenant.host("*.w"), tenant.host("plain"));
        let ingress = tenant
            .ingress("hosts")
            .prefix(&one, "/", "any")
            .prefix(&wild, "/", "any")
            .prefix(&plain, "/", "any")
            .tls(&[&one], "one")
            .tls(&[&wild], "wild");
        let vip = tenant.serve("hosts", ingress);
        for (host, asked) in [("one", ""), ("one", ":18080"), ("a.w", ""), ("a.w", ":18080")] {
            let host = tenant.host(host);
            let answer = client::must(http(vip), &Request::get(&format!("{host}{asked}"), "/p/q?r=s"));
            // 443 may be named where the client named a port: it is the same place.
            let wanted = format!("https://{host}{port}/p/q?r=s");
            let location = answer.header("location").unwrap_or_default().replace(":443/", "/");
            assert_eq!((answer.status, location), (status, wanted), "{}", answer.show());
        }
        // What a client cannot do: say that it came by TLS.
        let forged = Request::get(&one, "/").header("x-forwarded-proto", "https");
        client::must(http(vip), &forged).refused_with(status);
        tls::send(https(vip), &Request::get(&one, "/")).expect("it is verified").served_by("any");
        tenant::get(vip, &plain, "/").served_by("any");
    }
}

#[test]
fn rotation_under_load() {
    let tenant = Tenant::new("rotate");
    let _service = tenant.service("any");
    let first = certificate(&tenant, "one", &["one"]);
    let host = tenant.host("one");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&host, "/", "any").tls(&[&host], "one"));
    assert_eq!(tls::served(https(vip), Some(&host)).expect("it is served"), first.der);
    let load = Load::tls(https(vip), Request::get(&host, "/"));
    for _ in 0..3 {
        load.more(20);
        let next = certificate(&tenant, "one", &["one"]);
        tenant.live.eventually("the new certificate is served", || {
            let served = tls::served(https(vip), Some(&host)).map_err(|why| why.to_string())?;
            if served == next.der { Ok(()) } else { Err("the old one".to_owned()) }
        });
    }
    load.more(20);
    load.end().all_good();
}

/// Waits until this certificate is served for the label.
#[track_caller]
fn served(tenant: &Tenant, vip: std::net::IpAddr, label: &str, issued: &tls::Issued) {
    tenant.live.eventually(&format!("the right certificate is served for {label}"), || {
        let served = tls::served(https(vip), Some(&tenant.host(label))).map_err(|why| why.to_string())?;
        if served == issued.der { Ok(()) } else { Err("another one".to_owned()) }
    });
}

/// A name that a wildcard's certificate was served for gets one of its own, and
/// gives it back.
#[test]
fn an_exact_host_takes_over_from_a_wildcard() {
    let tenant = Tenant::new("takeover");
    let _services = ["wild", "one"].map(|name| tenant.service(name));
    let wild = certificate(&tenant, "wild", &["*"]);
    let one = certificate(&tenant, "one", &["one"]);
    let (all, host) = (tenant.host("*"), tenant.host("one"));
    let vip = tenant.serve("wild", tenant.ingress("wild").prefix(&all, "/", "wild").tls(&[&all], "wild"));
    served(&tenant, vip, "one", &wild);
    let ask = || tls::send(https(vip), &Request::get(&host, "/")).expect("it is verified");
    ask().served_by("wild");
    tenant.serve("one", tenant.ingress("one").prefix(&host, "/", "one").tls(&[&host], "one"));
    served(&tenant, vip, "one", &one);
    ask().served_by("one");
    served(&tenant, vip, "two", &wild);
    tenant.delete("one");
    served(&tenant, vip, "one", &wild);
    tenant.live.eventually("the wildcard's routes are back", || {
        let answer = ask();
        if answer.service().as_deref() == Some("wild") { Ok(()) } else { Err(answer.show()) }
    });
}

/// One name, two VIPs, two certificates: the younger has a chain of its own, and
/// gives it up when the elder goes.
#[test]
fn the_same_name_on_two_vips() {
    let (outer, inner) = (Tenant::new("outer"), Tenant::new("outer-inner"));
    let _services = ["outer", "inner"].map(|name| outer.service(name));
    let certificates = ["outer", "inner"].map(|name| certificate(&outer, name, &["one"]));
    let (host, elder) = (outer.host("one"), outer.ingress("elder").since(2020));
    // One namespace, so the host is its own on both classes.
    let younger = Ingress::new(&outer.name, "younger", &inner.name).since(2021);
    let elder = elder.prefix(&host, "/", "outer").tls(&[&host], "outer");
    let younger = younger.prefix(&host, "/", "inner").tls(&[&host], "inner");
    let vips = [outer.serve("elder", elder), outer.serve("younger", younger)];
    assert_ne!(vips[0], vips[1]);
    outer.live.finding(&outer.key("younger"), "PartlyHonoured");
    for (vip, (service, issued)) in vips.iter().zip(["outer", "inner"].iter().zip(&certificates)) {
        served(&outer, *vip, "one", issued);
        tls::send(https(*vip), &Request::get(&host, "/")).expect("it is verified").served_by(service);
    }
    let load = Load::tls(https(vips[1]), Request::get(&host, "/"));
    load.more(10);
    outer.delete("elder");
    outer.live.eventually("the younger is told nothing any more", || {
        let object = outer.live.object(&outer.key("younger")).unwrap_or_default().to_string();
        if object.contains("PartlyHonoured") { Err(object) } else { Ok(()) }
    });
    load.more(50);
    served(&outer, vips[1], "one", &certificates[1]);
    load.end().all_good();
}

/// TLS is taken away, and given again.
#[test]
fn tls_comes_and_goes() {
    let tenant = Tenant::new("tidal");
    let _service = tenant.service("any");
    let issued = certificate(&tenant, "one", &["one"]);
    let host = tenant.host("one");
    let plain = tenant.ingress("one").prefix(&host, "/", "any");
    let secure = plain.clone().tls(&[&host], "one");
    let vip = tenant.serve("one", plain.clone());
    let load = Load::plain(http(vip), Request::get(&host, "/"));
    for _ in 0..3 {
        tenant.apply("one", &[secure.clone().into()]);
        served(&tenant, vip, "one", &issued);
        tenant.apply("one", &[plain.clone().into()]);
        tenant.live.eventually("nobody speaks TLS there", || match tls::served(https(vip), Some(&host)) {
            Ok(_) => Err("a certificate is served".to_owned()),
            Err(_) => Ok(()),
        });
    }
    // The Secret goes: TLS clients are refused, the others are not, and it is told.
    tenant.apply("one", &[secure.into()]);
    served(&tenant, vip, "one", &issued);
    tenant.delete("secret-one");
    tenant.live.finding(&tenant.key("one"), "BadCertificate");
    tenant.live.eventually("TLS clients are refused", || match tls::served(https(vip), Some(&host)) {
        Ok(_) => Err("a certificate is served".to_owned()),
        Err(_) => Ok(()),
    });
    load.more(10);
    load.end().all_good();
}
