//! The relay between two sessions: what the control plane is told is what Envoy said.

use crate::transcript::{ENGINE, Transcript, check, key, resource};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use std::time::Duration;
use tidegate::{
    engine::relay::{Received, Relay},
    server::{
        cache::Cache,
        frame::Response,
        session::{Event, OWN_FAILURE_RETRY, REMOVAL_GRACE, Refused, Session},
    },
    xds::{Resource, ResourceKind::*},
};

/// A control plane's session, the relay, and the session that an Envoy talks to.
struct Chain {
    up: Transcript,
    relay: Relay,
    down: Transcript,
    /// Events of `down` that the relay has seen.
    seen: usize,
}

impl Chain {
    /// Nothing is known below yet.
    fn new(set: impl IntoIterator<Item = Resource>) -> Self {
        let relay = Relay::new("edge".into(), ENGINE.into());
        Self { up: Transcript::new(set), relay, down: Transcript::over(Cache::new()), seen: 0 }
    }

    /// The same, in sync, with an Envoy that asked for all but certificates.
    fn settled(set: impl IntoIterator<Item = Resource>) -> Self {
        let set: Vec<_> = set.into_iter().collect();
        let routes: Vec<_> = set.iter().filter(|r| r.key.kind == Route).map(|r| r.key.name.clone()).collect();
        let mut chain = Self::new(set);
        chain.connect();
        let mut open = chain.down.subscribe(Cluster, &[]);
        open.extend(chain.down.subscribe(ScopedRoute, &[]));
        open.extend(chain.down.subscribe(Listener, &[]));
        let names: Vec<_> = routes.iter().map(AsRef::as_ref).collect();
        open.extend(chain.down.subscribe(Route, &names));
        chain.accept(open);
        assert!(chain.up.session.synced() && chain.down.session.synced());
        chain
    }

    /// A new stream upward; gives what Envoy is sent.
    fn connect(&mut self) -> Vec<Response> {
        self.up.reconnect();
        let hello = self.relay.hello(&self.down.cache, Some(&self.down.session));
        self.request(hello)
    }

    fn request(&mut self, requests: Vec<DeltaDiscoveryRequest>) -> Vec<Response> {
        let mut answers = Vec::new();
        for mut request in requests {
            // The transcript introduces a stream as an Envoy's.
            if let Some(node) = request.node.take() {
                let first = self.up.session.on_request(
                    &self.up.cache,
                    DeltaDiscoveryRequest { node: Some(node), ..request },
                    self.up.now,
                );
                answers.extend(first.expect("the stream lives").responses);
            } else {
                answers.extend(self.up.session_request(request));
            }
        }
        self.pass_down(answers)
    }

    /// What the control plane sent reaches the relay, and through it Envoy.
    fn pass_down(&mut self, responses: Vec<Response>) -> Vec<Response> {
        let mut sent = Vec::new();
        for response in responses {
            let mut wire = Vec::new();
            response.encode(&mut wire);
            let read = DeltaDiscoveryResponse::decode(wire.as_slice()).expect("a response");
            match self.relay.on_response(read) {
                Received::Part(kind, update) => {
                    self.down.cache.apply_part(kind, update);
                }
                Received::Complete => {
                    self.down.cache.finish();
                }
                Received::Foreign(what) => panic!("{what}"),
            }
            sent.extend(self.down.change());
        }
        sent.extend(self.pass_up());
        sent
    }

    /// What Envoy said reaches the control plane.
    fn pass_up(&mut self) -> Vec<Response> {
        for event in &self.down.events[self.seen..] {
            if let Event::Refused(refused) = event {
                let _ = self.relay.on_refused(refused.clone());
            }
        }
        self.seen = self.down.events.len();
        let session: Option<&Session> = Some(&self.down.session);
        let (answers, _) = self.relay.answers(&self.down.cache, session, self.down.now);
        if answers.is_empty() { Vec::new() } else { self.request(answers) }
    }

    /// Envoy takes everything, until nothing more comes.
    fn accept(&mut self, responses: Vec<Response>) -> Vec<Response> {
        let mut seen = responses.clone();
        let mut open = std::collections::VecDeque::from(responses);
        loop {
            let next = open.pop_front();
            let more = match &next {
                Some(response) => self.down.ack(response),
                None => self.pass_up(),
            };
            if next.is_none() && more.is_empty() {
                return seen;
            }
            seen.extend(more.iter().cloned());
            open.extend(more);
        }
    }

    fn set(&mut self, set: impl IntoIterator<Item = Resource>) -> Vec<Response> {
        let sent = self.up.set(set);
        self.pass_down(sent)
    }
}

fn last_refused(transcript: &Transcript) -> Option<Refused> {
    transcript.events.iter().rev().find_map(|event| match event {
        Event::Refused(refused) => Some(refused.clone()),
        Event::Accepted(_) | Event::Synced => None,
    })
}

fn world() -> Vec<Resource> {
    vec![
        resource(Cluster, "c", 1, &[]),
        resource(ScopedRoute, "s", 1, &[(Route, "r")]),
        resource(Route, "r", 1, &[(Cluster, "c")]),
        resource(Route, "t", 1, &[(Cluster, "c")]),
        resource(Secret, "a.example.com", 1, &[]),
    ]
}

#[test]
fn an_answer_is_envoys() {
    let mut chain = Chain::settled(world());
    let sent = chain.set([resource(Route, "r", 2, &[(Cluster, "c")])]);
    check(&sent, &["Route +r@2"]);
    assert!(!chain.up.session.in_order(&key(Route, "r")), "Envoy has not said anything");
    chain.accept(sent);
    assert!(chain.up.session.in_order(&key(Route, "r")));
}

/// The needs travel along: a route waits below, too, for a cluster that Envoy lacks.
#[test]
fn order_holds_below() {
    let mut chain = Chain::settled(world());
    let sent = chain
        .set([resource(Cluster, "d", 1, &[]), resource(Route, "r", 2, &[(Cluster, "c"), (Cluster, "d")])]);
    check(&sent, &["Cluster +d@1"]);
    let all = chain.accept(sent);
    check(&all, &["Cluster +d@1", "Route +r@2"]);
    // An Envoy that restarts gets it from the relay alone, in order.
    chain.down.reconnect();
    let mut open = chain.down.subscribe(Cluster, &[]);
    open.extend(chain.down.subscribe(Route, &["r"]));
    check(&chain.accept(open), &["Cluster +c@1 +d@1", "Route +r@2"]);
}

#[test]
fn a_refusal_names_its_resource_and_the_rest_is_held() {
    let mut chain = Chain::settled(world());
    let sent = chain.up.set([resource(Route, "r", 2, &[]), resource(Route, "t", 2, &[])]);
    check(&sent, &["Route +r@2 +t@2"]);
    let sent = chain.pass_down(sent);
    check(&sent, &["Route +r@2", "Route +t@2"]);
    chain.down.nack(&sent[0], "missing ): (");
    chain.down.ack(&sent[1]);
    let more = chain.pass_up();
    chain.accept(more);
    assert_eq!(chain.up.refused(), [("r".to_owned(), 2)]);
    let refused = last_refused(&chain.up).expect("it is told");
    assert_eq!((&*refused.message, refused.own), ("missing ): (", false), "Envoy's own words");
    assert!(chain.up.session.in_order(&key(Route, "t")));
    assert!(!chain.up.session.in_order(&key(Route, "r")), "it holds its last good one");
    // A newer version is tried anew.
    let newer = chain.set([resource(Route, "r", 3, &[])]);
    check(&newer, &["Route +r@3"]);
    chain.accept(newer);
    assert!(chain.up.session.in_order(&key(Route, "r")));
}

#[test]
fn an_engines_own_failure_is_told_and_tried_again() {
    let mut chain = Chain::settled(world());
    let sent = chain.set([resource(Listener, "l", 1, &[])]);
    check(&sent, &["Listener +l@1"]);
    chain.down.nack(&sent[0], "cannot bind '127.0.0.1:80': Address already in use");
    let more = chain.pass_up();
    chain.accept(more);
    assert!(matches!(last_refused(&chain.up), Some(refused) if refused.own));
    let again = chain.down.pass(OWN_FAILURE_RETRY);
    check(&again, &["Listener +l@1"]);
    chain.accept(again);
    let again = chain.up.pass(OWN_FAILURE_RETRY);
    let sent = chain.pass_down(again);
    check(&sent, &[]);
    assert!(chain.up.session.in_order(&key(Listener, "l")), "it was tried again meanwhile");
}

#[test]
fn nothing_is_sent_again_on_a_new_stream() {
    let mut chain = Chain::settled(world());
    check(&chain.connect(), &[]);
    assert_eq!(chain.up.session.sent(), 0);
    assert!(chain.up.session.synced());
}

/// What Envoy has not said yes to does not count as held, whoever holds it.
#[test]
fn a_new_stream_is_told_what_envoy_holds() {
    let mut chain = Chain::settled(world());
    let sent = chain.set([resource(Route, "r", 2, &[])]);
    chain.connect();
    assert!(!chain.up.session.in_order(&key(Route, "r")));
    chain.down.nack(&sent[0], "missing ): (");
    let more = chain.pass_up();
    chain.accept(more);
    assert_eq!(chain.up.refused(), [("r".to_owned(), 2)]);
    // The same with an Envoy that is gone.
    let mut chain = Chain::settled(world());
    chain.down.reconnect();
    chain.connect();
    assert!(!chain.up.session.in_order(&key(Cluster, "c")) && !chain.up.session.synced());
}

/// A refusal that no open response can carry upward asks for a new stream, once.
#[test]
fn a_late_refusal_is_told_on_a_new_stream() {
    let mut chain = Chain::settled(world());
    let sent = chain.set([resource(Route, "r", 2, &[])]);
    chain.accept(sent.clone());
    chain.down.session = Session::new(ENGINE.into());
    chain.down.reconnect();
    // Another Envoy, which does not take it.
    let mut open = chain.down.subscribe(Cluster, &[]);
    open = chain.down.ack_all(open);
    open.extend(chain.down.subscribe(Route, &["r"]));
    let route = open.iter().find(|response| response.type_url.ends_with("RouteConfiguration"));
    chain.down.nack(route.expect("it is sent"), "missing ): (");
    let refused = last_refused(&chain.down).expect("it is told");
    assert!(chain.relay.on_refused(refused.clone()));
    assert!(!chain.relay.on_refused(refused), "once");
    chain.seen = chain.down.events.len();
    let more = chain.connect();
    chain.accept(more);
    assert_eq!(chain.up.refused(), [("r".to_owned(), 2)]);
}

/// Before all has come, what is not there may be on its way: nobody is told that it
/// does not exist, and no kind is answered that nothing is known of.
#[test]
fn an_absence_is_told_when_everything_is_there() {
    let mut chain = Chain::new(world());
    check(&chain.down.subscribe(Cluster, &[]), &[]);
    let hello = chain.relay.hello(&chain.down.cache, Some(&chain.down.session));
    let sent = chain.request(hello);
    check(&sent, &["Cluster +c@1"]);
    check(&chain.down.subscribe(Route, &["r", "not-there"]), &[]);
    let all = chain.accept(sent);
    check(&all, &["Cluster +c@1", "Route +r@1"]);
    assert!(!chain.down.cache.complete());
    // Scopes are taken, tables that Envoy does not ask for are not waited for long.
    let scopes = chain.down.subscribe(ScopedRoute, &[]);
    chain.accept(scopes);
    chain.down.now += Duration::from_secs(2);
    let last = chain.pass_up();
    // A table that is not there is an empty one.
    assert_eq!(&*last[0].resources[0].name, "not-there");
    assert!(chain.down.cache.complete());
}

/// Endpoints of a cluster that waits for its turn must not hold up all others.
#[test]
fn endpoints_that_nobody_asked_for_are_not_waited_for() {
    let mut chain = Chain::settled(world());
    let stuck = chain.set([resource(Cluster, "stuck", 1, &[])]);
    check(&stuck, &["Cluster +stuck@1"]);
    let second = chain.set([resource(Cluster, "d", 1, &[]), resource(Endpoints, "d", 1, &[])]);
    check(&second, &[]);
    assert!(chain.up.session.in_order(&key(Endpoints, "d")));
}

/// Certificates wait in the relay for whoever asks.
#[test]
fn certificates_nobody_asked_for_are_held() {
    let mut chain = Chain::settled(world());
    assert!(chain.up.session.in_order(&key(Secret, "a.example.com")));
    check(&chain.down.subscribe(Secret, &["A.example.com"]), &["Secret +A.example.com@1"]);
}

/// A name that a relay holds is a certificate of its own, whatever the wildcard is.
#[test]
fn a_certificate_goes_although_the_wildcard_beside_it_is_the_same() {
    let both = ["*.example.com", "b.example.com"].map(|name| resource(Secret, name, 7, &[]));
    let mut chain = Chain::settled(world().into_iter().chain(both));
    let sent = chain.up.remove(Secret, "b.example.com");
    chain.pass_down(sent);
    let sent = chain.up.pass(REMOVAL_GRACE * 2);
    check(&sent, &["Secret -b.example.com"]);
}

/// Of tables that came together one is refused: of the others it is known that they
/// are held, so that none of them moves to a cluster that is not there.
#[test]
fn what_came_with_a_refused_one_is_held() {
    let new = ["x", "y"].map(|name| resource(Route, name, 1, &[(Cluster, "c")]));
    let mut chain = Chain::settled(world());
    let mut open = chain.down.subscribe(Route, &["x", "y"]);
    open.extend(chain.set(new));
    let mut open = std::collections::VecDeque::from(open);
    while let Some(response) = open.pop_front() {
        let bad = response.resources.iter().any(|item| &*item.name == "x" && item.version.0 == 1);
        let more = if bad { chain.down.nack(&response, "missing ): (") } else { chain.down.ack(&response) };
        open.extend(more);
        if open.is_empty() {
            open.extend(chain.pass_up());
        }
    }
    assert_eq!(chain.up.refused(), [("x".to_owned(), 1)]);
    assert!(chain.up.session.in_order(&key(Route, "y")));
}

/// What may wait for ever is told from what waits for an answer.
#[test]
fn an_edit_waits_for_what_was_refused() {
    let mut t = Transcript::new(world());
    let open = t.subscribe(Cluster, &[]).into_iter().chain(t.subscribe(Route, &["r"])).collect();
    t.ack_all(open);
    let sent = t.set([resource(Cluster, "d", 1, &[]), resource(Route, "r", 2, &[(Cluster, "d")])]);
    check(&sent, &["Cluster +d@1"]);
    assert_eq!(t.session.waits_for(&t.cache, &key(Route, "r")), None, "it is under way");
    check(&t.nack(&sent[0], "no"), &[]);
    assert_eq!(t.session.waits_for(&t.cache, &key(Route, "r")), Some(key(Cluster, "d")));
    let sent = t.set([resource(Cluster, "d", 2, &[])]);
    assert_eq!(t.session.waits_for(&t.cache, &key(Route, "r")), None, "it is under way");
    check(&t.ack(&sent[0]), &["Route +r@2"]);
}
