//! The config of `walk`: the protocol upgrades that its listener allows.
//!
//! Envoy decides on an upgrade before any filter runs and lets a request without a route pass, for
//! it expects a 404 next. On a host that the walker finds that would open every protocol to the
//! upstream, whatever the listener allows. So the walker repeats the listener's part of the
//! decision; the route's part is a route that matches the `upgrade` header.
//!
//! Words of `upgrade=name`, separated by white space, as in the listener's `upgrade_configs`.
#![forbid(unsafe_code)]

/// The upgrades that pass on a host that the walker found.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrades {
    allowed: Vec<String>,
}

impl Upgrades {
    /// Reads a config; the error names the word at fault.
    pub fn parse(config: &[u8]) -> Result<Upgrades, String> {
        let config = std::str::from_utf8(config).map_err(|error| error.to_string())?;
        let name = |word: &str| match word.split_once('=') {
            Some(("upgrade", name)) if !name.is_empty() => Ok(name.to_owned()),
            _ => Err(format!("`{word}` is not upgrade=name")),
        };
        let allowed = config.split_ascii_whitespace().map(name).collect::<Result<_, _>>()?;
        Ok(Upgrades { allowed })
    }

    /// Whether a request with these headers may go on: it is no upgrade, or one of ours.
    pub fn allow(&self, connection: &[u8], upgrade: &[u8]) -> bool {
        let asks = connection
            .split(|&byte| byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        let known = |name: &String| name.as_bytes().eq_ignore_ascii_case(upgrade);
        !asks || upgrade.is_empty() || self.allowed.iter().any(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_upgrades_pass() {
        let some = Upgrades::parse(b"upgrade=websocket upgrade=foo").expect("the config is right");
        let none = Upgrades::parse(b"").expect("the config is right");
        for (connection, upgrade, with, without) in [
            ("Upgrade", "websocket", true, false),
            ("keep-alive, upgrade", "WebSocket", true, false),
            ("upgrade", "FOO", true, false),
            ("upgrade", "bar", false, false),
            ("upgrade", "websocket, bar", false, false),
            // No upgrade: Envoy wants both headers.
            ("keep-alive", "bar", true, true),
            ("upgraded", "bar", true, true),
            ("upgrade", "", true, true),
            ("", "", true, true),
        ] {
            let got = [&some, &none].map(|list| list.allow(connection.as_bytes(), upgrade.as_bytes()));
            assert_eq!(got, [with, without], "{connection:?} {upgrade:?}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for config in [&b"websocket"[..], b"upgrade=", b"update=websocket", b"\xFF"] {
            assert!(Upgrades::parse(config).is_err(), "{config:?}");
        }
    }
}
