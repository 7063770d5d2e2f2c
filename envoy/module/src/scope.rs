//! Scope keys: the canonical form of a host, and the wildcards to try after it.
//!
//! Pure: bytes in, bytes out, no allocation. A host may be any bytes a client can put into a
//! header; nothing here trusts it to be a host name.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

/// Longest host we look at, in bytes. DNS allows 253; what is longer can have no scope.
pub const HOST_MAX: usize = 255;

/// Labels of the longest wildcard suffix that is tried, so also the steps of a walk before `*`.
///
/// `Host` is the client's choice and a step costs about a microsecond. Counted from the right end:
/// `*.example.com` is found below any number of labels, `*.<nine labels>` never.
pub const SUFFIX_LABELS_MAX: usize = 8;

/// The scope of last resort: the default backend of a listener.
pub const ANY: &[u8] = b"*";

/// First byte of keys that no scope has. Alone it is the key of a request without a usable host,
/// which therefore gets the default scope, or a 404.
const NEVER: u8 = b'=';

/// The `x-scope` of a host.
#[derive(Clone)]
pub struct Key {
    // One byte more than a host, for the mark.
    bytes: [u8; HOST_MAX + 1],
    len: usize,
}

impl Key {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A host as scopes are named: lower case, without port, without the root's dot.
///
/// An IPv6 literal keeps its brackets. A host that starts with a byte that only our own keys start
/// with (`*`, `+`, `=`) is marked, so that a client cannot name a wildcard's scope: it reaches
/// that wildcard as any other host below it does, by the walk and in its order.
pub fn canonical(authority: &[u8]) -> Key {
    let host = without_port(authority);
    let host = if host.len() > HOST_MAX { b"" } else { host };
    let mut key = Key { bytes: [0; HOST_MAX + 1], len: 0 };
    if matches!(host.first(), None | Some(b'*' | b'+' | &NEVER)) {
        key.bytes[0] = NEVER;
        key.len = 1;
    }
    let end = key.len + host.len();
    key.bytes[key.len..end].copy_from_slice(host);
    key.bytes[key.len..end].make_ascii_lowercase();
    key.len = end;
    key
}

/// The host part of `host`, `host:port`, `[v6]` or `[v6]:port`; empty where it is none of them.
fn without_port(authority: &[u8]) -> &[u8] {
    if authority.starts_with(b"[") {
        let Some(end) = authority.iter().position(|&byte| byte == b']') else {
            return b"";
        };
        let (literal, rest) = authority.split_at(end + 1);
        let is_port = rest.strip_prefix(b":").is_some_and(is_digits);
        return if rest.is_empty() || is_port { literal } else { b"" };
    }
    let host = match authority.iter().position(|&byte| byte == b':') {
        Some(colon) if is_digits(&authority[colon + 1..]) => &authority[..colon],
        // A second colon or letters: not a port. It stays, and so matches nothing.
        Some(_) | None => authority,
    };
    host.strip_suffix(b".").unwrap_or(host)
}

/// True of an empty port too: RFC 3986 allows `host:`.
fn is_digits(port: &[u8]) -> bool {
    port.iter().all(u8::is_ascii_digit)
}

/// The scopes to try when a host's own is missing, nearest first.
///
/// `+.<parent>` (one label below, Ingress) once, then `*.<parent>` (any depth, Gateway API),
/// `*.<grandparent>` and so on, last `*`. An IP literal has no parents.
///
/// The scopes are written over the host in place: a step overwrites only the end of a label that
/// no later step reads.
pub struct Steps {
    // One byte before the host, for the wildcard of a host that starts with a dot.
    bytes: [u8; HOST_MAX + 2],
    start: usize,
    end: usize,
    next: Next,
}

#[derive(Clone, Copy)]
enum Next {
    /// `+.` before the parent that starts here.
    OneLabel(usize),
    /// `*.` before the parent that starts here.
    AnyDepth(usize),
    Any,
    End,
}

impl Steps {
    /// Steps for a key as [`canonical`] made it. Nothing is tried yet: the key itself is current.
    pub fn new(key: &[u8]) -> Steps {
        let key = if key.len() > HOST_MAX + 1 { &[NEVER] } else { key };
        let mut steps = Steps { bytes: [0; HOST_MAX + 2], start: 1, end: key.len() + 1, next: Next::Any };
        steps.bytes[1..steps.end].copy_from_slice(key);
        if !is_ip_literal(key) {
            steps.next = steps.first();
        }
        steps
    }

    /// The scope that the last step gave; before the first step, the key.
    pub fn current(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The next scope to try.
    pub fn step(&mut self) -> Option<&[u8]> {
        match self.next {
            Next::OneLabel(parent) => {
                self.wildcard(b'+', parent);
                self.next = Next::AnyDepth(parent);
            }
            Next::AnyDepth(parent) => {
                self.wildcard(b'*', parent);
                self.next = self.parent(parent).map_or(Next::Any, Next::AnyDepth);
            }
            Next::Any => {
                self.start = 0;
                self.end = ANY.len();
                self.bytes[..ANY.len()].copy_from_slice(ANY);
                self.next = Next::End;
            }
            Next::End => return None,
        }
        Some(self.current())
    }

    fn first(&self) -> Next {
        let Some(mut parent) = self.parent(1) else {
            return Next::Any;
        };
        let dots = self.bytes[parent..self.end].iter().filter(|&&byte| byte == b'.').count();
        let skipped = (dots + 1).saturating_sub(SUFFIX_LABELS_MAX);
        if skipped == 0 {
            return Next::OneLabel(parent);
        }
        for _ in 0..skipped {
            match self.parent(parent) {
                Some(shorter) => parent = shorter,
                None => return Next::Any,
            }
        }
        Next::AnyDepth(parent)
    }

    /// Where the name after the next dot starts, if there is one.
    fn parent(&self, from: usize) -> Option<usize> {
        let dot = self.bytes[from..self.end].iter().position(|&byte| byte == b'.')?;
        let parent = from + dot + 1;
        (parent < self.end).then_some(parent)
    }

    fn wildcard(&mut self, sign: u8, parent: usize) {
        self.start = parent - 2;
        self.bytes[self.start] = sign;
    }
}

fn is_ip_literal(key: &[u8]) -> bool {
    key.starts_with(b"[") || std::str::from_utf8(key).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_canonical(rows: &[(&str, &str)]) {
        for (host, want) in rows {
            let key = canonical(host.as_bytes());
            assert_eq!(String::from_utf8_lossy(key.as_bytes()), *want, "host {host:?}");
        }
    }

    fn steps(key: &str) -> Vec<String> {
        let mut steps = Steps::new(key.as_bytes());
        let mut all = Vec::new();
        while let Some(scope) = steps.step() {
            all.push(String::from_utf8(scope.to_vec()).expect("the rows are text"));
        }
        all
    }

    #[test]
    fn a_host_is_lower_case_without_port_and_root_dot() {
        check_canonical(&[
            ("shop.example.com", "shop.example.com"),
            ("Shop.EXAMPLE.com", "shop.example.com"),
            ("shop.example.com:8443", "shop.example.com"),
            ("shop.example.com:", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("shop.example.com.:80", "shop.example.com"),
            ("shop.example.com..", "shop.example.com."),
            ("XN--Bcher-KVA.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
        ]);
    }

    #[test]
    fn ip_literals_lose_only_the_port() {
        check_canonical(&[
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("[2001:DB8::A]:443", "[2001:db8::a]"),
        ]);
    }

    #[test]
    fn what_is_no_host_gets_a_key_that_never_matches() {
        check_canonical(&[
            ("", "="),
            (".", "="),
            (":80", "="),
            ("[::1", "="),
            ("[::1]x", "="),
            ("[::1]:x", "="),
        ]);
    }

    #[test]
    fn a_colon_that_is_no_port_stays() {
        check_canonical(&[("::1", "::1"), ("a:b", "a:b"), ("a:1:2", "a:1:2")]);
    }

    #[test]
    fn a_client_cannot_name_our_own_keys() {
        check_canonical(&[
            ("*", "=*"),
            ("*.example.com", "=*.example.com"),
            ("+.example.com", "=+.example.com"),
            ("=", "=="),
        ]);
        assert_eq!(steps("=*.b.c"), ["+.b.c", "*.b.c", "*.c", "*"]);
    }

    #[test]
    fn bytes_that_are_not_ascii_stay_as_they_are() {
        let key = canonical(b"B\xC3\x9CCHER.example\xFF:80");
        assert_eq!(key.as_bytes(), b"b\xC3\x9Ccher.example\xFF");
        let mut steps = Steps::new(b"\xFF.\xFE.example");
        assert_eq!(steps.step(), Some(&b"+.\xFE.example"[..]));
    }

    #[test]
    fn the_longest_host_is_kept_and_a_longer_one_never_matches() {
        let longest = "*".repeat(HOST_MAX);
        let key = canonical(longest.as_bytes());
        assert_eq!(key.as_bytes().len(), HOST_MAX + 1);
        assert_eq!(Steps::new(key.as_bytes()).current(), key.as_bytes());
        check_canonical(&[(&"a".repeat(HOST_MAX + 1), "=")]);
        assert_eq!(steps(&"a.".repeat(40_000)), ["*"]);
    }

    #[test]
    fn one_label_first_then_every_parent_then_any() {
        assert_eq!(
            steps("a.b.example.com"),
            ["+.b.example.com", "*.b.example.com", "*.example.com", "*.com", "*"]
        );
        assert_eq!(steps("example.com"), ["+.com", "*.com", "*"]);
        assert_eq!(steps("localhost"), ["*"]);
        assert_eq!(steps("="), ["*"]);
        assert_eq!(steps(""), ["*"]);
    }

    #[test]
    fn empty_labels_do_no_harm() {
        assert_eq!(steps(".b.c"), ["+.b.c", "*.b.c", "*.c", "*"]);
        assert_eq!(steps("a..c"), ["+..c", "*..c", "*.c", "*"]);
        assert_eq!(steps("a."), ["*"]);
        assert_eq!(steps(".."), ["+..", "*..", "*"]);
    }

    #[test]
    fn ip_literals_have_no_parents() {
        assert_eq!(steps("10.0.0.1"), ["*"]);
        assert_eq!(steps("[2001:db8::1.2.3.4]"), ["*"]);
        assert_eq!(steps("10.0.0.com"), ["+.0.0.com", "*.0.0.com", "*.0.com", "*.com", "*"]);
    }

    #[test]
    fn the_walk_tries_eight_parents_at_most() {
        let eight = steps("a.1.2.3.4.5.6.7.8");
        assert_eq!(eight.len(), 1 + SUFFIX_LABELS_MAX + 1);
        assert_eq!(eight[0], "+.1.2.3.4.5.6.7.8");
        assert_eq!(eight[1], "*.1.2.3.4.5.6.7.8");

        // Nine labels below the first: the one-label wildcard is out of reach, the short
        // suffixes, which wildcards really have, are not.
        let nine = steps("a.0.1.2.3.4.5.6.7.8");
        assert_eq!(nine.len(), SUFFIX_LABELS_MAX + 1);
        assert_eq!(nine[0], "*.1.2.3.4.5.6.7.8");
        assert_eq!(nine[7..], ["*.8", "*"]);

        assert_eq!(steps(&["a"; 120].join(".")).len(), SUFFIX_LABELS_MAX + 1);
    }

    #[test]
    fn current_is_the_last_scope_given() {
        let mut steps = Steps::new(b"a.b.c");
        assert_eq!(steps.current(), b"a.b.c");
        steps.step();
        assert_eq!(steps.current(), b"+.b.c");
        while steps.step().is_some() {}
        assert_eq!(steps.current(), ANY);
    }
}
