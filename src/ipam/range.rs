//! Spans of addresses: read from a pool's text, kept sorted and apart. A span is
//! two ends, so that an IPv6 /64 costs what a single address does.

use serde::Serialize;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// IPv4 sorts before IPv6, as in [`IpAddr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Addresses of one family from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub first: IpAddr,
    /// Not below `first`, and of its family.
    pub last: IpAddr,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl Span {
    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many addresses; the whole of IPv6 counts as `u128::MAX`.
    #[must_use]
    pub fn count(self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }
}

/// What an entry of a pool covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Every address that is written.
    pub whole: Span,
    /// Those a host may have: without the network and broadcast address of an
    /// IPv4 CIDR shorter than /31 (RFC 3021 leaves /31 both of its addresses).
    pub usable: Span,
}

/// Longest text of one entry, in bytes: two IPv6 addresses, a dash and blanks.
const ENTRY_BYTES_MAX: usize = 128;

/// Reads `10.1.0.0/24`, `10.1.0.10-10.1.0.50` or `10.1.0.9`, of either family.
/// The error is a sentence without the field's name.
pub(super) fn parse_entry(text: &str) -> Result<Entry, String> {
    if text.len() > ENTRY_BYTES_MAX {
        return Err(format!(
            "longer than {ENTRY_BYTES_MAX} bytes; write one CIDR, range or address an entry"
        ));
    }
    let text = text.trim();
    if let Some((address, length)) = text.split_once('/') {
        return parse_cidr(address, length);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_address(first)?, parse_address(last)?);
    if Family::of(first) != Family::of(last) {
        return Err("a range begins and ends in one family: write IPv4 and IPv6 apart".to_owned());
    }
    if last < first {
        return Err(format!("the range ends before it begins: write {last}-{first}"));
    }
    let span = Span { first, last };
    Ok(Entry { whole: span, usable: span })
}

fn parse_cidr(address: &str, length: &str) -> Result<Entry, String> {
    let first = parse_address(address)?;
    let bits = bits(Family::of(first));
    let length: u32 = length
        .trim()
        .parse()
        .ok()
        .filter(|length| *length <= bits)
        .ok_or_else(|| format!("'/{length}' is no prefix length: 0 to {bits}"))?;
    let hosts = u128::MAX.checked_shr(128 - bits + length).unwrap_or(0);
    let network = number(first) & !hosts;
    if network != number(first) {
        let network = address_of(Family::of(first), network);
        return Err(format!("{first} is not where a /{length} begins: write {network}/{length}, or a range"));
    }
    let whole = Span { first, last: address_of(Family::of(first), network | hosts) };
    let usable = match (whole.first, whole.last) {
        (IpAddr::V4(network), IpAddr::V4(broadcast)) if length < 31 => Span {
            first: Ipv4Addr::from(u32::from(network) + 1).into(),
            last: Ipv4Addr::from(u32::from(broadcast) - 1).into(),
        },
        _ => whole,
    };
    Ok(Entry { whole, usable })
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("'{}' is no IP address", text.escape_debug()))
}

/// Why no pool may give these addresses; none where it may.
pub(super) fn refused(span: Span) -> Option<&'static str> {
    NEVER_VIPS
        .iter()
        .find(|(first, last, _)| span.overlaps(Span { first: *first, last: *last }))
        .map(|(_, _, why)| *why)
}

/// First, last, and why. Loopback is not here: a demo lives on 127.0.0.0/8.
const NEVER_VIPS: [(IpAddr, IpAddr, &str); 7] = [
    (v4(0, 0, 0, 0), v4(0, 255, 255, 255), "0.0.0.0/8 means 'this network' (RFC 1122)"),
    (v4(224, 0, 0, 0), v4(239, 255, 255, 255), "224.0.0.0/4 is multicast"),
    (v4(255, 255, 255, 255), v4(255, 255, 255, 255), "255.255.255.255 is broadcast"),
    (v6(0, 0), v6(0, 0), ":: means 'no address'"),
    (v6(0, 0xffff_0000_0000), v6(0, 0xffff_ffff_ffff), "::ffff:0:0/96 is IPv4 in disguise: write it as IPv4"),
    (v6(0xfe80 << 48, 0), v6((0xfec0 << 48) - 1, u64::MAX), "fe80::/10 is link-local: it needs an interface"),
    (v6(0xff00 << 48, 0), v6(u64::MAX, u64::MAX), "ff00::/8 is multicast"),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(high: u64, low: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits((high as u128) << 64 | low as u128))
}

/// Spans, sorted, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Spans in any order, also overlapping ones.
    #[must_use]
    pub fn new(mut spans: Vec<Span>) -> Self {
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if span.first <= last.last || after(last.last) == Some(span.first) => {
                    last.last = last.last.max(span.last);
                }
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    /// These without those.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut cuts = other.0.iter().copied().peekable();
        for span in &self.0 {
            let mut first = Some(span.first);
            while let (Some(from), Some(cut)) = (first, cuts.peek().copied()) {
                if cut.first > span.last {
                    break;
                }
                if cut.first > from {
                    let last = before(cut.first).expect("a cut that begins above another address");
                    rest.push(Span { first: from, last });
                }
                if cut.last >= from {
                    first = after(cut.last).filter(|next| cut.last < span.last && *next <= span.last);
                }
                if cut.last > span.last {
                    break;
                }
                cuts.next();
            }
            if let Some(first) = first {
                rest.push(Span { first, last: span.last });
            }
        }
        Self(rest)
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let after = self.0.partition_point(|span| span.first <= address);
        after > 0 && self.0[after - 1].last >= address
    }

    pub fn iter(&self) -> impl Iterator<Item = Span> {
        self.0.iter().copied()
    }

    /// Those of one family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = Span> {
        self.iter().filter(move |span| Family::of(span.first) == family)
    }

    /// How many addresses of one family; stops at `u128::MAX`.
    #[must_use]
    pub fn count(&self, family: Family) -> u128 {
        self.of(family).fold(0, |sum: u128, span| sum.saturating_add(span.count()))
    }
}

fn bits(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address_of(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::try_from(number).expect("an IPv4 address has 32 bits")).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

/// The next address of the family, if there is one.
pub(super) fn after(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_add(1)?).into(),
    })
}

/// The address before, of the same family, if there is one.
pub(super) fn before(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_sub(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_sub(1)?).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, usable: Result<&str, &str>) {
        match (parse_entry(text), usable) {
            (Ok(entry), Ok(usable)) => assert_eq!(entry.usable.to_string(), usable),
            (Err(error), Err(part)) => assert!(error.contains(part), "'{error}' has no '{part}'"),
            (got, wanted) => panic!("{text}: {got:?}, not {wanted:?}"),
        }
    }

    #[test]
    fn entries() {
        check("10.1.0.0/24", Ok("10.1.0.1-10.1.0.254"));
        check(" 10.1.0.0/31 ", Ok("10.1.0.0-10.1.0.1"));
        check("10.1.0.7/32", Ok("10.1.0.7"));
        check("0.0.0.0/0", Ok("0.0.0.1-255.255.255.254"));
        check("10.1.0.9 - 10.1.0.12", Ok("10.1.0.9-10.1.0.12"));
        check("10.1.0.9", Ok("10.1.0.9"));
        check("2001:db8::/120", Ok("2001:db8::-2001:db8::ff"));
        check("::/0", Ok("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        check("10.1.0.5/24", Err("write 10.1.0.0/24"));
        check("10.1.0.0/33", Err("0 to 32"));
        check("10.1.0.0/-1", Err("0 to 32"));
        check("2001:db8::/129", Err("0 to 128"));
        check("10.1.0.9-10.1.0.3", Err("write 10.1.0.3-10.1.0.9"));
        check("10.1.0.9-::1", Err("one family"));
        check("10.1.0", Err("no IP address"));
        check("", Err("no IP address"));
        check("10.1.0.1\0", Err("\\0"));
        check(&"1".repeat(4096), Err("longer than"));
    }

    #[test]
    fn what_is_no_vip() {
        let refused = |text| refused(parse_entry(text).expect("an entry").whole);
        for text in
            ["224.0.0.1", "0.0.0.0/0", "255.255.255.255", "ff02::1", "::", "fe80::/64", "::ffff:10.0.0.1"]
        {
            assert!(refused(text).is_some(), "{text}");
        }
        for text in ["127.80.0.0/24", "10.0.0.0/8", "2001:db8::/32", "fd00::/8", "::1"] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    fn spans(text: &str) -> Spans {
        let one = |text| parse_entry(text).expect("an entry").whole;
        Spans::new(text.split_whitespace().map(one).collect())
    }

    #[track_caller]
    fn check_without(these: &str, those: &str, rest: &str) {
        assert_eq!(spans(these).without(&spans(those)), spans(rest));
    }

    #[test]
    fn arithmetic_of_spans() {
        assert_eq!(spans("10.0.0.4-10.0.0.9 10.0.0.0/30 10.0.0.2"), spans("10.0.0.0-10.0.0.9"));
        assert_eq!(spans("::/0").count(Family::V6), u128::MAX);
        assert_eq!(spans("10.0.0.0/24 ::/64").count(Family::V4), 256);
        check_without("10.0.0.0/24", "10.0.0.5", "10.0.0.0-10.0.0.4 10.0.0.6-10.0.0.255");
        check_without("10.0.0.0/24", "10.0.0.0/25 10.0.0.255", "10.0.0.128-10.0.0.254");
        check_without("10.0.0.0/24", "0.0.0.0/0", "");
        check_without("10.0.0.1 10.0.0.3 10.0.0.5", "10.0.0.2-10.0.0.4", "10.0.0.1 10.0.0.5");
        check_without("10.0.0.0/30 10.0.1.0/30", "10.0.0.3-10.0.1.0", "10.0.0.0-10.0.0.2 10.0.1.1-10.0.1.3");
        check_without("::/0", "::/1", "8000::/1");
        check_without("255.255.255.0/24 ::/127", "255.255.255.255", "255.255.255.0-255.255.255.254 ::/127");
        assert!(spans("10.0.0.0/30 ::/64").contains(v6(0, 7)));
        assert!(!spans("10.0.0.0/30 ::/64").contains(v4(10, 0, 0, 4)));
    }
}
