//! Real faults with real parts: what a client asks all the while is answered all the
//! while, whatever breaks behind it.
//!
//! `TIDEGATE_FAULT_ROUNDS=N` does all of it N times as long.

mod support;

#[path = "faults/away.rs"]
mod away;
#[path = "faults/cuts.rs"]
mod cuts;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/edits.rs"]
mod edits;
#[path = "faults/engine.rs"]
mod engine;
#[path = "faults/envoys.rs"]
mod envoys;
#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/proxy.rs"]
mod proxy;
#[path = "faults/readers.rs"]
mod readers;
#[path = "faults/rotation.rs"]
mod rotation;
#[path = "faults/storm.rs"]
mod storm;

/// How often a fault is tried: `usual`, or as many times that as was asked for.
#[expect(clippy::disallowed_methods, reason = "how long to try is for whoever runs the tests")]
fn rounds(usual: usize) -> usize {
    let times = std::env::var("TIDEGATE_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok());
    usual * times.unwrap_or(1)
}

/// A small generator, so that a failure can be had again.
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
