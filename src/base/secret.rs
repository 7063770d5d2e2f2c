//! A value that cannot print.

use serde::{Serialize, Serializer};
use std::fmt;

/// Holds what must not reach a log, a status or a dump. `Debug`, `Display` and
/// `Serialize` give a placeholder; [`Secret::expose`] is the one way in, so that
/// a search for it finds every use.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself: only for what hands it to its user.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

const PLACEHOLDER: &str = "[secret]";

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

impl<T> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(PLACEHOLDER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_print() {
        let key = Secret::new("canary");
        let all = format!("{key} {key:?} {}", serde_json::to_string(&key).expect("json"));
        assert!(!all.contains("canary"));
    }
}
