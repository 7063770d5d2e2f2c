//! A reply, written (RFC 1035 section 4.1, RFC 6891 section 6).

use super::{
    answer::SiteId,
    name::QueryName,
    query::{CD, CLASS_IN, Edns, HEADER_BYTES, Head, NSID, QR, Query, RD},
    rrl::Account,
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use std::net::IpAddr;

/// What we ever send over UDP: fits an IPv6 packet of 1,280 bytes unfragmented.
pub(super) const UDP_REPLY_BYTES_MAX: u16 = 1_232;
/// What any client can take over UDP (RFC 1035 section 4.2.1).
pub(super) const UDP_REPLY_BYTES_MIN: u16 = 512;
/// RFC 2181 section 8: larger values would be read as zero.
const TTL_S_MAX: u32 = i32::MAX as u32;
/// Bits of the header's third octet that we set.
const AA: u8 = 0x04;
const TC: u8 = 0x02;

/// Whose record it is: a place in the message where that name stands already.
#[derive(Clone, Copy)]
pub(super) struct Owner(usize);

impl Owner {
    /// The name asked for.
    pub(super) const QUESTION: Self = Self(HEADER_BYTES);

    /// The last labels of the name asked for, so that its case is echoed.
    pub(super) fn suffix(name: &QueryName, labels: usize) -> Self {
        Self(HEADER_BYTES + name.offset(labels))
    }
}

/// A zone's apex, as names in RDATA are shortened by it.
#[derive(Clone, Copy)]
pub(super) struct Apex<'z> {
    pub(super) wire: &'z [u8],
    pub(super) owner: Owner,
}

/// The numbers of an SOA, in seconds but for the serial.
pub(super) struct SoaNumbers {
    pub(super) serial: u32,
    pub(super) refresh: u32,
    pub(super) retry: u32,
    pub(super) expire: u32,
    pub(super) minimum: u32,
}

/// A reply under way. Sections are written in order; counts keep step.
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Answer, authority, additional.
    counts: [u16; 3],
    question_end: usize,
    required_end: usize,
}

impl Writer {
    /// A reply with a header only, for a query whose question cannot be read.
    pub(super) fn bare(head: Head) -> Self {
        let Head { id, opcode, rd, cd } = head;
        let mut bytes = Vec::with_capacity(usize::from(UDP_REPLY_BYTES_MIN));
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.push(QR | opcode << 3 | if rd { RD } else { 0 });
        bytes.push(if cd { CD } else { 0 });
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, counts: [0; 3], question_end: HEADER_BYTES, required_end: HEADER_BYTES }
    }

    /// A reply that repeats the question.
    pub(super) fn new(query: &Query<'_>) -> Self {
        let mut writer = Self::bare(query.head);
        writer.bytes[5] = 1;
        writer.bytes.extend_from_slice(query.question);
        writer.question_end = writer.bytes.len();
        writer.required_end = writer.question_end;
        writer
    }

    /// We are the authority for this answer.
    pub(super) fn authoritative(&mut self) {
        self.bytes[2] |= AA;
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn pointer(&mut self, to: Owner) {
        let at = u16::try_from(to.0).expect("names we point at stand in the first 16 KiB");
        self.u16(0xc000 | at);
    }

    fn record(&mut self, owner: Owner, kind: RecordType, ttl: u32, data: impl FnOnce(&mut Self)) {
        self.pointer(owner);
        self.u16(kind.into());
        self.u16(CLASS_IN);
        self.u32(ttl.min(TTL_S_MAX));
        let at = self.bytes.len();
        self.u16(0);
        data(self);
        let len = u16::try_from(self.bytes.len() - at - 2).expect("RDATA of ours is small");
        self.bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }

    /// A name in RDATA, shortened where it ends in the apex.
    fn name(&mut self, wire: &[u8], apex: Apex<'_>) {
        match prefix_before(wire, apex.wire) {
            Some(prefix) => {
                self.bytes.extend_from_slice(prefix);
                self.pointer(apex.owner);
            }
            None => self.bytes.extend_from_slice(wire),
        }
    }

    pub(super) fn address(&mut self, ttl: u32, address: IpAddr) {
        self.counts[0] += 1;
        self.any_address(Owner::QUESTION, ttl, address);
        self.required_end = self.bytes.len();
    }

    fn any_address(&mut self, owner: Owner, ttl: u32, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                self.record(owner, RecordType::A, ttl, |w| w.bytes.extend_from_slice(&v4.octets()));
            }
            IpAddr::V6(v6) => {
                self.record(owner, RecordType::AAAA, ttl, |w| w.bytes.extend_from_slice(&v6.octets()));
            }
        }
    }

    /// The one record that answers ANY (RFC 8482 section 4.2).
    pub(super) fn hinfo(&mut self, ttl: u32) {
        self.counts[0] += 1;
        self.record(Owner::QUESTION, RecordType::HINFO, ttl, |w| {
            w.bytes.extend_from_slice(b"\x07RFC8482\0");
        });
        self.required_end = self.bytes.len();
    }

    /// A name server of the apex asked for; gives where its name stands.
    pub(super) fn name_server(&mut self, ttl: u32, server: &[u8], apex: Apex<'_>) -> Owner {
        self.counts[0] += 1;
        self.record(Owner::QUESTION, RecordType::NS, ttl, |w| w.name(server, apex));
        let name = self.bytes.len() - rdata_name_len(server, apex.wire);
        self.required_end = self.bytes.len();
        Owner(name)
    }

    /// An address beside the answer, left out first when room is short.
    pub(super) fn glue(&mut self, owner: Owner, ttl: u32, address: IpAddr) {
        self.counts[2] += 1;
        self.any_address(owner, ttl, address);
    }

    /// The zone's SOA: in the answer, or in the authority section of a negative one.
    pub(super) fn soa(
        &mut self,
        section: Section,
        ttl: u32,
        apex: Apex<'_>,
        names: [&[u8]; 2],
        numbers: &SoaNumbers,
    ) {
        let SoaNumbers { serial, refresh, retry, expire, minimum } = *numbers;
        self.counts[section as usize] += 1;
        self.record(apex.owner, RecordType::SOA, ttl, |w| {
            names.into_iter().for_each(|name| w.name(name, apex));
            [serial, refresh, retry, expire, minimum].into_iter().for_each(|value| w.u32(value));
        });
        self.required_end = self.bytes.len();
    }

    /// Ends the reply so that it fits `limit` bytes: without what is only
    /// helpful, or else empty and marked truncated (RFC 2181 section 9).
    pub(super) fn finish(
        mut self,
        rcode: ResponseCode,
        edns: Option<&Edns>,
        site: &SiteId,
        limit: u16,
        account: Account,
    ) -> Reply {
        self.bytes[3] |= rcode.low();
        let opt_at = self.bytes.len();
        if let Some(edns) = edns {
            self.opt(rcode, edns, site);
        }
        let limit = usize::from(limit);
        if self.bytes.len() > limit {
            self.bytes.drain(self.required_end..opt_at);
            self.counts[2] = 0;
        }
        let Self { mut bytes, counts: [answer, authority, mut additional], question_end, .. } = self;
        let opt_bytes = edns.map_or(0, |edns| opt_len(edns, site));
        additional += u16::from(edns.is_some());
        for (at, count) in [(6, answer), (8, authority), (10, additional)] {
            bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        let mut reply = Reply { bytes, rcode, account, truncated: false, question_end, opt_bytes };
        if reply.bytes.len() > limit {
            reply.truncate();
        }
        reply
    }

    /// Our OPT, last in the message (RFC 6891 section 6.1.1: only for who sent one).
    fn opt(&mut self, rcode: ResponseCode, edns: &Edns, site: &SiteId) {
        self.bytes.push(0);
        self.u16(RecordType::OPT.into());
        self.u16(UDP_REPLY_BYTES_MAX);
        self.bytes.extend_from_slice(&[rcode.high(), 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
        let nsid = site.for_client(edns.nsid);
        match nsid {
            None => self.u16(0),
            Some(id) => {
                let len = u16::try_from(id.len()).expect("a site id is at most 64 octets");
                self.u16(len + 4);
                self.u16(NSID);
                self.u16(len);
                self.bytes.extend_from_slice(id);
            }
        }
    }
}

/// Where an SOA stands.
#[derive(Clone, Copy)]
pub(super) enum Section {
    Answer = 0,
    Authority = 1,
}

fn opt_len(edns: &Edns, site: &SiteId) -> usize {
    11 + site.for_client(edns.nsid).map_or(0, |id| 4 + id.len())
}

/// What stands before the apex in a name of its zone. Both are wire octets in
/// lower case; a suffix counts only where a label begins.
fn prefix_before<'n>(wire: &'n [u8], apex: &[u8]) -> Option<&'n [u8]> {
    let mut at = 0;
    while wire.len() - at > apex.len() {
        at += 1 + usize::from(wire[at]);
    }
    (wire[at..] == *apex).then(|| &wire[..at])
}

fn rdata_name_len(wire: &[u8], apex: &[u8]) -> usize {
    prefix_before(wire, apex).map_or(wire.len(), |prefix| prefix.len() + 2)
}

/// A reply, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message; over TCP its length goes before it.
    pub bytes: Vec<u8>,
    pub rcode: ResponseCode,
    /// What response rate limiting counts it as.
    pub account: Account,
    /// Whether TC is set: the client should ask again over TCP.
    pub truncated: bool,
    question_end: usize,
    opt_bytes: usize,
}

impl Reply {
    /// Leaves the question and the OPT, and asks the client to come back over
    /// TCP. A denial becomes a plain "come back", since it now proves nothing.
    pub fn truncate(&mut self) {
        let opt_at = self.bytes.len() - self.opt_bytes;
        self.bytes.drain(self.question_end.min(opt_at)..opt_at);
        self.bytes[2] |= TC;
        if self.rcode == ResponseCode::NXDomain {
            self.rcode = ResponseCode::NoError;
            self.bytes[3] &= 0xf0;
        }
        self.bytes[6..12].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(self.opt_bytes > 0)]);
        self.truncated = true;
    }
}
