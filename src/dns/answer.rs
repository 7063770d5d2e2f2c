//! One query in, one reply out: what an authoritative server must say.

use super::{
    name::QueryName,
    query::{self, Query},
    reply::{self, Apex, Owner, Reply, Section, SoaNumbers, Writer},
    rrl::Account,
    tree::{Found, Node, Place, Records},
    zones::{ZoneState, Zones},
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use std::net::IpAddr;

/// Addresses in one answer: more would not fit a TCP message with AAAA.
const ADDRESSES_MAX: usize = 2_000;
/// Leaves room for any question in a reply of 512 bytes.
const SITE_ID_BYTES_MAX: usize = 64;

/// What a query came over, and so how large its reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The name of this site, told to who asks for it (NSID, RFC 5001). Empty: not told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteId(Box<str>);

impl SiteId {
    /// Nothing when longer than 64 octets.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= SITE_ID_BYTES_MAX).then(|| Self(text.into()))
    }

    /// The octets for a client's OPT, if it asked and there are any.
    pub(super) fn for_client(&self, asked: bool) -> Option<&[u8]> {
        (asked && !self.0.is_empty()).then_some(self.0.as_bytes())
    }
}

/// Answers a message; nothing when it deserves no reply at all (no header, or a
/// response itself). Total: any octets will do.
#[must_use]
pub fn answer(zones: &Zones, message: &[u8], transport: Transport, site: &SiteId) -> Option<Reply> {
    let query = match query::receive(message)? {
        Ok(query) => query,
        Err((head, rcode)) => {
            let limit = reply::UDP_REPLY_BYTES_MIN;
            return Some(Writer::bare(head).finish(rcode, None, site, limit, Account::Error));
        }
    };
    let mut writer = Writer::new(&query);
    let (rcode, account) = respond(zones, &query, &mut writer);
    Some(writer.finish(rcode, query.edns.as_ref(), site, limit(&query, transport), account))
}

/// The largest reply this client gets, in bytes.
fn limit(query: &Query<'_>, transport: Transport) -> u16 {
    match (transport, &query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => reply::UDP_REPLY_BYTES_MIN,
        (Transport::Udp, Some(edns)) => {
            edns.udp_bytes.clamp(reply::UDP_REPLY_BYTES_MIN, reply::UDP_REPLY_BYTES_MAX)
        }
    }
}

fn respond(zones: &Zones, query: &Query<'_>, writer: &mut Writer) -> (ResponseCode, Account) {
    if let Some(rcode) = refusal(query) {
        return (rcode, Account::Error);
    }
    // A delegation's DS is the business of the zone above it.
    let Some((zone, found)) = zones.find(&query.name, query.kind == RecordType::DS) else {
        return (ResponseCode::Refused, Account::Error);
    };
    let Found { zone: _, apex_labels, place } = found;
    writer.authoritative();
    let answering = Answering { zone, query, apex_labels };
    let labels = query.name.labels();
    let (written, rcode, account) = match place {
        Place::Node(node) => {
            (answering.node(node, writer), ResponseCode::NoError, named(&query.name, labels))
        }
        Place::Wildcard { node, encloser_labels } => {
            let records = wildcard_records(node, labels - encloser_labels);
            let written = records.is_some_and(|records| answering.records(records, writer));
            // All that a wildcard answers is one name to the rate limiter.
            (written, ResponseCode::NoError, named(&query.name, encloser_labels))
        }
        Place::Nowhere => {
            (false, ResponseCode::NXDomain, Account::NoSuchName(fold(query.name.suffix(apex_labels))))
        }
    };
    if !written {
        answering.soa(Section::Authority, writer);
    }
    (rcode, account)
}

/// Why a readable query is answered without looking at any zone.
fn refusal(query: &Query<'_>) -> Option<ResponseCode> {
    if query.edns.as_ref().is_some_and(|edns| edns.version > 0) {
        return Some(ResponseCode::BADVERS);
    }
    if query.class != query::CLASS_IN {
        return Some(ResponseCode::Refused);
    }
    match query.kind {
        RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused),
        // Not types of data (RFC 6895 section 3.1): OPT, TKEY, TSIG; MAILB, MAILA.
        RecordType::OPT | RecordType::TSIG | RecordType::Unknown(249) => Some(ResponseCode::FormErr),
        RecordType::Unknown(253 | 254) => Some(ResponseCode::NotImp),
        _ => None,
    }
}

fn named(name: &QueryName, labels: usize) -> Account {
    Account::Name(fold(name.suffix(labels)))
}

/// FNV-1a: names are told apart within one client's prefix, and who makes two of
/// them collide limits only itself.
fn fold(octets: &[u8]) -> u64 {
    let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
    octets.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A wildcard of one label answers for one label, one of many for more; where
/// only one of them is there it answers for both, since DNS knows no difference
/// (RFC 4592 section 2.1.1).
fn wildcard_records(node: &Node, labels: usize) -> Option<&Records> {
    let (one, deep) = (node.records.as_deref(), node.deep_records.as_deref());
    if labels == 1 { one.or(deep) } else { deep.or(one) }
}

/// One query and the zone that answers it.
struct Answering<'a> {
    zone: &'a ZoneState,
    query: &'a Query<'a>,
    apex_labels: usize,
}

impl Answering<'_> {
    fn apex(&self) -> Apex<'_> {
        Apex { wire: &self.zone.apex, owner: Owner::suffix(&self.query.name, self.apex_labels) }
    }

    /// Writes what a name holds of the type asked for; says whether there was any.
    fn node(&self, node: &Node, writer: &mut Writer) -> bool {
        let at_apex = self.query.name.labels() == self.apex_labels;
        match self.query.kind {
            // Asked as the parent of a zone that begins here: we know of no DS.
            RecordType::DS => false,
            RecordType::SOA if at_apex => {
                self.soa(Section::Answer, writer);
                true
            }
            RecordType::NS if at_apex => self.name_servers(writer),
            RecordType::ANY if at_apex => self.any(writer),
            _ => {
                // The zone's own word on its name servers stands above what a
                // host of that name would say: it keeps the delegation whole.
                let glue = self.zone.glue_of(self.query.name.suffix(self.query.name.labels()));
                match (glue, node.records.as_deref().or(node.deep_records.as_deref())) {
                    (Some(addresses), _) => self.glue(addresses, writer),
                    (None, Some(records)) => self.records(records, writer),
                    (None, None) => false,
                }
            }
        }
    }

    fn records(&self, records: &Records, writer: &mut Writer) -> bool {
        let Records { v4, v6, ttl, version: _ } = records;
        let ttl = ttl.unwrap_or(self.zone.zone.ttl);
        match self.query.kind {
            RecordType::A => self.addresses(v4, ttl, writer),
            RecordType::AAAA => self.addresses(v6, ttl, writer),
            RecordType::ANY => self.any(writer),
            _ => false,
        }
    }

    fn glue(&self, addresses: &[IpAddr], writer: &mut Writer) -> bool {
        let of = |v4: bool| addresses.iter().copied().filter(|a| a.is_ipv4() == v4).collect::<Vec<_>>();
        match self.query.kind {
            RecordType::A => self.addresses(&of(true), self.zone.zone.ttl, writer),
            RecordType::AAAA => self.addresses(&of(false), self.zone.zone.ttl, writer),
            RecordType::ANY => self.any(writer),
            _ => false,
        }
    }

    /// Addresses, beginning at another one from query to query. The id is the
    /// resolver's own random number: no state of ours is needed.
    fn addresses(&self, addresses: &[IpAddr], ttl: u32, writer: &mut Writer) -> bool {
        let first = usize::from(self.query.head.id) % addresses.len().max(1);
        let (tail, head) = addresses.split_at(first);
        for address in head.iter().chain(tail).take(ADDRESSES_MAX) {
            writer.address(ttl, *address);
        }
        !addresses.is_empty()
    }

    fn any(&self, writer: &mut Writer) -> bool {
        writer.hinfo(self.zone.zone.ttl);
        true
    }

    fn name_servers(&self, writer: &mut Writer) -> bool {
        let ttl = self.zone.zone.ttl;
        let servers = &self.zone.name_servers;
        let at: Vec<Owner> =
            servers.iter().map(|server| writer.name_server(ttl, server, self.apex())).collect();
        for (owner, server) in at.into_iter().zip(servers) {
            for address in self.zone.glue_of(server).unwrap_or_default() {
                writer.glue(owner, ttl, *address);
            }
        }
        !servers.is_empty()
    }

    /// The SOA; in a negative answer with the TTL of that (RFC 2308 section 3).
    fn soa(&self, section: Section, writer: &mut Writer) {
        let zone = &self.zone.zone;
        let ttl = match section {
            Section::Answer => zone.ttl,
            Section::Authority => zone.ttl.min(zone.negative_ttl),
        };
        let primary = self.zone.name_servers.first().unwrap_or(&self.zone.apex);
        let numbers = SoaNumbers {
            serial: self.zone.serial,
            refresh: zone.refresh,
            retry: zone.retry,
            expire: zone.expire,
            minimum: zone.negative_ttl,
        };
        writer.soa(section, ttl, self.apex(), [primary, &self.zone.contact], &numbers);
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
