//! The embedded DNS server: it answers for the zones it is given, and for nothing else.
//!
//! *Takes* [`Zone`](crate::ir::Zone)s and [`RecordSet`](crate::ir::RecordSet)s, one change at a
//! time, and DNS messages from the network. *Gives* authoritative answers over UDP and TCP, and
//! zone serials for the store to keep. *Invariants*: never recurses, never forwards, never
//! transfers a zone; a change costs what changed, not what is there; a UDP reply never exceeds
//! 1,232 bytes; everything but the two socket loops is pure (no clock, no lock). Knows nothing of
//! Kubernetes, files or Envoy. *To add one* (a record type): its data in `zones`, its row in
//! `answer`, its RDATA in `reply`.
//!
//! `query` reads and `reply` writes the messages, not hickory-proto, which gives the code points:
//! a reply repeats the question byte for byte (so the case of the name comes back by itself), has
//! six possible record shapes, and must not be able to fail or to cost more for a hostile
//! message than for an honest one. The tests read every reply with hickory-proto.

mod answer;
mod counters;
mod name;
mod provider;
mod query;
mod reply;
mod responder;
mod rrl;
mod tree;
mod zones;

pub use answer::{SiteId, Transport, answer};
pub use counters::{Counters, Sample};
pub use provider::Publish;
pub use reply::Reply;
pub use responder::{BindError, Options, Responder, SharedZones};
pub use rrl::{Account, Limits, RateLimiter, Verdict};
pub use zones::{ZoneSerial, Zones};
