//! What fills the store of facts from the world.
//!
//! *Takes* files (and, later, an API server, peers, probes). *Gives* batches of
//! [`crate::inputs::Change`] with findings, each source on its own channel.
//! *Invariants*: a first batch says when everything has been seen once; what
//! cannot be read deletes nothing; sources know nothing of each other and of
//! what is made of their facts. *To add one*: a file here, wired in `app`.

pub mod files;
