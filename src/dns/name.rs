//! Names as they travel: length octet, label, ..., zero octet (RFC 1035 section 3.1).

use crate::base::{HostPattern, Hostname};

/// Octets of a whole name, the root's zero among them (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 255;
/// Labels of 1 octet, each with its length, fill a name.
const LABELS_MAX: usize = NAME_BYTES_MAX / 2;
const LABEL_BYTES_MAX: u8 = 63;

/// The name a query asks for, with capitals folded. Labels may hold any octet,
/// also dots, so a text would not do.
pub(super) struct QueryName {
    octets: [u8; NAME_BYTES_MAX],
    len: usize,
    /// Where each label's length octet is.
    starts: [u8; LABELS_MAX],
    labels: usize,
}

impl QueryName {
    /// Reads a name at the head of `bytes` and says how many octets it took.
    /// A compression pointer is refused: nothing stands before a question
    /// that it could honestly point at.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut name = Self { octets: [0; NAME_BYTES_MAX], len: 0, starts: [0; LABELS_MAX], labels: 0 };
        loop {
            let at = name.len;
            let length = *bytes.get(at)?;
            if length == 0 {
                name.len = at + 1;
                return Some((name, at + 1));
            }
            let end = at + 1 + usize::from(length);
            // `end` is where the next length octet must still fit.
            if length > LABEL_BYTES_MAX || end >= NAME_BYTES_MAX {
                return None;
            }
            let label = bytes.get(at + 1..end)?;
            name.starts[name.labels] = u8::try_from(at).expect("a name is at most 255 octets");
            name.labels += 1;
            name.octets[at] = length;
            for (folded, octet) in name.octets[at + 1..end].iter_mut().zip(label) {
                *folded = octet.to_ascii_lowercase();
            }
            name.len = end;
        }
    }

    /// How many labels it has, the root not counted.
    pub(super) fn labels(&self) -> usize {
        self.labels
    }

    /// The last `labels` labels and the root, as wire octets.
    pub(super) fn suffix(&self, labels: usize) -> &[u8] {
        &self.octets[self.offset(labels)..self.len]
    }

    /// Where the last `labels` labels begin.
    pub(super) fn offset(&self, labels: usize) -> usize {
        match labels {
            0 => self.len - 1,
            _ => usize::from(self.starts[self.labels - labels]),
        }
    }

    /// Its labels, the top level first.
    pub(super) fn top_down(&self) -> impl Iterator<Item = &[u8]> {
        self.starts[..self.labels].iter().rev().map(|&start| {
            let start = usize::from(start);
            &self.octets[start + 1..=start + usize::from(self.octets[start])]
        })
    }
}

/// The wire form of a host name.
pub(super) fn wire(name: &Hostname) -> Box<[u8]> {
    let mut octets = Vec::with_capacity(name.as_str().len() + 2);
    for label in name.as_str().split('.') {
        octets.push(u8::try_from(label.len()).expect("a label is at most 63 octets"));
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    octets.into()
}

/// The labels of a host name, the top level first.
pub(super) fn path(name: &Hostname) -> Vec<&[u8]> {
    name.as_str().rsplit('.').map(str::as_bytes).collect()
}

/// The label of a wildcard owner (RFC 4592 section 2.1.1).
pub(super) const WILDCARD: &[u8] = b"*";

/// The labels of the owner of a pattern's records, the top level first; nothing
/// for the default host, which has no name.
pub(super) fn owner(pattern: &HostPattern) -> Option<Vec<&[u8]>> {
    match pattern {
        HostPattern::Default => None,
        HostPattern::Exact(name) => Some(path(name)),
        HostPattern::OneLabel(name) | HostPattern::AnyLabels(name) => {
            let mut labels = path(name);
            labels.push(WILDCARD);
            Some(labels)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], folded: Option<&[u8]>) {
        let read = QueryName::read(bytes).map(|(name, _)| name.suffix(name.labels()).to_vec());
        assert_eq!(read.as_deref(), folded);
    }

    #[test]
    fn reads_what_rfc_1035_allows() {
        check(b"\0", Some(b"\0"));
        check(b"\x03FoO\x02Ab\0rest", Some(b"\x03foo\x02ab\0"));
        check(b"\x03a.b\0", Some(b"\x03a.b\0"));
        check(b"", None);
        check(b"\x03foo", None);
        check(b"\x03fo", None);
        check(b"\x40", None);
        check(b"\xc0\x0c", None);
        check(b"\x03foo\xc0\x0c", None);
        let full: Vec<u8> = [b"\x01a".repeat(127), vec![0]].concat();
        check(&full, Some(&full));
        check(&[b"\x01a".repeat(128), vec![0]].concat(), None);
        let odd = [b"\x01a".repeat(126), b"\x02aa\0".to_vec()].concat();
        check(&odd, None);
    }

    #[test]
    fn suffixes_and_labels() {
        let (name, taken) = QueryName::read(b"\x01a\x02bc\x03com\0tail").expect("a name");
        assert_eq!(taken, 10);
        assert_eq!(name.top_down().collect::<Vec<_>>(), [&b"com"[..], b"bc", b"a"]);
        assert_eq!(name.suffix(2), b"\x02bc\x03com\0");
        assert_eq!(name.suffix(0), b"\0");
        assert_eq!(name.offset(1), 5);
    }
}
