//! What is asked for, and what is answered.

use crate::transcript::{ENGINE, Transcript, ack, check, nack, resource, resume, short, subscribe};
use envoy_types::pb::envoy::{
    config::{core::v3::Node, route::v3::RouteConfiguration},
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use prost::Message;
use tidegate::{
    server::{
        cache::Cache,
        frame::Response,
        session::{Closed, Event, RESOURCES_PER_RESPONSE_MAX, Session},
    },
    xds::{ResourceKind::*, Update},
};

#[test]
fn trap_02_a_stale_nonce_rejects_nothing() {
    let mut t = Transcript::new([resource(Endpoints, "a", 1, &[]), resource(Endpoints, "b", 1, &[])]);
    let first = t.subscribe(Endpoints, &["a"]);
    t.ack(&first[0]);
    let late = DeltaDiscoveryRequest { resource_names_subscribe: vec!["b".into()], ..ack(&first[0]) };
    check(&t.send(late), &["Endpoints +b@1"]);
}

#[test]
fn trap_03_only_an_error_is_a_refusal() {
    let mut t = Transcript::new([resource(Cluster, "a", 2, &[])]);
    let sent = t.send(resume(Cluster, &[], &[("a", 1)]));
    check(&sent, &["Cluster +a@2"]);
    t.ack(&sent[0]);
    assert_eq!(t.refused(), []);
}

#[test]
fn trap_04_versions_survive_a_stream_and_nonces_do_not() {
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[])]);
    let old = t.subscribe(Cluster, &[]);
    t.ack(&old[0]);
    t.reconnect();
    check(&t.send(resume(Cluster, &[], &[("a", 1)])), &[]);
    check(&t.send(nack(&old[0], "of another stream")), &[]);
    assert_eq!(t.refused(), []);
}

#[test]
fn trap_05_node_is_read_from_the_first_request_only() {
    let cache = Cache::new();
    let mut session = Session::new(ENGINE.into());
    let now = Transcript::over(Cache::new()).now;
    let mut ask = |id: Option<&str>| {
        let node = id.map(|id| Node { id: id.to_owned(), ..Default::default() });
        session.on_request(&cache, DeltaDiscoveryRequest { node, ..subscribe(Cluster, &[]) }, now).map(|_| ())
    };
    assert_eq!(ask(None), Err(Closed::NoNode));
    assert_eq!(ask(Some("")), Err(Closed::NoNode));
    assert_eq!(ask(Some("e2")), Err(Closed::WrongNode("e2".to_owned())));
    assert_eq!(ask(Some(ENGINE)), Ok(()));
    assert_eq!(ask(None), Ok(()));
}

#[test]
fn trap_06_legacy_wildcard_and_the_specifications_four_steps() {
    let mut t = Transcript::new([resource(Listener, "a", 1, &[]), resource(Listener, "b", 1, &[])]);
    let all = t.subscribe(Listener, &[]);
    check(&all, &["Listener +a@1 +b@1"]);
    t.ack(&all[0]);
    // An addition of A, which is sent again; the wildcard goes on.
    let a = t.subscribe(Listener, &["a"]);
    check(&a, &["Listener +a@1"]);
    t.ack(&a[0]);
    let b = t.set([resource(Listener, "b", 2, &[])]);
    check(&b, &["Listener +b@2"]);
    t.ack(&b[0]);
    // Only A remains.
    check(&t.unsubscribe(Listener, &["*"]), &[]);
    check(&t.set([resource(Listener, "b", 3, &[])]), &[]);
    let a = t.set([resource(Listener, "a", 2, &[])]);
    check(&a, &["Listener +a@2"]);
    t.ack(&a[0]);
    // Nothing remains; an empty list is no wildcard any more.
    check(&t.unsubscribe(Listener, &["a"]), &[]);
    check(&t.subscribe(Listener, &[]), &[]);
    check(&t.set([resource(Listener, "a", 3, &[])]), &[]);
    check(&t.subscribe(Listener, &["*"]), &["Listener +a@3 +b@3"]);
}

#[test]
fn trap_06_kinds_asked_for_by_name_have_no_legacy_wildcard() {
    for kind in [Endpoints, Secret, Route] {
        let mut t = Transcript::new([resource(kind, "a", 1, &[])]);
        check(&t.subscribe(kind, &[]), &[]);
        assert_eq!(t.subscribe(kind, &["*"]).len(), 1, "{kind:?}: a relay asks for all of them");
    }
}

#[test]
fn a_relay_takes_everything_in_batches() {
    let routes = (0..250).map(|n| resource(Route, &format!("r{n:03}"), 1, &[]));
    let mut t = Transcript::new(routes.chain([resource(Secret, "*.foo.com", 1, &[])]));
    let sizes: Vec<_> = t.subscribe(Route, &["*"]).iter().map(|response| response.resources.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    check(&t.subscribe(Secret, &["*"]), &["Secret +*.foo.com@1"]);
}

#[test]
fn trap_07_a_name_given_up_under_a_wildcard_is_answered() {
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[])]);
    let all = t.subscribe(Cluster, &["*", "a", "gone"]);
    check(&all, &["Cluster +a@1"]);
    let absent = t.ack(&all[0]);
    check(&absent, &["Cluster -gone"]);
    t.ack(&absent[0]);
    let again = t.unsubscribe(Cluster, &["a"]);
    check(&again, &["Cluster +a@1"]);
    t.ack(&again[0]);
    t.pass(std::time::Duration::from_secs(2));
    let gone = t.unsubscribe(Cluster, &["gone"]);
    check(&[gone, t.pass(std::time::Duration::from_secs(2))].concat(), &["Cluster -gone"]);
}

#[test]
fn trap_08_resubscribe_resends() {
    let mut t = Transcript::new([resource(Endpoints, "a", 1, &[])]);
    let first = t.subscribe(Endpoints, &["a"]);
    check(&first, &["Endpoints +a@1"]);
    t.ack(&first[0]);
    check(&t.subscribe(Endpoints, &["a"]), &["Endpoints +a@1"]);
}

#[test]
fn trap_09_a_phantom_unsubscribe_is_silent() {
    let mut t = Transcript::new([resource(Endpoints, "a", 1, &[])]);
    check(&t.unsubscribe(Endpoints, &["never"]), &[]);
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[])]);
    let all = t.subscribe(Cluster, &[]);
    t.ack(&all[0]);
    check(&t.unsubscribe(Cluster, &["never"]), &[]);
}

#[test]
fn trap_10_a_missing_name_is_answered_and_kept() {
    let mut t = Transcript::new([]);
    let none = t.subscribe(Endpoints, &["x"]);
    check(&none, &["Endpoints -x"]);
    t.ack(&none[0]);
    check(&t.set([resource(Endpoints, "x", 1, &[])]), &["Endpoints +x@1"]);
}

#[test]
fn trap_11_what_vanished_meanwhile_is_removed() {
    let mut t = Transcript::new([resource(Listener, "a", 1, &[]), resource(Cluster, "c", 1, &[])]);
    let listeners = t.send(resume(Listener, &[], &[("a", 1), ("b", 1)]));
    check(&listeners, &["Listener -b"]);
    t.ack(&listeners[0]);
    check(&t.send(resume(Cluster, &[], &[("c", 1), ("d", 1)])), &[]);
    check(&t.pass(std::time::Duration::from_secs(10)), &["Cluster -d"]);
}

#[test]
fn a_change_is_over_when_it_is_accepted_or_was_for_others() {
    let mut t = Transcript::new([resource(Endpoints, "a", 1, &[])]);
    let told = |t: &Transcript| t.events.iter().filter(|event| matches!(event, Event::Synced)).count();
    let first = t.subscribe(Endpoints, &["a"]);
    assert!(!t.session.settled(t.cache.head()));
    t.ack_all(first);
    let before = t.cache.head();
    assert_eq!((told(&t), t.session.settled(before)), (1, true));
    let second = t.set([resource(Endpoints, "a", 2, &[])]);
    assert!(!t.session.settled(t.cache.head()) && t.session.settled(before), "that stays true");
    t.ack_all(second);
    assert_eq!((told(&t), t.session.settled(t.cache.head())), (2, true));
    check(&t.set([resource(Endpoints, "of another", 1, &[])]), &[]);
    assert_eq!((told(&t), t.session.settled(t.cache.head())), (3, true));
    t.change();
    assert_eq!(told(&t), 3, "nothing changed");
}

#[test]
fn trap_12_equal_versions_are_not_sent_again() {
    let set: Vec<_> = (0..2_000).map(|n| resource(Cluster, &format!("c{n}"), 7, &[])).collect();
    let names: Vec<_> = (0..2_000).map(|n| format!("c{n}")).collect();
    let versions: Vec<_> = names.iter().map(|name| (name.as_str(), 7)).collect();
    let mut t = Transcript::new(set);
    check(&t.send(resume(Cluster, &[], &versions)), &[]);
    assert!(matches!(&t.events[..], [Event::Accepted(known), Event::Synced] if known.len() == 2_000));
    let mut t = Transcript::new([resource(Route, "r", 1, &[]), resource(Route, "s", 2, &[])]);
    check(&t.send(resume(Route, &["r", "s"], &[("r", 1), ("s", 1)])), &["Route +s@2"]);
}

#[test]
fn trap_13_a_boot_comes_in_bounded_responses() {
    let set = (0..1_250).map(|n| resource(Cluster, &format!("c{n:04}"), 1, &[]));
    let mut t = Transcript::new(set);
    let first = t.subscribe(Cluster, &[]);
    assert_eq!(first.len(), 1, "one unanswered response");
    let all = t.ack_all(first);
    let sizes: Vec<_> = all.iter().map(|response| response.resources.len()).collect();
    assert_eq!(sizes, [RESOURCES_PER_RESPONSE_MAX, RESOURCES_PER_RESPONSE_MAX, 250]);
}

#[test]
fn trap_14_a_name_stands_once_in_a_response() {
    let mut t = Transcript::new([resource(Endpoints, "a", 1, &[])]);
    check(&t.subscribe(Endpoints, &["a", "a", "a"]), &["Endpoints +a@1"]);
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[])]);
    check(&t.subscribe(Cluster, &["*", "a"]), &["Cluster +a@1"]);
}

#[test]
fn trap_15_nothing_is_said_before_the_first_publish() {
    let mut t = Transcript::over(Cache::new());
    check(&t.send(resume(Cluster, &[], &[("a", 1), ("b", 1)])), &[]);
    check(&t.subscribe(Endpoints, &["a"]), &[]);
    check(&t.change(), &[]);
    let set = vec![resource(Cluster, "a", 1, &[]), resource(Cluster, "b", 1, &[])];
    check(&t.publish(Update { set, removed: vec![] }), &["Endpoints -a"]);
}

#[test]
fn an_empty_kind_is_answered_once() {
    let mut t = Transcript::new([]);
    let empty = t.subscribe(Cluster, &[]);
    check(&empty, &["Cluster"]);
    check(&t.ack(&empty[0]), &[]);
}

#[test]
fn trap_22_endpoints_given_up_are_not_sent() {
    let mut t = Transcript::new([resource(Endpoints, "a", 1, &[])]);
    let first = t.subscribe(Endpoints, &["a"]);
    t.ack(&first[0]);
    check(&t.unsubscribe(Endpoints, &["a"]), &[]);
    check(&t.set([resource(Endpoints, "a", 2, &[])]), &[]);
    assert_eq!(t.session.pending(), [0; 6]);
}

#[test]
fn trap_16_known_names_are_answered_whatever_else_is_asked() {
    let mut t = Transcript::new(["a", "b", "c"].map(|name| resource(Endpoints, name, 1, &[])));
    let some = t.subscribe(Endpoints, &["b", "none", "a"]);
    check(&some, &["Endpoints +b@1 +a@1 -none"]);
    t.ack(&some[0]);
    check(&t.set([resource(Endpoints, "a", 2, &[]), resource(Endpoints, "c", 2, &[])]), &["Endpoints +a@2"]);
}

#[test]
fn trap_23_every_name_is_answered() {
    let mut t = Transcript::new([]);
    for kind in [Endpoints, Secret] {
        check(&t.subscribe(kind, &["missing"]), &[&format!("{kind:?} -missing")]);
    }
}

/// Envoy passes over the removal of a table, and waits for it.
#[test]
fn trap_23_an_absent_table_is_an_empty_one() {
    let mut t = Transcript::new([resource(Cluster, "gone", 1, &[])]);
    let clusters = t.subscribe(Cluster, &[]);
    t.ack(&clusters[0]);
    let answer = t.subscribe(Route, &["r"]);
    let [Response { resources, removed, .. }] = &answer[..] else { panic!("{answer:?}") };
    let table = RouteConfiguration::decode(resources[0].body.clone()).expect("a table");
    assert!(table.name == "r" && table.virtual_hosts.is_empty() && removed.is_empty());
    check(&t.ack(&answer[0]), &[]);
    assert!(t.session.synced());
    // It comes back with that, and has all there is.
    t.reconnect();
    check(&t.send(resume(Cluster, &[], &[("gone", 1)])), &[]);
    check(&t.send(resume(Route, &["r"], &[("r", resources[0].version.0)])), &[]);
    assert!(t.session.synced());
    check(&t.remove(Cluster, "gone"), &[]);
    check(&t.pass(std::time::Duration::from_secs(10)), &["Cluster -gone"]);
    let made = t.set([resource(Route, "r", 1, &[])]);
    check(&made, &["Route +r@1"]);
    t.ack(&made[0]);
    // Refused together with a bad one, it is said again.
    let both = t.subscribe(Route, &["bad", "none"]);
    t.ack(&both[0]);
    t.set([resource(Route, "bad", 1, &[])]);
    let both = t.subscribe(Route, &["s", "none"]);
    let again = t.nack(&both[0], "bad");
    assert!(again.iter().all(|response| response.resources.len() == 1 && response.removed.is_empty()));
}

#[test]
fn trap_38_no_time_to_live_is_sent() {
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[])]);
    let sent = t.subscribe(Cluster, &[]);
    let mut wire = Vec::new();
    sent[0].encode(&mut wire);
    let read = DeltaDiscoveryResponse::decode(wire.as_slice()).expect("a response");
    let [resource] = &read.resources[..] else { panic!("{read:?}") };
    assert!(resource.ttl.is_none() && resource.resource.is_some());
    // And so there is no heartbeat: a stream in sync is silent.
    check(&t.ack(&sent[0]), &[]);
    check(&t.pass(std::time::Duration::from_secs(24 * 3600)), &[]);
}

#[test]
fn trap_39_a_silent_client_has_one_response_and_the_newest_version() {
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[])]);
    let first = t.subscribe(Cluster, &[]);
    for version in 2..1_000 {
        check(&t.set([resource(Cluster, "a", version, &[])]), &[]);
    }
    assert_eq!(t.session.pending()[Cluster as usize], 2);
    check(&t.ack(&first[0]), &["Cluster +a@3e7"]);
}

#[test]
fn trap_43_two_streams_of_one_engine_are_two_states() {
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[])]);
    let old = t.subscribe(Cluster, &[]);
    let mut session = std::mem::replace(&mut t.session, Session::new(ENGINE.into()));
    t.reconnect();
    let new = t.subscribe(Cluster, &[]);
    check(&new, &["Cluster +a@1"]);
    let step = session.on_request(&t.cache, ack(&old[0]), t.now).expect("the old one lives");
    assert!(step.responses.is_empty() && session.synced() && !t.session.synced());
}

#[test]
fn trap_48_what_nobody_asked_for_makes_no_work() {
    let mut t = Transcript::new([resource(Endpoints, "a", 1, &[])]);
    let first = t.subscribe(Endpoints, &["a"]);
    t.ack(&first[0]);
    for version in 1..1_000 {
        check(&t.set([resource(Secret, "other", version, &[])]), &[]);
    }
    assert_eq!(t.session.pending(), [0; 6]);
}

#[test]
fn trap_52_a_runtime_layer_is_answered() {
    let mut t = Transcript::new([]);
    let rtds = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".to_owned(),
        resource_names_subscribe: vec!["layer".to_owned()],
        ..Default::default()
    };
    let answer = t.send(rtds);
    check(&answer, &["type.googleapis.com/envoy.service.runtime.v3.Runtime -layer"]);
    check(&t.ack(&answer[0]), &[]);
}

#[test]
fn flapping_back_before_it_was_sent_sends_nothing() {
    let mut t = Transcript::new([resource(Cluster, "a", 1, &[]), resource(Cluster, "z", 1, &[])]);
    let first = t.subscribe(Cluster, &[]);
    t.ack(&first[0]);
    let busy = t.set([resource(Cluster, "z", 2, &[])]);
    t.set([resource(Cluster, "a", 2, &[])]);
    t.set([resource(Cluster, "a", 1, &[])]);
    check(&t.ack(&busy[0]), &[]);
    assert!(t.session.synced(), "{:?}", busy.iter().map(short).collect::<Vec<_>>());
}
