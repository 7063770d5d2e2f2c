//! Live edits: what is asked all the while is answered all the while.

use crate::support::live::{
    Request, Tenant,
    load::Load,
    tenant::{self, http},
};

/// As often as a nervous deployment tool might.
const EDITS: usize = 50;

#[test]
fn a_route_is_moved_between_services() {
    let tenant = Tenant::new("moved-route");
    let services = ["left", "right"].map(|name| tenant.service(name));
    let host = tenant.host("one");
    let to = |service: &str| tenant.ingress("one").prefix(&host, "/", service);
    let vip = tenant.serve("one", to("left"));
    let load = Load::plain(http(vip), Request::get(&host, "/"));
    load.more(10);
    for n in 1..=EDITS {
        let (service, backend) = [("left", &services[0]), ("right", &services[1])][n % 2];
        tenant.apply("one", &[to(service).into()]);
        let before = backend.backends[0].0.requests();
        tenant.live.eventually("the other service is asked", || {
            let now = backend.backends[0].0.requests();
            if now > before { Ok(()) } else { Err(format!("{now} requests, as before")) }
        });
    }
    load.more(10);
    let tally = load.end();
    tally.all_good();
    assert_eq!(tally.services.len(), 2, "{tally:?}");
}

/// Services come and go with their routes: the new one is there before it is
/// routed to, the old one until it is no more.
#[test]
fn services_are_renamed() {
    let tenant = Tenant::new("renamed");
    let host = tenant.host("one");
    let to = |service: &str| tenant.ingress("one").prefix(&host, "/", service);
    let mut service = tenant.service("s0");
    let vip = tenant.serve("one", to("s0"));
    let load = Load::plain(http(vip), Request::get(&host, "/"));
    load.more(10);
    for n in 1..=10 {
        let name = format!("s{n}");
        let next = crate::support::live::Service::new(&tenant.name, &name);
        let mut objects = next.manifests();
        objects.push(to(&name).into());
        tenant.apply("one", &objects);
        tenant.live.answered(http(vip), &Request::get(&host, "/"), |answer| {
            answer.service().as_deref() == Some(name.as_str())
        });
        // Its process goes only when nothing is under way to it.
        tenant.live.eventually("the old one is idle", || {
            let busy = service.backends[0].0.in_flight();
            if busy == 0 { Ok(()) } else { Err(busy.to_string()) }
        });
        service = next;
    }
    load.end().all_good();
}

/// A name below a wildcard gets a table of its own, and gives it back.
#[test]
fn a_host_moves_between_wildcard_and_exact() {
    let tenant = Tenant::new("between");
    let _services = ["wild", "exact"].map(|name| tenant.service(name));
    let vip = tenant.serve("wild", tenant.ingress("wild").prefix(&tenant.host("*"), "/", "wild"));
    let host = tenant.host("one");
    let request = Request::get(&host, "/");
    let load = Load::plain(http(vip), request.clone());
    for _ in 0..10 {
        tenant.apply("exact", &[tenant.ingress("exact").prefix(&host, "/", "exact").into()]);
        tenant.live.answered(http(vip), &request, |answer| answer.service().as_deref() == Some("exact"));
        tenant.delete("exact");
        tenant.live.answered(http(vip), &request, |answer| answer.service().as_deref() == Some("wild"));
    }
    load.end().all_good();
}

fn told(status: &serde_json::Value) -> bool {
    status["files"].to_string().contains("broken-one.yaml")
}

/// Last good is served, and the file is named.
#[test]
fn a_broken_file_changes_nothing() {
    let tenant = Tenant::new("broken");
    let _services = ["before", "after"].map(|name| tenant.service(name));
    let (one, two) = (tenant.host("one"), tenant.host("two"));
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&one, "/", "before"));
    let load = Load::plain(http(vip), Request::get(&one, "/"));
    tenant.live.apply_text("broken-one", "apiVersion: networking.k8s.io/v1\nkind: [Ingress\n");
    tenant.live.wait("the broken file is told", told);
    // Others go on being read.
    tenant.serve("two", tenant.ingress("two").prefix(&two, "/", "after"));
    tenant::get(vip, &two, "/").served_by("after");
    tenant::get(vip, &one, "/").served_by("before");
    tenant.apply("one", &[tenant.ingress("one").prefix(&one, "/", "after").into()]);
    tenant
        .live
        .answered(http(vip), &Request::get(&one, "/"), |answer| answer.service().as_deref() == Some("after"));
    tenant.live.wait("nothing is told any more", |status| !told(status));
    load.end().all_good();
}

/// One bad object among good ones costs itself alone, a bad rule of it no more
/// than itself; what an object last said that could be used stays.
#[test]
fn a_broken_object_costs_itself_alone() {
    let tenant = Tenant::new("sour");
    let _service = tenant.service("any");
    let hosts = ["good", "bad", "worse"].map(|label| tenant.host(label));
    let good = tenant.ingress("good").prefix(&hosts[0], "/", "any");
    let bad = |path: &str| tenant.ingress("bad").prefix(&hosts[1], path, "any");
    let worse = tenant.ingress("worse").prefix("not a host", "/", "any").prefix(&hosts[2], "/", "any");
    tenant.apply("all", &[bad("/first").into(), worse.clone().into(), good.clone().into()]);
    let vip = tenant.live.programmed(&tenant.key("good"));
    tenant.live.programmed(&tenant.key("bad"));
    tenant::get(vip, &hosts[1], "/first").served_by("any");
    let finding = tenant.live.finding(&tenant.key("worse"), "Invalid");
    assert_eq!(finding["field"], "spec.rules[0].host", "{finding}");
    tenant
        .apply("all", &[bad("no-slash").into(), worse.into(), good.prefix(&hosts[0], "/more", "any").into()]);
    let finding = tenant.live.finding(&tenant.key("bad"), "Invalid");
    assert_eq!(finding["field"], "spec.rules[0].http.paths[0].path", "{finding}");
    tenant::get(vip, &hosts[1], "/first").served_by("any");
    tenant::get(vip, &hosts[0], "/").served_by("any");
    tenant::get(vip, &hosts[2], "/").served_by("any");
}

/// What goes is served no more, and its neighbours are.
#[test]
fn an_ingress_goes() {
    let tenant = Tenant::new("goes");
    let _service = tenant.service("any");
    let hosts = ["one", "two"].map(|label| tenant.host(label));
    let vip = tenant.serve("one", tenant.ingress("one").prefix(&hosts[0], "/", "any"));
    tenant.serve("two", tenant.ingress("two").prefix(&hosts[1], "/", "any"));
    let load = Load::plain(http(vip), Request::get(&hosts[0], "/"));
    tenant::get(vip, &hosts[1], "/").served_by("any");
    tenant.delete("two");
    tenant.live.answered(http(vip), &Request::get(&hosts[1], "/"), |answer| answer.status == 404);
    load.more(10);
    load.end().all_good();
}
