//! What hostile input must not do, one function an entrance: libFuzzer calls them
//! (`make fuzz`), and a bounded run of mutations does in every test (`tests/fuzz.rs`).
#![allow(unreachable_pub, reason = "a library here, a module of tests/fuzz.rs there")]

mod dns;
mod road;
mod session;

pub use dns::dns;
pub use road::{road, world, yaml};
pub use session::session;
