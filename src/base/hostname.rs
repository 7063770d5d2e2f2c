//! Host names as DNS and HTTP know them, lower-case, without port or trailing dot.

use super::Text;
use serde::{Serialize, Serializer};
use std::fmt;

/// A fully qualified name: lower-case LDH labels of 1 to 63 octets, 253 in all
/// (RFC 1123 section 2.1). Never an IP address, never a wildcard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Text);

/// Why a text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    #[error("is empty")]
    Empty,
    #[error("is longer than 253 characters")]
    TooLong,
    #[error("has an empty label, or one longer than 63 characters")]
    BadLabel,
    #[error("has a character that a host name cannot hold (letters, digits and '-' inside a label)")]
    BadCharacter,
    #[error("is an IP address; a host is a DNS name")]
    IpAddress,
    #[error("has '*' elsewhere than as its whole first label")]
    BadWildcard,
}

impl Hostname {
    /// Parses a name; capitals are folded and one trailing dot is dropped.
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(HostnameError::Empty);
        }
        if text.len() > 253 {
            return Err(HostnameError::TooLong);
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Err(HostnameError::IpAddress);
        }
        for label in text.split('.') {
            check_label(label)?;
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label; nothing for a single label.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, rest)| Self(rest.into()))
    }
}

fn check_label(label: &str) -> Result<(), HostnameError> {
    if label.is_empty() || label.len() > 63 {
        return Err(HostnameError::BadLabel);
    }
    let inside = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !label.bytes().all(inside) || label.starts_with('-') || label.ends_with('-') {
        return Err(HostnameError::BadCharacter);
    }
    Ok(())
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Hostname {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What a table of routes answers for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host nothing else answers for.
    Default,
    /// This name.
    Exact(Hostname),
    /// Names with exactly one label before this one: an Ingress wildcard.
    OneLabel(Hostname),
    /// Names with one or more labels before this one: a Gateway API wildcard.
    AnyLabels(Hostname),
}

impl HostPattern {
    /// Parses a host of an Ingress: empty is [`HostPattern::Default`], and a
    /// leading `*.` covers one label (Kubernetes, Ingress, "Hostname wildcards").
    pub fn parse_ingress(text: &str) -> Result<Self, HostnameError> {
        if text.is_empty() {
            return Ok(Self::Default);
        }
        match text.strip_prefix("*.") {
            Some(rest) if rest.contains('*') => Err(HostnameError::BadWildcard),
            Some(rest) => Ok(Self::OneLabel(Hostname::parse(rest)?)),
            None if text.contains('*') => Err(HostnameError::BadWildcard),
            None => Ok(Self::Exact(Hostname::parse(text)?)),
        }
    }

    /// The key under which Envoy finds this table: `h.example.com`,
    /// `+.example.com`, `*.example.com` or `*` (see the scope walker of the
    /// Envoy module).
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Self::Default => "*".to_owned(),
            Self::Exact(name) => name.to_string(),
            Self::OneLabel(name) => format!("+.{name}"),
            Self::AnyLabels(name) => format!("*.{name}"),
        }
    }

    /// The name behind the wildcard label, or the exact name itself.
    #[must_use]
    pub fn hostname(&self) -> Option<&Hostname> {
        match self {
            Self::Default => None,
            Self::Exact(name) | Self::OneLabel(name) | Self::AnyLabels(name) => Some(name),
        }
    }

    /// Whether a concrete name falls under this pattern.
    #[must_use]
    pub fn covers(&self, name: &Hostname) -> bool {
        match self {
            Self::Default => true,
            Self::Exact(exact) => exact == name,
            Self::OneLabel(suffix) => {
                name.as_str().split_once('.').is_some_and(|(_, rest)| rest == suffix.as_str())
            }
            Self::AnyLabels(suffix) => name
                .as_str()
                .strip_suffix(suffix.as_str())
                .is_some_and(|head| head.len() > 1 && head.ends_with('.')),
        }
    }
}

/// As a user writes it: both wildcards print as `*.example.com`.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("*"),
            Self::Exact(name) => write!(f, "{name}"),
            Self::OneLabel(name) | Self::AnyLabels(name) => write!(f, "*.{name}"),
        }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scope())
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.scope())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, scope: Result<&str, HostnameError>) {
        assert_eq!(HostPattern::parse_ingress(text).map(|p| p.scope()), scope.map(str::to_owned));
    }

    #[test]
    fn ingress_hosts() {
        check("", Ok("*"));
        check("Shop.Example.COM", Ok("shop.example.com"));
        check("shop.example.com.", Ok("shop.example.com"));
        check("*.example.com", Ok("+.example.com"));
        check("*.*.example.com", Err(HostnameError::BadWildcard));
        check("a.*.example.com", Err(HostnameError::BadWildcard));
        check("*", Err(HostnameError::BadWildcard));
        check("10.0.0.1", Err(HostnameError::IpAddress));
        check("a..b", Err(HostnameError::BadLabel));
        check("a b", Err(HostnameError::BadCharacter));
        check("shop.example.com:80", Err(HostnameError::BadCharacter));
        check("bidi\u{202e}.example.com", Err(HostnameError::BadCharacter));
        check("nul\0.example.com", Err(HostnameError::BadCharacter));
        check(&"a.".repeat(200), Err(HostnameError::TooLong));
    }

    #[test]
    fn wildcards_cover_what_their_api_says() {
        let name = |text| Hostname::parse(text).expect("a name");
        let one = HostPattern::OneLabel(name("foo.com"));
        let any = HostPattern::AnyLabels(name("foo.com"));
        assert!(one.covers(&name("a.foo.com")) && any.covers(&name("a.foo.com")));
        assert!(!one.covers(&name("a.b.foo.com")) && any.covers(&name("a.b.foo.com")));
        assert!(!one.covers(&name("foo.com")) && !any.covers(&name("foo.com")));
        assert!(!any.covers(&name("xfoo.com")));
    }
}
