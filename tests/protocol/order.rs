//! What goes first, and what goes away last.

use crate::transcript::{Transcript, check, resource, resume, short};
use std::time::Duration;
use tidegate::{
    server::{
        frame::Response,
        session::{REMOVAL_GRACE, ROUTE_FLIGHTS_MAX},
    },
    xds::{ResourceKind::*, Update},
};

/// Listener, one host on one cluster, all of it accepted.
fn booted() -> Transcript {
    let mut t = Transcript::new([
        resource(Cluster, "x", 1, &[]),
        resource(Endpoints, "x", 1, &[]),
        resource(Listener, "l", 1, &[]),
        resource(ScopedRoute, "s", 1, &[(Route, "r")]),
        resource(Route, "r", 1, &[(Cluster, "x")]),
    ]);
    let asks: [(_, &[&str]); 5] =
        [(Cluster, &[]), (Endpoints, &["x"]), (Listener, &[]), (ScopedRoute, &[]), (Route, &["r"])];
    for (kind, names) in asks {
        let responses = t.subscribe(kind, names);
        t.ack_all(responses);
    }
    assert!(t.session.synced());
    t
}

fn answer<'a>(responses: &'a [Response], text: &str) -> &'a Response {
    responses.iter().find(|response| short(response) == text).expect("it was sent")
}

#[test]
fn trap_17_kinds_go_out_in_order() {
    let mut t = booted();
    let set = [Route, ScopedRoute, Listener, Secret, Endpoints, Cluster].map(|kind| match kind {
        Cluster | Endpoints => resource(kind, "x", 2, &[]),
        Listener => resource(kind, "l", 2, &[]),
        ScopedRoute => resource(kind, "s", 2, &[(Route, "r")]),
        Route => resource(kind, "r", 2, &[(Cluster, "x")]),
        Secret => resource(kind, "default/vip", 2, &[]),
    });
    check(
        &t.set(set),
        &["Cluster +x@2", "Endpoints +x@2", "Listener +l@2", "ScopedRoute +s@2", "Route +r@2"],
    );
}

#[test]
fn trap_18_make_before_break() {
    let mut t = booted();
    let set = vec![
        resource(Cluster, "y", 1, &[]),
        resource(Endpoints, "y", 1, &[]),
        resource(Route, "r", 2, &[(Cluster, "y")]),
    ];
    let removed = ["x"].map(|name| crate::transcript::key(Cluster, name)).to_vec();
    let new = t.publish(Update { set, removed });
    check(&new, &["Cluster +y@1"]);
    let endpoints = t.subscribe(Endpoints, &["y"]);
    check(&endpoints, &["Endpoints +y@1"]);
    t.ack(&endpoints[0]);
    let route = t.ack(&new[0]);
    check(&route, &["Route +r@2"]);
    check(&t.pass(Duration::from_secs(60)), &[]);
    check(&t.ack(&route[0]), &[]);
    // The fleet's cache keeps x until the new version is settled, then the stream its grace.
    t.cache.tick(|_| true);
    check(&t.change(), &[]);
    check(&t.pass(REMOVAL_GRACE - Duration::from_millis(1)), &[]);
    check(&t.pass(Duration::from_millis(1)), &["Cluster -x"]);
}

#[test]
fn a_stuck_cluster_holds_back_only_its_own_routes() {
    let mut t = booted();
    let stuck = t.set([resource(Cluster, "stuck", 1, &[]), resource(Route, "r", 2, &[(Cluster, "stuck")])]);
    check(&stuck, &["Cluster +stuck@1"]);
    let other = t.subscribe(Route, &["q"]);
    t.ack(&other[0]);
    check(&t.set([resource(Route, "q", 1, &[(Cluster, "x")])]), &["Route +q@1"]);
    check(&t.ack(&stuck[0]), &["Route +r@2"]);
}

#[test]
fn trap_19_a_modified_cluster_gets_its_endpoints_again() {
    let mut t = booted();
    check(&t.set([resource(Cluster, "x", 2, &[])]), &["Cluster +x@2", "Endpoints +x@1"]);
}

#[test]
fn trap_21_a_cluster_that_flaps_gets_its_endpoints_again() {
    let mut t = booted();
    let set = vec![resource(Route, "r", 2, &[])];
    let route = t.publish(Update { set, removed: vec![crate::transcript::key(Cluster, "x")] });
    t.ack_all(route);
    t.cache.tick(|_| true);
    t.change();
    let removal = t.pass(REMOVAL_GRACE);
    check(&removal, &["Cluster -x"]);
    t.ack(&removal[0]);
    // Envoy's unsubscribe and subscribe cancel out: it asks for nothing.
    check(&t.set([resource(Cluster, "x", 1, &[])]), &["Cluster +x@1", "Endpoints +x@1"]);
}

#[test]
fn trap_25_endpoints_wait_for_no_cluster() {
    let mut t = booted();
    let busy = t.set([
        resource(Cluster, "x", 2, &[]),
        resource(Listener, "l", 2, &[]),
        resource(Route, "r", 2, &[(Cluster, "x")]),
    ]);
    t.ack(answer(&busy, "Endpoints +x@1"));
    check(&t.set([resource(Endpoints, "x", 2, &[])]), &["Endpoints +x@2"]);
}

#[test]
fn trap_26_live_edits_travel_one_route_a_response() {
    let mut t = booted();
    let names: Vec<String> = (0..20).map(|n| format!("r{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let routes = |version| {
        let names = names.clone();
        names.into_iter().map(move |name| resource(Route, name, version, &[(Cluster, "x")]))
    };
    t.set(routes(1));
    let first = t.subscribe(Route, &names);
    assert_eq!(first.len(), 1, "first ones travel together: {first:?}");
    t.ack_all(first);
    let edits = t.set(routes(2));
    assert_eq!(edits.len(), ROUTE_FLIGHTS_MAX);
    let all = t.ack_all(edits);
    assert_eq!(all.len(), names.len());
    assert!(all.iter().all(|response| response.resources.len() == 1));
}

#[test]
fn trap_44_parents_go_before_children() {
    let mut t = booted();
    let removed = [(Cluster, "x"), (Endpoints, "x"), (ScopedRoute, "s"), (Route, "r")];
    let removed = removed.map(|(kind, name)| crate::transcript::key(kind, name)).to_vec();
    let scope = t.publish(Update { set: vec![], removed });
    check(&scope, &["ScopedRoute -s"]);
    check(&t.pass(Duration::from_secs(60)), &[]);
    t.ack(&scope[0]);
    // Envoy lets go of the route itself, then only the cluster's own users count.
    check(&t.unsubscribe(Route, &["r"]), &[]);
    check(&t.pass(Duration::from_millis(500)), &[]);
    let cluster = t.pass(Duration::from_secs(5));
    check(&cluster, &["Cluster -x"]);
    t.ack(&cluster[0]);
    check(&t.unsubscribe(Endpoints, &["x"]), &[]);
    check(&t.pass(Duration::from_secs(60)), &[]);
    assert_eq!(t.session.pending(), [0; 6]);
}

#[test]
fn a_route_that_changed_while_away_keeps_unknown_clusters() {
    let mut t = Transcript::new([resource(Cluster, "y", 1, &[]), resource(Route, "r", 2, &[(Cluster, "y")])]);
    let clusters = t.send(resume(Cluster, &[], &[("x", 1)]));
    check(&clusters, &["Cluster +y@1"]);
    check(&t.send(resume(Route, &["r"], &[("r", 1)])), &[]);
    check(&t.pass(Duration::from_secs(60)), &[]);
    let route = t.ack(&clusters[0]);
    check(&route, &["Route +r@2"]);
    check(&t.pass(Duration::from_secs(60)), &[]);
    t.ack(&route[0]);
    check(&t.pass(Duration::from_secs(2)), &["Cluster -x"]);
}

#[test]
fn a_listener_waits_for_the_secrets_it_was_subscribed_to() {
    let mut t = booted();
    let scope = t.set([resource(ScopedRoute, "s2", 1, &[(Route, "r2")]), resource(Route, "r2", 1, &[])]);
    check(&scope, &["ScopedRoute +s2@1"]);
    // The route is asked for when its scope is there, and answered at once.
    check(&t.subscribe(Route, &["r2"]), &["Route +r2@1"]);
}

/// Between two answers all changes of a cluster are one, however many there were.
#[test]
fn trap_25_a_cluster_that_churns_is_sent_once_an_answer() {
    let mut t = booted();
    let mut sent = t.set([resource(Cluster, "x", 2, &[])]);
    for version in 3..1_000 {
        let more = t.set([resource(Cluster, "x", version, &[])]);
        check(&more, &[]);
    }
    let last = t.ack(&sent.remove(0));
    check(&last, &["Cluster +x@3e7"]);
    // Its endpoints follow when those under way are answered.
    check(&t.ack(&sent[0]), &["Endpoints +x@1"]);
}
