//! Known bugs, planted to show that the seeded simulation finds them.
//!
//! *Takes* the feature `planted`, which no build has unless it is asked for and
//! a release build refuses, and a [`Bug`] that a test picks for its own thread.
//! *Gives* [`is`], one question at each place where a bug goes in. *Invariants*:
//! without the feature [`is`] is a constant `false`, and nothing of this is in
//! the program. *To add one*: a variant, its one line where it does harm, and
//! the test in `tests/simulation/planted.rs` finds it or fails.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` breaks the program on purpose: it is for tests alone");

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A route is sent while its cluster is not accepted yet.
    RouteBeforeCluster,
    /// A cluster that changes is not followed by its endpoints.
    EndpointsNotSentAgain,
    /// What is no longer published is removed although it may be needed.
    RemovalAtOnce,
    /// An address that was released is free at once.
    NoQuarantine,
    /// Half of a first list is published.
    PublishBeforeSync,
    /// A version that an engine refused is sent again.
    RefusedSentAgain,
    /// A VIP is announced before the ledger has it.
    AnnounceBeforeWrite,
}

impl Bug {
    pub const ALL: [Self; 7] = [
        Self::RouteBeforeCluster,
        Self::EndpointsNotSentAgain,
        Self::RemovalAtOnce,
        Self::NoQuarantine,
        Self::PublishBeforeSync,
        Self::RefusedSentAgain,
        Self::AnnounceBeforeWrite,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted on this thread.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Nothing is planted in this build.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

/// Plants a bug on this thread, in place of the one before.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
