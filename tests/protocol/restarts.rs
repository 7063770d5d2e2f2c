//! A control plane that comes back knows less than the engines that ran on.

use crate::transcript::{Transcript, check, resource, resume};
use tidegate::xds::ResourceKind::*;

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
