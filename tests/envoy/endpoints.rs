//! Which endpoints get requests, and that none is lost while they change.

use crate::support::live::{
    Backend, Request, Service, State, Tenant, client,
    load::Load,
    tenant::{self, http},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

fn two_backends(tenant: &Tenant) -> Service {
    let backends = vec![Backend::start("pair"), Backend::start("pair")];
    Service::with_backends(&tenant.name, "pair", backends)
}

/// Who answers a dozen requests; nobody is 503.
fn answering(vip: IpAddr, host: &str) -> Result<BTreeSet<SocketAddr>, String> {
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        let answer = client::send(http(vip), &Request::get(host, "/")).map_err(|why| why.to_string())?;
        match (answer.status, answer.service()) {
            (200, Some(_)) => {
                let backend = answer.json()["backend"].as_str().and_then(|text| text.parse().ok());
                seen.insert(backend.expect("a backend says where it is"));
            }
            (503, None) => {}
            _ => return Err(answer.show()),
        }
    }
    Ok(seen)
}

#[test]
fn states_of_endpoints() {
    use State::{Gone, NotReady, Ready, Terminated, Terminating};
    let tenant = Tenant::new("states");
    let mut service = two_backends(&tenant);
    tenant.apply_service(&service);
    let host = tenant.host("one");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&host, "/", "pair"));
    let rows = [
        ([Ready, Ready], [true, true]),
        ([Ready, NotReady], [true, false]),
        ([Terminating, Ready], [false, true]),
        // Nobody is ready: who is going away and still serves is better than nobody.
        ([Terminating, Terminating], [true, true]),
        ([Terminated, Terminating], [false, true]),
        ([Terminated, NotReady], [false, false]),
        ([Ready, Gone], [true, false]),
        ([Gone, Gone], [false, false]),
        ([NotReady, Ready], [false, true]),
    ];
    for (states, wanted) in rows {
        for (backend, state) in service.backends.iter_mut().zip(states) {
            backend.1 = state;
        }
        tenant.apply_service(&service);
        let pairs = service.backends.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let wanted: BTreeSet<_> = pairs.map(|((backend, _), _)| backend.address).collect();
        tenant.live.eventually(&format!("{states:?} are served as they should"), || {
            let seen = answering(vip, &host)?;
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}, not {wanted:?}")) }
        });
    }
}

#[test]
fn published_though_not_ready() {
    let tenant = Tenant::new("unready");
    let mut service = two_backends(&tenant);
    service.spec = json!({"publishNotReadyAddresses": true});
    for backend in &mut service.backends {
        backend.1 = State::NotReady;
    }
    tenant.apply_service(&service);
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&tenant.host("one"), "/", "pair"));
    assert_eq!(answering(vip, &tenant.host("one")).expect("answers").len(), 2);
}

#[test]
fn nobody_there_is_503() {
    let tenant = Tenant::new("nobody");
    let mut service = tenant.service("idle");
    service.backends[0].1 = State::Gone;
    tenant.apply_service(&service);
    // A slice that no Service of its namespace stands for.
    let orphan = Service::new(&tenant.name, "orphan");
    tenant.apply("orphan", &orphan.manifests()[1..]);
    let ingress = tenant
        .ingress("one")
        .prefix(&tenant.host("idle"), "/", "idle")
        .prefix(&tenant.host("orphan"), "/", "orphan")
        .prefix(&tenant.host("missing"), "/", "missing");
    let vip = tenant.serve("one", ingress);
    for label in ["idle", "orphan", "missing"] {
        tenant
            .live
            .answered(http(vip), &Request::get(&tenant.host(label), "/"), |answer| answer.status == 503);
    }
    tenant.live.finding(&tenant.key("one"), "NotFound");
    // It comes: the route was waiting for it.
    let service = tenant.service("missing");
    tenant.live.answered(http(vip), &Request::get(&tenant.host("missing"), "/"), |answer| {
        answer.service().as_deref() == Some("missing")
    });
    assert!(service.backends[0].0.requests() > 0);
    assert_eq!(orphan.backends[0].0.requests(), 0);
}

/// A rollout: a new endpoint comes, the old one is marked, then gone, then its
/// process ends. Requests never stop, and none is lost.
#[test]
fn a_rollout_loses_nothing() {
    let tenant = Tenant::new("rollout");
    let mut service = tenant.service("pods");
    let host = tenant.host("one");
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&host, "/", "pods"));
    tenant::get(vip, &host, "/").served_by("pods");
    let loads = ["/", "/?delay=20"].map(|path| Load::plain(http(vip), Request::get(&host, path)));
    for _ in 0..3 {
        service.backends.push((Backend::start("pods"), State::Ready));
        let newest = service.backends.len() - 1;
        tenant.apply_service(&service);
        tenant.live.eventually("the new endpoint is used", || used(&service, newest));
        service.backends[newest - 1].1 = State::Terminating;
        tenant.apply_service(&service);
        tenant.live.eventually("the old endpoint is left alone", || idle(&service, newest - 1, &loads));
        service.backends[newest - 1].1 = State::Gone;
        tenant.apply_service(&service);
        service.backends[newest - 1].0.stop();
        loads.iter().for_each(|load| load.more(20));
    }
    for load in loads {
        load.end().all_good();
    }
}

fn used(service: &Service, n: usize) -> Result<(), String> {
    let requests = service.backends[n].0.requests();
    if requests > 0 { Ok(()) } else { Err("no request came".to_owned()) }
}

/// None under way, and none came while 30 were answered elsewhere.
fn idle(service: &Service, n: usize, loads: &[Load]) -> Result<(), String> {
    let backend = &service.backends[n].0;
    let before = backend.requests();
    loads.iter().for_each(|load| load.more(30));
    let came = backend.requests() - before;
    if came == 0 && backend.in_flight() == 0 { Ok(()) } else { Err(format!("{came} requests came")) }
}
