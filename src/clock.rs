//! The one place that asks the machine what time it is.
//!
//! *Takes* nothing. *Gives* the wall clock for what is written down and shown,
//! and the monotonic clock for deadlines. *Invariants*: every pure room is
//! given its `now`. *To add one*: don't; take an argument.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970-01-01 UTC, for certificates, serials and what users read.
/// It may step back when the machine's clock is set; never measure with it.
#[must_use]
pub fn now_unix() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        // A machine without a battery clock may boot before 1970.
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

/// A point on the clock that only runs forward, for deadlines and measures.
#[must_use]
pub fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    Instant::now()
}

/// How long this process has run since it first asked, on the clock that only runs
/// forward: for measures that are sums.
#[must_use]
pub fn running() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(instant);
    instant().duration_since(start)
}

/// Sleeps until a point on the wall clock has passed: looks again at least once a
/// minute, since that clock may be set.
pub async fn sleep_until(unix: i64) {
    loop {
        let left = unix.saturating_sub(now_unix());
        match u64::try_from(left) {
            Ok(seconds) if seconds > 0 => tokio::time::sleep(Duration::from_secs(seconds.min(60))).await,
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clock_is_past_the_day_this_was_written() {
        assert!(now_unix() > 1_700_000_000);
    }

    #[test]
    fn instants_do_not_run_back() {
        let first = instant();
        assert!(instant() >= first);
    }
}
