//! A query, read (RFC 1035 section 4.1, RFC 6891 section 6.1).

use super::name::QueryName;
use hickory_proto::{op::ResponseCode, rr::RecordType};

pub(super) const HEADER_BYTES: usize = 12;
/// The class of the Internet; the only one we serve.
pub(super) const CLASS_IN: u16 = 1;
/// OPT option code of NSID (RFC 5001).
pub(super) const NSID: u16 = 3;

/// Bits of the header's third and fourth octet that a query has.
pub(super) const QR: u8 = 0x80;
pub(super) const RD: u8 = 0x01;
pub(super) const CD: u8 = 0x10;

/// What a reply repeats of its query's header.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) id: u16,
    pub(super) opcode: u8,
    pub(super) rd: bool,
    pub(super) cd: bool,
}

/// A query of opcode QUERY with one question.
pub(super) struct Query<'q> {
    pub(super) head: Head,
    /// The question as it came: name, type, class.
    pub(super) question: &'q [u8],
    pub(super) name: QueryName,
    pub(super) kind: RecordType,
    pub(super) class: u16,
    pub(super) edns: Option<Edns>,
}

/// The query's OPT record (RFC 6891 section 6.1).
pub(super) struct Edns {
    pub(super) version: u8,
    pub(super) udp_bytes: u16,
    pub(super) dnssec_ok: bool,
    /// The client asks for the server's identity.
    pub(super) nsid: bool,
}

/// Octets not yet read; every read may find that there are none left.
struct Cursor<'q>(&'q [u8]);

impl<'q> Cursor<'q> {
    fn take(&mut self, len: usize) -> Option<&'q [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|octet| octet[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// Steps over a name without following its pointers; says whether it was the root.
    fn skip_name(&mut self) -> Option<bool> {
        let mut root = true;
        loop {
            match self.u8()? {
                0 => return Some(root),
                length @ 1..=63 => {
                    self.take(usize::from(length))?;
                }
                64..=191 => return None,
                192..=255 => {
                    self.u8()?;
                    return Some(false);
                }
            }
            root = false;
        }
    }
}

/// Reads a message, in one pass over its octets. Nothing: it deserves no reply,
/// having no header, or being a response itself (answering could start a loop).
/// An error: there is a header to answer, and this to say.
pub(super) fn receive(message: &[u8]) -> Option<Result<Query<'_>, (Head, ResponseCode)>> {
    let (header, body) = message.split_at_checked(HEADER_BYTES)?;
    if header[2] & QR != 0 {
        return None;
    }
    let head = Head {
        id: u16::from_be_bytes([header[0], header[1]]),
        opcode: header[2] >> 3 & 0x0f,
        rd: header[2] & RD != 0,
        cd: header[3] & CD != 0,
    };
    if head.opcode != 0 {
        return Some(Err((head, ResponseCode::NotImp)));
    }
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let query = match count(4) {
        1 => read_query(head, body, count(6) + count(8), count(10)),
        _ => None,
    };
    Some(query.ok_or((head, ResponseCode::FormErr)))
}

/// Reads what follows the header; nothing when it breaks off or goes on too long.
fn read_query(head: Head, body: &[u8], records: usize, additional: usize) -> Option<Query<'_>> {
    let (name, taken) = QueryName::read(body)?;
    let mut rest = Cursor(&body[taken..]);
    let (kind, class) = (RecordType::from(rest.u16()?), rest.u16()?);
    let question = &body[..taken + 4];
    for _ in 0..records {
        // An OPT record belongs in the additional section alone.
        if read_record(&mut rest)?.is_some() {
            return None;
        }
    }
    let mut edns = None;
    for _ in 0..additional {
        match read_record(&mut rest)? {
            Some(_) if edns.is_some() => return None,
            Some(opt) => edns = Some(opt),
            None => {}
        }
    }
    rest.0.is_empty().then_some(Query { head, question, name, kind, class, edns })
}

/// Steps over one record; gives it if it is an OPT.
fn read_record(rest: &mut Cursor<'_>) -> Option<Option<Edns>> {
    let root = rest.skip_name()?;
    let (kind, class) = (RecordType::from(rest.u16()?), rest.u16()?);
    let (_extended_rcode, version, flags) = (rest.u8()?, rest.u8()?, rest.u16()?);
    let len = rest.u16()?;
    let data = rest.take(usize::from(len))?;
    if kind != RecordType::OPT {
        return Some(None);
    }
    if !root {
        return None;
    }
    // What options look like in another version is not ours to know.
    let nsid = version == 0 && asks_nsid(data)?;
    Some(Some(Edns { version, udp_bytes: class, dnssec_ok: flags & 0x8000 != 0, nsid }))
}

/// Whether NSID is among the options; nothing when they break off.
fn asks_nsid(options: &[u8]) -> Option<bool> {
    let mut rest = Cursor(options);
    let mut found = false;
    while !rest.0.is_empty() {
        let (code, len) = (rest.u16()?, rest.u16()?);
        rest.take(usize::from(len))?;
        found |= code == NSID;
    }
    Some(found)
}
