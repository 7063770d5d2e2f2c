//! A control plane that comes back knows less than the engines that ran on.

use crate::transcript::{Transcript, check, resource, resume};
use tidegate::{
    server::session::{CONNECT_GRACE, REMOVAL_GRACE},
    xds::ResourceKind::*,
};

/// It died before it could write down what was good: the engine has it still.
#[test]
fn an_engine_keeps_a_good_version_that_we_forgot() {
    let mut t = Transcript::new([resource(Route, "a", 2, &[])]);
    let bad = t.send(resume(Route, &["a"], &[("a", 1)]));
    check(&bad, &["Route +a@2"]);
    // No 503 of ours in the place of what it serves.
    check(&t.nack(&bad[0], "missing ): ("), &[]);
    assert_eq!(t.refused(), [("a".to_owned(), 2)]);

    // Nor when the stream is cut; one that starts empty gets the 503.
    t.reconnect();
    check(&t.send(resume(Route, &["a"], &[("a", 1)])), &[]);
    t.reconnect();
    let stand_in = t.subscribe(Route, &["a"]);
    assert_eq!(stand_in.len(), 1);
    check(&t.ack(&stand_in[0]), &[]);
    assert_eq!(t.refused().len(), 1);

    let mended = t.set([resource(Route, "a", 3, &[])]);
    check(&mended, &["Route +a@3"]);
}

/// An engine comes back with a 503 of ours, and what is newest was refused: it is
/// known what the 503 needs, so nothing is kept for it.
#[test]
fn what_stands_in_keeps_nothing_else() {
    let needs = [(Cluster, "old")];
    let mut t = Transcript::new([resource(Cluster, "old", 1, &[]), resource(Route, "a", 1, &needs)]);
    let all = t.subscribe(Cluster, &[]);
    t.ack_all(all);
    let first = t.subscribe(Route, &["a"]);
    let stand_in = t.nack(&first[0], "missing ): (");
    t.ack(&stand_in[0]);
    let version = stand_in[0].resources[0].version.0;
    t.remove(Route, "a");
    t.set([resource(Route, "a", 2, &needs)]);
    t.reconnect();
    t.send(resume(Cluster, &[], &[("old", 1)]));
    let newer = t.send(resume(Route, &["a"], &[("a", version)]));
    check(&newer, &["Route +a@2"]);
    check(&t.nack(&newer[0], "missing ): ("), &[]);
    let newer = t.set([resource(Route, "a", 3, &[])]);
    check(&t.nack(&newer[0], "missing ): ("), &[]);
    t.remove(Cluster, "old");
    check(&t.pass(CONNECT_GRACE + 2 * REMOVAL_GRACE), &["Cluster -old"]);
}

/// A good version is followed by a bad one before the engine has said that it took the
/// good one: it keeps that, and no 503 of ours comes in its place.
#[test]
fn what_was_taken_late_is_kept() {
    let mut t = Transcript::new([resource(Route, "a", 1, &[])]);
    let bad = t.subscribe(Route, &["a"]);
    let stand_in = t.nack(&bad[0], "missing ): (");
    t.ack(&stand_in[0]);
    let good = t.set([resource(Route, "a", 2, &[])]);
    check(&good, &["Route +a@2"]);
    check(&t.set([resource(Route, "a", 1, &[])]), &[]);
    let bad = t.ack(&good[0]);
    check(&bad, &["Route +a@1"]);
    check(&t.nack(&bad[0], "missing ): ("), &[]);
}
