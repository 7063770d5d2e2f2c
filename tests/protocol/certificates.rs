//! On-demand certificates: names are SNIs as clients wrote them.

use crate::transcript::{Transcript, check, resource, resume};
use std::time::Duration;
use tidegate::{
    server::session::ALIASED_NAMES_MAX,
    xds::{Resource, ResourceKind::Secret},
};

fn certificate(name: &str, version: u128) -> Resource {
    resource(Secret, name, version, &[])
}

#[track_caller]
fn ask(t: &mut Transcript, name: &str, expected: &str) {
    let answer = t.subscribe(Secret, &[name]);
    check(&answer, &[expected]);
    t.ack(&answer[0]);
}

#[test]
fn trap_36_every_name_is_answered() {
    let mut t = Transcript::new([certificate("a.foo.com", 1), certificate("*.foo.com", 2)]);
    ask(&mut t, "a.foo.com", "Secret +a.foo.com@1");
    ask(&mut t, "b.foo.com", "Secret +b.foo.com@2");
    ask(&mut t, "A.Foo.com", "Secret +A.Foo.com@1");
    ask(&mut t, "B.FOO.COM", "Secret +B.FOO.COM@2");
    ask(&mut t, "x.b.foo.com", "Secret -x.b.foo.com");
    ask(&mut t, "foo.com", "Secret -foo.com");
    ask(&mut t, "default/vip", "Secret -default/vip");
    ask(&mut t, "chain/a.foo.com", "Secret -chain/a.foo.com");
}

#[test]
fn trap_35_a_new_certificate_reaches_all_its_names() {
    let mut t = Transcript::new([certificate("a.foo.com", 1), certificate("*.foo.com", 2)]);
    for name in ["a.foo.com", "b.foo.com", "C.foo.com"] {
        let answer = t.subscribe(Secret, &[name]);
        t.ack(&answer[0]);
    }
    let pushed = t.set([certificate("*.foo.com", 3)]);
    check(&pushed, &["Secret +C.foo.com@3 +b.foo.com@3"]);
    t.ack(&pushed[0]);
    // Its own certificate takes over, and hides the wildcard from then on.
    let own = t.set([certificate("b.foo.com", 4)]);
    check(&own, &["Secret +b.foo.com@4"]);
    t.ack(&own[0]);
    let pushed = t.set([certificate("*.foo.com", 5)]);
    check(&pushed, &["Secret +C.foo.com@5"]);
    t.ack(&pushed[0]);
    // And back.
    let back = t.remove(Secret, "b.foo.com");
    check(&back, &["Secret +b.foo.com@5"]);
    t.ack(&back[0]);
    let gone = t.remove(Secret, "*.foo.com");
    check(&[gone, t.pass(Duration::from_secs(2))].concat(), &["Secret -C.foo.com -b.foo.com"]);
}

#[test]
fn a_name_that_becomes_covered_is_pushed() {
    let mut t = Transcript::new([]);
    ask(&mut t, "B.foo.com", "Secret -B.foo.com");
    let covered = t.set([certificate("*.foo.com", 1)]);
    check(&covered, &["Secret +B.foo.com@1"]);
    t.ack(&covered[0]);
    check(&t.set([certificate("b.foo.com", 2)]), &["Secret +B.foo.com@2"]);
}

#[test]
fn names_under_a_wildcard_are_capped() {
    let mut t = Transcript::new([certificate("*.foo.com", 1), certificate("own.foo.com", 1)]);
    ask(&mut t, "own.foo.com", "Secret +own.foo.com@1");
    for n in 0..ALIASED_NAMES_MAX {
        let name = format!("n{n}.foo.com");
        ask(&mut t, &name, &format!("Secret +{name}@1"));
    }
    ask(&mut t, "more.foo.com", "Secret +more.foo.com@1 -n0.foo.com");
    // It is asked for again at the next handshake, at the cost of another.
    ask(&mut t, "n0.foo.com", "Secret +n0.foo.com@1 -n1.foo.com");
    let pushed = t.set([certificate("*.foo.com", 2)]);
    let sent: usize = t.ack_all(pushed).iter().map(|response| response.resources.len()).sum();
    assert_eq!(sent, ALIASED_NAMES_MAX);
}

#[test]
fn a_reconnect_sends_no_certificate_again() {
    let mut t = Transcript::new([certificate("a.foo.com", 1), certificate("*.foo.com", 2)]);
    let versions = [("a.foo.com", 1), ("b.foo.com", 2), ("B.foo.com", 2), ("gone.org", 3)];
    let names = ["a.foo.com", "b.foo.com", "B.foo.com", "gone.org"];
    check(&t.send(resume(Secret, &names, &versions)), &[]);
    check(&t.pass(Duration::from_secs(10)), &["Secret -gone.org"]);
    check(&t.set([certificate("*.foo.com", 3)]), &[]);
}
