//! Places where a test has this process die, as by kill -9.
//!
//! *Takes* `TIDEGATE_FAILPOINT=PLACE` or `PLACE:N`. *Gives* an end of the process at
//! the N-th pass of that place: no destructor, no flush. *Invariants*: a release build
//! has none of it; a place is passed by one line and decides nothing. *To add one*: a
//! row of [`PLACES`], and [`pass`] where it is; `tests/faults/kill.rs` then tries it.

/// All places, in the order of a start and of a change.
pub const PLACES: [&str; 32] = [
    "store.create",
    "store.renamed",
    "store.marked",
    "authority.key",
    "authority.certificate",
    "ledger.opened",
    "xds.listening",
    "engine.launch",
    "engine.unrecorded",
    "engine.recorded",
    "up.unsaid",
    "up.said",
    "source.batch",
    "source.sent",
    "batch.came",
    "batch.taken",
    "ledger.before",
    "ledger.transaction",
    "ledger.committed",
    "ledger.after",
    "plan.written",
    "publish.before",
    "publish.resources",
    "publish.after",
    "remember.before",
    "remember.after",
    "request.taken",
    "answer.accepted",
    "answer.refused",
    "response.sent",
    "last-good.before",
    "last-good.after",
];

/// Places of `tidegate engine` alone; it passes those of its own server too.
pub const ENGINE_PLACES: [&str; 6] =
    ["part.came", "part.kept", "part.published", "complete.kept", "refusal.kept", "answers.given"];

/// Ends the process here if a test asked for it.
#[inline]
pub fn pass(place: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(place);
    #[cfg(not(debug_assertions))]
    let _ = place;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    struct Armed {
        place: String,
        /// Passes until the end.
        left: AtomicU32,
    }

    pub(super) fn pass(place: &'static str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let known = super::PLACES.contains(&place) || super::ENGINE_PLACES.contains(&place);
        debug_assert!(known, "{place} is in no list");
        let Some(armed) = ARMED.get_or_init(read) else { return };
        if armed.place == place && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test speaks to this room alone")]
    fn read() -> Option<Armed> {
        let text = std::env::var("TIDEGATE_FAILPOINT").ok()?;
        let (place, passes) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Armed { place: place.to_owned(), left: AtomicU32::new(passes.parse().ok()?) })
    }
}
