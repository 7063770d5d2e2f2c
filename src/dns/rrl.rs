//! Response rate limiting: what keeps us from being a lever against a third
//! party whose address an attacker writes on his queries.
//!
//! A fixed table of one word a slot; the clock is an argument. Each slot is a
//! generic cell rate algorithm: it holds the time by which all that was sent
//! would have been due, at the even rate. So a second's worth may go at once.

use ipnetwork::IpNetwork;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// Slots of the table: 1 MiB in all, whatever comes.
const SLOTS: usize = 1 << 17;
/// Slots a key may be in.
const WAYS: usize = 4;
/// The unit of time in the table: 44 bits of it are 55 years of uptime.
const TICK: Duration = Duration::from_micros(100);
const TICKS_A_SECOND: u64 = 10_000;
/// A slot: 20 bits that tell keys apart, and 44 bits of ticks.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// What a response counts as. The number stands for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// Data, or "no data", of one name; all names of a wildcard are one.
    Name(u64),
    /// "No such name" in one zone: random names below it are one.
    NoSuchName(u64),
    /// Any refusal.
    Error,
}

/// Responses a second that one client prefix (/24 or /56) gets for one [`Account`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub names: u32,
    pub no_such_names: u32,
    pub errors: u32,
    /// Every so many limited responses one goes out truncated, so that a real
    /// client behind the prefix can come over TCP. 0: never.
    pub slip: u32,
    /// Sources that are not limited. The machine itself by default: its addresses
    /// cannot be forged from outside, and all its clients are one prefix.
    pub exempt: Vec<IpNetwork>,
}

impl Default for Limits {
    fn default() -> Self {
        let loopback = |address: IpAddr, bits| IpNetwork::new(address, bits).expect("a valid prefix");
        Self {
            names: 20,
            no_such_names: 5,
            errors: 5,
            slip: 2,
            exempt: vec![
                loopback([127, 0, 0, 0].into(), 8),
                loopback(std::net::Ipv6Addr::LOCALHOST.into(), 128),
            ],
        }
    }
}

/// What to do with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Send,
    /// Send it truncated.
    Slip,
    Drop,
}

/// A client's network, which is what an attacker can choose addresses in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Prefix {
    V4([u8; 3]),
    V6([u8; 7]),
}

impl Prefix {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}

/// The table; shared by all sockets without a lock.
pub struct RateLimiter {
    limits: Limits,
    seed: u64,
    slots: Box<[AtomicU64]>,
    limited: AtomicU32,
}

impl RateLimiter {
    /// `seed` keeps strangers from choosing which keys share a slot.
    #[must_use]
    pub fn new(limits: Limits, seed: u64) -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { limits, seed, slots, limited: AtomicU32::new(0) }
    }

    /// Whether this source is never limited.
    #[must_use]
    pub fn exempts(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.limits.exempt.iter().any(|network| network.contains(source))
    }

    /// Judges one response. `now` is the time since any fixed moment.
    pub fn check(&self, now: Duration, source: IpAddr, account: Account) -> Verdict {
        if self.exempts(source) {
            return Verdict::Send;
        }
        let rate = match account {
            Account::Name(_) => self.limits.names,
            Account::NoSuchName(_) => self.limits.no_such_names,
            Account::Error => self.limits.errors,
        };
        if self.take(ticks(now), self.key(source, account), u64::from(rate)) {
            return Verdict::Send;
        }
        let nth = self.limited.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        match self.limits.slip {
            0 => Verdict::Drop,
            slip if nth.is_multiple_of(slip) => Verdict::Slip,
            _ => Verdict::Drop,
        }
    }

    fn key(&self, source: IpAddr, account: Account) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, Prefix::of(source), account).hash(&mut hasher);
        hasher.finish()
    }

    fn take(&self, now: u64, key: u64, rate: u64) -> bool {
        let Some(interval) = TICKS_A_SECOND.checked_div(rate) else { return false };
        let slot = self.slot(now, key);
        let mine = |word: u64| word & !TIME_MASK == key & !TIME_MASK;
        let spend = |word: u64| {
            let due = if mine(word) { (word & TIME_MASK).max(now) } else { now };
            let next = due + interval;
            (next - now <= TICKS_A_SECOND).then_some(key & !TIME_MASK | next & TIME_MASK)
        };
        slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    /// The key's own slot, else the one of its set that has been idle longest.
    fn slot(&self, now: u64, key: u64) -> &AtomicU64 {
        let sets = (SLOTS / WAYS) as u64;
        let set = usize::try_from(key % sets).expect("less than the table") * WAYS;
        let ways = &self.slots[set..set + WAYS];
        let rank = |slot: &&AtomicU64| {
            let word = slot.load(Ordering::Relaxed);
            let own = word & !TIME_MASK == key & !TIME_MASK && word & TIME_MASK > now;
            (!own, word & TIME_MASK)
        };
        ways.iter().min_by_key(rank).expect("a set has slots")
    }
}

fn ticks(now: Duration) -> u64 {
    u64::try_from(now.as_micros() / TICK.as_micros()).unwrap_or(TIME_MASK) & TIME_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Drop, Send, Slip};

    fn limiter(limits: Limits) -> RateLimiter {
        RateLimiter::new(limits, 7)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many of `n` responses at one moment are sent in full.
    fn sent(limiter: &RateLimiter, now_ms: u64, source: &str, account: Account, n: usize) -> usize {
        let now = Duration::from_millis(now_ms);
        (0..n).filter(|_| limiter.check(now, ip(source), account) == Send).count()
    }

    #[test]
    fn a_seconds_worth_at_once_then_an_even_rate() {
        let limiter = limiter(Limits::default());
        let name = Account::Name(1);
        assert_eq!(sent(&limiter, 1_000, "192.0.2.1", name, 100), 20);
        assert_eq!(sent(&limiter, 1_049, "192.0.2.1", name, 100), 0);
        assert_eq!(sent(&limiter, 1_050, "192.0.2.1", name, 100), 1);
        assert_eq!(sent(&limiter, 1_550, "192.0.2.1", name, 100), 10);
        assert_eq!(sent(&limiter, 60_000, "192.0.2.1", name, 100), 20);
        assert_eq!(sent(&limiter, 60_000, "198.51.100.1", Account::NoSuchName(1), 100), 5);
        assert_eq!(sent(&limiter, 60_000, "198.51.100.1", Account::Error, 100), 5);
    }

    #[test]
    fn counts_by_prefix_and_account() {
        let limiter = limiter(Limits::default());
        let rows = [
            ("192.0.2.1", Account::Name(1), 20),
            ("192.0.2.200", Account::Name(1), 0),
            ("::ffff:192.0.2.9", Account::Name(1), 0),
            ("192.0.2.1", Account::Name(2), 20),
            ("192.0.3.1", Account::Name(1), 20),
            ("2001:db8:0:100::1", Account::Name(1), 20),
            ("2001:db8:0:1ff::1", Account::Name(1), 0),
            ("2001:db8:0:200::1", Account::Name(1), 20),
        ];
        for (source, account, expected) in rows {
            assert_eq!(sent(&limiter, 0, source, account, 50), expected, "{source} {account:?}");
        }
    }

    #[test]
    fn slips_every_second_one() {
        let verdicts = |slip| {
            let limiter = limiter(Limits { errors: 1, slip, ..Limits::default() });
            let check = || limiter.check(Duration::ZERO, ip("192.0.2.1"), Account::Error);
            [check(), check(), check(), check(), check()]
        };
        assert_eq!(verdicts(2), [Send, Drop, Slip, Drop, Slip]);
        assert_eq!(verdicts(1), [Send, Slip, Slip, Slip, Slip]);
        assert_eq!(verdicts(0), [Send, Drop, Drop, Drop, Drop]);
    }

    #[test]
    fn loopback_is_exempt_unless_told_otherwise() {
        let default = limiter(Limits::default());
        assert_eq!(sent(&default, 0, "127.80.0.1", Account::Error, 1_000), 1_000);
        assert_eq!(sent(&default, 0, "::ffff:127.0.0.1", Account::Error, 1_000), 1_000);
        assert_eq!(sent(&default, 0, "::1", Account::Error, 1_000), 1_000);
        let strict = limiter(Limits { exempt: Vec::new(), ..Limits::default() });
        assert_eq!(sent(&strict, 0, "127.80.0.1", Account::Error, 1_000), 5);
        let none = limiter(Limits { errors: 0, ..Limits::default() });
        assert_eq!(sent(&none, 0, "192.0.2.1", Account::Error, 10), 0);
    }

    /// A flood of forged sources cannot grow the table, and what it displaces is
    /// what has been quiet longest.
    #[test]
    fn a_flood_of_sources_leaves_the_busy_ones_limited() {
        let limiter = limiter(Limits::default());
        assert_eq!(sent(&limiter, 0, "192.0.2.1", Account::Name(1), 50), 20);
        for source in 0..50_000_u32 {
            let forged = IpAddr::from((0x0a00_0000 + (source << 8)).to_be_bytes());
            limiter.check(Duration::ZERO, forged, Account::Name(1));
        }
        assert_eq!(sent(&limiter, 0, "192.0.2.1", Account::Name(1), 50), 0);
    }
}
