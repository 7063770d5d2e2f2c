//! Turns for what is costly while a fleet connects at once: TLS handshakes and
//! first states. Whoever is connected already is served between them; the rest
//! wait in the order they came.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// Handshakes at once: about 1 ms of a core each.
const HANDSHAKES_MAX: usize = 128;
/// A handshake that takes longer waits for its peer, and costs nothing meanwhile:
/// peers that never finish hold up nobody.
const HANDSHAKE_TURN: Duration = Duration::from_millis(250);
/// Engines at once that take up their first state. Each may have a response of
/// 1 MiB a kind on its way, in a buffer of its own.
const BOOTS_MAX: usize = 64;
/// An engine whose first state takes longer goes on without its turn.
const BOOT_TURN: Duration = Duration::from_secs(5);
/// An engine asks kind by kind: it has its first state when it was in sync, and
/// silent, for so long.
const BOOT_QUIET: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub(super) struct Admission {
    handshakes: Arc<Semaphore>,
    boots: Arc<Semaphore>,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            boots: Arc::new(Semaphore::new(BOOTS_MAX)),
        }
    }

    /// Runs a handshake when its turn comes.
    pub(super) async fn handshake<T>(&self, handshake: impl Future<Output = T>) -> T {
        let turn = self.handshakes.clone().acquire_owned().await.ok();
        let mut handshake = pin!(handshake);
        tokio::select! {
            done = &mut handshake => return done,
            () = sleep(HANDSHAKE_TURN) => drop(turn),
        }
        handshake.await
    }

    /// The turn to take up a first state.
    pub(super) async fn boot(&self, now: impl Fn() -> Instant) -> Boot {
        let turn = self.boots.clone().acquire_owned().await.ok();
        Boot { turn, end: now() + BOOT_TURN, quiet: None }
    }
}

/// Given back when it is over.
#[derive(Debug)]
pub(super) struct Boot {
    turn: Option<OwnedSemaphorePermit>,
    end: Instant,
    quiet: Option<Instant>,
}

impl Boot {
    /// After each step of the session; returns when to look again.
    pub(super) fn follow(&mut self, synced: bool, moved: bool, now: Instant) -> Option<Instant> {
        self.turn.as_ref()?;
        if moved || !synced {
            self.quiet = None;
        }
        let quiet = synced.then(|| *self.quiet.get_or_insert(now + BOOT_QUIET));
        let end = quiet.map_or(self.end, |quiet| quiet.min(self.end));
        if end <= now {
            self.turn = None;
            return None;
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a start to count from")]
    async fn a_turn_ends_with_quiet_or_with_its_time() {
        let admission = Admission::new();
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut boot = admission.boot(|| start).await;
        assert_eq!(admission.boots.available_permits(), BOOTS_MAX - 1);
        assert_eq!(boot.follow(false, true, ms(10)), Some(ms(5_000)));
        assert_eq!(boot.follow(true, true, ms(20)), Some(ms(40)));
        // Another kind is asked for.
        assert_eq!(boot.follow(false, true, ms(30)), Some(ms(5_000)));
        assert_eq!(boot.follow(true, true, ms(150)), Some(ms(170)));
        assert_eq!(boot.follow(true, false, ms(160)), Some(ms(170)));
        assert_eq!(boot.follow(true, false, ms(170)), None);
        assert_eq!(admission.boots.available_permits(), BOOTS_MAX);

        let mut silent = admission.boot(|| start).await;
        assert_eq!(silent.follow(false, false, ms(5_000)), None);
        assert_eq!(admission.boots.available_permits(), BOOTS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_never_finish_hold_up_nobody() {
        let admission = Admission::new();
        let mut stuck = tokio::task::JoinSet::new();
        for _ in 0..3 * HANDSHAKES_MAX {
            let admission = admission.clone();
            stuck.spawn(async move { admission.handshake(std::future::pending::<()>()).await });
        }
        // One yield polls some of them.
        while admission.handshakes.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(admission.handshake(async { 7 }).await, 7);
    }
}
