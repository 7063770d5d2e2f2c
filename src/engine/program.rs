//! What a supervisor keeps alive: a stock Envoy, or the engine process around one.

use super::EngineError;
use rustix::process::Signal;
use serde::{Serialize, de::DeserializeOwned};
use std::{ffi::OsStr, fmt::Debug, future::Future, io, path::Path, process::Command, time::Duration};

/// What a program says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// It does its work; not so while it waits for its first configuration, or drains.
    pub live: bool,
    /// Which process says so, where that is told.
    pub pid: Option<u32>,
}

/// See the module.
pub trait Program: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// From SIGTERM to SIGKILL.
    const KILL_AFTER: Duration;
    /// Its stdout and its stderr, in its folder.
    const LOGS: (&'static str, &'static str);

    /// Letters, digits, `-` and `_`; its folder bears it.
    fn name(&self) -> &str;

    /// Finds what cannot be supervised.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn check(&self) -> Result<(), EngineError>;

    fn path(&self) -> &Path;

    /// Adds arguments and environment.
    fn arrange(&self, command: &mut Command);

    /// Two arguments in a row that no other process was given.
    fn mark(&self) -> [&OsStr; 2];

    /// All that it runs as one word: equal on both sides of a restart of ours, or the process
    /// has to be replaced.
    ///
    /// # Errors
    /// A file of it cannot be read.
    fn content(&self) -> io::Result<String>;

    /// Asks it how it is; none: it does not answer.
    fn ready(&self) -> impl Future<Output = Option<Ready>> + Send;

    /// How it is told to end its work by itself, for good or to make room for another; none for
    /// one that has to be drained.
    fn quit(&self, replaced: bool) -> Option<Signal>;

    /// Lets the open work end.
    fn drain(&self, drain_for: Duration) -> impl Future<Output = ()> + Send;

    /// It is gone: what it left lying is removed.
    fn gone(&self);
}
