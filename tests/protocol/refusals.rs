//! One bad resource harms nothing else, and is not sent twice.

use crate::transcript::{ENGINE, Transcript, check, key, resource, resume};
use std::time::Duration;
use tidegate::{
    base::Version,
    server::{
        cache::Cache,
        session::{Event, OWN_FAILURE_RETRY},
    },
    xds::{Resource, ResourceKind::*, Update},
};

fn route(name: &str, version: u128) -> Resource {
    resource(Route, name, version, &[])
}

/// Routes of version 1, accepted.
fn with_routes(names: &[&str]) -> Transcript {
    let mut t = Transcript::new(names.iter().map(|name| route(name, 1)));
    let first = t.subscribe(Route, names);
    t.ack_all(first);
    t
}

#[test]
fn trap_26_the_culprit_keeps_its_last_good_and_is_not_sent_again() {
    let mut t = with_routes(&["a", "b"]);
    let bad = t.set([route("a", 2)]);
    check(&bad, &["Route +a@2"]);
    check(&t.nack(&bad[0], "missing ): ("), &[]);
    assert_eq!(t.refused(), [("a".to_owned(), 2)]);
    assert!(!t.session.in_order(&key(Route, "a")), "it holds its last good one, not the published");
    // Others go on, and a newer version is tried anew.
    let other = t.set([route("b", 2)]);
    check(&other, &["Route +b@2"]);
    t.ack(&other[0]);
    let newer = t.set([route("a", 3)]);
    check(&newer, &["Route +a@3"]);
    t.ack(&newer[0]);
    assert!(t.session.in_order(&key(Route, "a")));
    assert_eq!(t.refused().len(), 1);
}

#[test]
fn trap_26_a_batch_is_bisected() {
    let names: Vec<String> = (0..64).map(|n| format!("r{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut t = Transcript::new(names.iter().map(|name| route(name, 1)));
    let mut open = t.subscribe(Route, &names);
    let (mut sent, mut held) = (0, std::collections::BTreeSet::new());
    while let Some(response) = open.pop() {
        sent += 1;
        let bad = response.resources.iter().any(|item| &*item.name == "r37" && item.version == Version(1));
        if bad {
            open.extend(t.nack(&response, "missing ): ("));
        } else {
            held.extend(response.resources.iter().map(|item| item.name.to_string()));
            open.extend(t.ack(&response));
        }
    }
    assert_eq!(t.refused(), [("r37".to_owned(), 1)]);
    // r37 never had a good version: it has our 503.
    assert_eq!(held.len(), 64);
    assert!(sent <= 16, "{sent} responses for 64 names");
}

#[test]
fn trap_26_a_message_that_names_one_needs_no_bisection() {
    let set = ["shop/a/80", "shop/b/80", "shop/c/80"].map(|name| resource(Cluster, name, 1, &[]));
    let mut t = Transcript::new(set);
    let all = t.subscribe(Cluster, &[]);
    let rest = t.nack(&all[0], "Error adding/updating cluster(s) shop/b/80: no such thing");
    check(&rest, &["Cluster +shop/a/80@1 +shop/c/80@1"]);
    check(&t.ack(&rest[0]), &[]);
    assert_eq!(t.refused(), [("shop/b/80".to_owned(), 1)]);
}

#[test]
fn trap_26_a_refused_first_route_is_a_503_of_ours() {
    let mut t = Transcript::new([route("a", 1)]);
    let bad = t.subscribe(Route, &["a"]);
    let instead = t.nack(&bad[0], "bad");
    assert_eq!(instead.len(), 1);
    let body = &instead[0].resources[0].body;
    let table: envoy_types::pb::envoy::config::route::v3::RouteConfiguration =
        prost::Message::decode(body.clone()).expect("a route table");
    assert_eq!((table.name.as_str(), table.virtual_hosts.len()), ("a", 1));
    // That one is accepted: all is in order, and the next version is tried.
    check(&t.ack(&instead[0]), &[]);
    assert!(t.session.synced());
    check(&t.set([route("a", 2)]), &["Route +a@2"]);
}

#[test]
fn trap_26_other_engines_are_spared_or_keep_what_they_have() {
    let mut t = with_routes(&["a"]);
    // e2 accepts version 2 before e1 refuses it; e3 has not taken it.
    let mut e2 = Transcript::over(Cache::new());
    std::mem::swap(&mut e2.cache, &mut t.cache);
    let first = e2.subscribe(Route, &["a"]);
    e2.ack(&first[0]);
    let taken = e2.set([route("a", 2)]);
    e2.ack(&taken[0]);
    std::mem::swap(&mut e2.cache, &mut t.cache);
    let bad = t.change();
    check(&bad, &["Route +a@2"]);
    check(&t.nack(&bad[0], "bad"), &[]);
    std::mem::swap(&mut e2.cache, &mut t.cache);
    check(&e2.change(), &[]);
    assert!(e2.session.in_order(&key(Route, "a")));
    // It comes back with the version others refuse, and keeps it.
    e2.reconnect();
    check(&e2.send(resume(Route, &["a"], &[("a", 2)])), &[]);
    // A new engine gets the last good one, and one that had it nothing.
    e2.reconnect();
    check(&e2.subscribe(Route, &["a"]), &["Route +a@1"]);
    e2.reconnect();
    check(&e2.send(resume(Route, &["a"], &[("a", 1)])), &[]);
    assert_eq!(e2.cache.refused_by(&key(Route, "a")).expect("refused").len(), 1);
}

#[test]
fn an_engine_that_is_sent_the_version_while_another_refuses_it() {
    let mut t = Transcript::new([route("a", 1)]);
    let flying = t.subscribe(Route, &["a"]);
    t.cache.quarantine(&key(Route, "a"), Version(1), "e2".into());
    check(&t.change(), &[]);
    // It refuses too, and has nothing: it gets the 503.
    assert_eq!(t.nack(&flying[0], "bad").len(), 1);

    let mut t = Transcript::new([route("a", 1)]);
    let flying = t.subscribe(Route, &["a"]);
    t.cache.quarantine(&key(Route, "a"), Version(1), "e2".into());
    check(&t.change(), &[]);
    // It accepts, and keeps it.
    check(&t.ack(&flying[0]), &[]);
    assert!(t.session.in_order(&key(Route, "a")));
}

#[test]
fn trap_27_what_the_last_good_needs_stays() {
    let mut t = Transcript::new([resource(Cluster, "x", 1, &[]), resource(Route, "a", 1, &[(Cluster, "x")])]);
    let clusters = t.subscribe(Cluster, &[]);
    t.ack_all(clusters);
    let routes = t.subscribe(Route, &["a"]);
    t.ack_all(routes);
    let set = vec![route("a", 2)];
    let bad = t.publish(Update { set, removed: vec![key(Cluster, "x")] });
    check(&bad, &["Route +a@2"]);
    check(&t.nack(&bad[0], "bad"), &[]);
    t.cache.tick(|_| true);
    check(&t.pass(Duration::from_secs(600)), &[]);
    // A fresh engine is given both.
    t.reconnect();
    let clusters = t.subscribe(Cluster, &[]);
    check(&clusters, &["Cluster +x@1"]);
    t.ack(&clusters[0]);
    let routes = t.subscribe(Route, &["a"]);
    check(&routes, &["Route +a@1"]);
    t.ack(&routes[0]);
    // The next good version frees it.
    let good = t.set([route("a", 3)]);
    check(&good, &["Route +a@3"]);
    t.ack(&good[0]);
    t.cache.tick(|_| true);
    check(&t.change(), &[]);
    check(&t.pass(Duration::from_secs(10)), &["Cluster -x"]);
}

#[test]
fn trap_27_last_good_survives_a_restart() {
    let mut t = Transcript::new([resource(Cluster, "x", 1, &[]), resource(Route, "a", 1, &[(Cluster, "x")])]);
    let clusters = t.subscribe(Cluster, &[]);
    t.ack_all(clusters);
    let routes = t.subscribe(Route, &["a"]);
    t.ack_all(routes);
    let bad = t.publish(Update { set: vec![route("a", 2)], removed: vec![key(Cluster, "x")] });
    t.nack(&bad[0], "bad");
    let kept: Vec<_> = t.cache.last_good().collect();
    assert_eq!((kept.len(), kept[0].supports.len()), (1, 1));

    let mut cache = Cache::new();
    cache.restore(kept.clone());
    cache.apply(Update { set: vec![route("a", 2)], removed: vec![] });
    let mut t = Transcript::over(cache);
    let clusters = t.subscribe(Cluster, &[]);
    check(&clusters, &["Cluster +x@1"]);
    t.ack(&clusters[0]);
    check(&t.subscribe(Route, &["a"]), &["Route +a@1"]);

    // Another version than the refused one is simply published.
    let mut cache = Cache::new();
    cache.restore(kept);
    cache.apply(Update { set: vec![route("a", 3)], removed: vec![] });
    check(&Transcript::over(cache).subscribe(Route, &["a"]), &["Route +a@3"]);
}

#[test]
fn a_removed_resource_takes_its_verdict_along() {
    let mut t = with_routes(&["a"]);
    let bad = t.set([route("a", 2)]);
    t.nack(&bad[0], "bad");
    t.remove(Route, "a");
    assert_eq!(t.cache.last_good().count(), 0);
    let gone = t.pass(Duration::from_secs(5));
    check(&gone, &["Route -a"]);
    t.ack(&gone[0]);
    check(&t.set([route("a", 2)]), &["Route +a@2"]);
}

#[test]
fn trap_26_an_engines_own_failure_holds_nobody_else() {
    let mut t = Transcript::new([resource(Listener, "l", 1, &[])]);
    let first = t.subscribe(Listener, &[]);
    check(&t.nack(&first[0], "Error adding/updating listener(s) l: cannot bind '127.0.0.1:80'"), &[]);
    assert!(matches!(&t.events[0], Event::Refused(refused) if refused.own));
    assert!(t.cache.refused_by(&key(Listener, "l")).is_none());
    assert!(!t.session.in_order(&key(Listener, "l")));
    // Only after a while it is tried again.
    check(&t.pass(OWN_FAILURE_RETRY - Duration::from_millis(1)), &[]);
    let again = t.pass(Duration::from_millis(1));
    check(&again, &["Listener +l@1"]);
    t.ack(&again[0]);
    assert!(t.session.in_order(&key(Listener, "l")));
}

#[test]
fn a_refusal_of_what_is_no_longer_newest_condemns_nothing() {
    let mut t = with_routes(&["a"]);
    let bad = t.set([route("a", 2)]);
    t.set([route("a", 3)]);
    let next = t.nack(&bad[0], "bad");
    check(&next, &["Route +a@3"]);
    t.ack(&next[0]);
    assert!(t.cache.refused_by(&key(Route, "a")).is_none());
    assert!(t.session.synced());
}

#[test]
fn nothing_is_served_in_place_of_a_refused_cluster() {
    let mut t = Transcript::new([resource(Cluster, "x", 1, &[]), resource(Route, "r", 1, &[(Cluster, "x")])]);
    let clusters = t.subscribe(Cluster, &[]);
    let waiting = t.subscribe(Route, &["r"]);
    check(&waiting, &[]);
    // Its routes are not held back for ever: they answer 503 by themselves.
    check(&t.nack(&clusters[0], "bad"), &["Route +r@1"]);
    assert_eq!(t.cache.refused_by(&key(Cluster, "x")).expect("refused").first().map(|e| &**e), Some(ENGINE));
}
