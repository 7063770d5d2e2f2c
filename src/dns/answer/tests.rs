//! Every rule of the room, a row each; the replies are read by hickory-proto,
//! which knows nothing of how they were written.

use super::super::{
    SiteId, Transport, ZoneSerial, Zones, answer,
    zones::tests::{host, set, zone},
};
use crate::ir::{RecordSet, Zone};
use hickory_proto::{op::Message, rr::Record};
use proptest::prelude::*;

const ID: u16 = 6;
const RD: u16 = 0x0100;

/// `example.com` with a bit of everything, and a zone of its own inside.
fn world() -> Zones {
    let mut zones = Zones::default();
    zones.set_zone(Zone {
        name_servers: vec![host("ns1.example.com"), host("ns.example.net")],
        glue: vec![
            (host("ns1.example.com"), [192, 0, 2, 53].into()),
            (host("ns1.example.com"), "2001:db8::53".parse().expect("an address")),
            (host("ns.example.net"), [192, 0, 2, 54].into()),
        ],
        ..zone("example.com")
    });
    zones.set_zone(zone("sub.example.com"));
    zones.set_records(RecordSet { ttl: Some(5), ..set("v4.example.com", &["10.0.0.1"]) });
    for (name, addresses) in [
        ("both.example.com", &["10.0.0.1", "2001:db8::1"][..]),
        ("three.example.com", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("ns1.example.com", &["10.66.66.66"]),
        ("deep.below.example.com", &["10.0.0.4"]),
        ("*.wild.example.com", &["10.0.1.1"]),
        ("known.wild.example.com", &["2001:db8::2"]),
        ("x.empty.wild.example.com", &["10.0.1.2"]),
        ("*.two.example.com", &["10.0.2.1"]),
        ("**.two.example.com", &["10.0.2.2"]),
        ("**.many.example.com", &["10.0.3.1"]),
        ("shop.sub.example.com", &["10.0.4.1"]),
        ("shop.example.org", &["10.0.5.1"]),
        ("", &["10.0.6.1"]),
    ] {
        zones.set_records(set(name, addresses));
    }
    for stored in zones.serials() {
        zones.restore_serial(&ZoneSerial { serial: 7, ..stored });
    }
    zones
}

/// A query's octets; `counts` of the four sections, then what follows the header.
fn message(flags: u16, counts: [u16; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    [ID, flags].iter().chain(&counts).for_each(|word| bytes.extend(word.to_be_bytes()));
    [&bytes, body].concat()
}

fn question(name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("short"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([kind.to_be_bytes(), class.to_be_bytes()].concat());
    bytes
}

fn opt(udp_bytes: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    let len = u16::try_from(options.len()).expect("short");
    let fixed = [&[0, 0, 41][..], &udp_bytes.to_be_bytes(), &[0, version]].concat();
    [&fixed[..], &flags.to_be_bytes(), &len.to_be_bytes(), options].concat()
}

fn kind(word: &str) -> u16 {
    match word {
        "A" => 1,
        "NS" => 2,
        "SOA" => 6,
        "MX" => 15,
        "AAAA" => 28,
        "DS" => 43,
        "IXFR" => 251,
        "AXFR" => 252,
        "ANY" => 255,
        number => number.parse().expect("a type of the table, or a number"),
    }
}

pub(super) fn plain(name: &str, word: &str) -> Vec<u8> {
    message(0, [1, 0, 0, 0], &question(name, kind(word), 1))
}

fn with_opt(name: &str, word: &str, opt: &[u8]) -> Vec<u8> {
    message(0, [1, 0, 0, 1], &[&question(name, kind(word), 1), opt].concat())
}

fn record(record: &Record) -> String {
    format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
}

/// `RCODE flags; answer, ...; authority, ...; additional, ...; edns`.
fn show(bytes: &[u8]) -> String {
    let message = Message::from_vec(bytes).expect("hickory reads what we write");
    let meta = &message.metadata;
    assert_eq!(meta.id, ID);
    assert!(!meta.recursion_available && !meta.authentic_data, "RA and AD are never set");
    let mut text = match u16::from(meta.response_code) {
        // 16 is BADVERS in an OPT and BADSIG in a TSIG; hickory prints the latter.
        16 => "BADVERS".to_owned(),
        _ => format!("{:?}", meta.response_code),
    };
    for (set, flag) in [
        (meta.authoritative, " aa"),
        (meta.truncation, " tc"),
        (meta.recursion_desired, " rd"),
        (meta.checking_disabled, " cd"),
    ] {
        text += if set { flag } else { "" };
    }
    for section in [&message.answers, &message.authorities, &message.additionals] {
        let records: Vec<String> = section.iter().map(record).collect();
        text += if records.is_empty() { ";" } else { "; " };
        text += &records.join(", ");
    }
    if let Some(edns) = &message.edns {
        let (version, size, dnssec) = (edns.version(), edns.max_payload(), edns.flags().dnssec_ok);
        text += &format!("; edns {version} {size} {dnssec} {:?}", edns.options().options.len());
    }
    text
}

#[track_caller]
fn check_message(query: &[u8], expected: &str) {
    let site = SiteId::new("site-a").expect("short");
    let reply = answer(&world(), query, Transport::Udp, &site).expect("a reply");
    assert_eq!(show(&reply.bytes), expected);
}

#[track_caller]
fn check(name: &str, word: &str, expected: &str) {
    check_message(&plain(name, word), expected);
}

const SOA: &str = "example.com. 10 SOA ns1.example.com. hostmaster.example.com. 7 3600 600 604800 10";
const SUB_SOA: &str =
    "sub.example.com. 10 SOA ns1.sub.example.com. hostmaster.sub.example.com. 7 3600 600 604800 10";

fn no_data() -> String {
    format!("NoError aa;; {SOA};")
}

fn no_name() -> String {
    format!("NXDomain aa;; {SOA};")
}

#[test]
fn addresses_of_a_name() {
    check("v4.example.com", "A", "NoError aa; v4.example.com. 5 A 10.0.0.1;;");
    check("both.example.com", "A", "NoError aa; both.example.com. 30 A 10.0.0.1;;");
    check("both.example.com", "AAAA", "NoError aa; both.example.com. 30 AAAA 2001:db8::1;;");
    check("v4.example.com", "AAAA", &no_data());
    check("v4.example.com", "MX", &no_data());
    check("v4.example.com", "NS", &no_data());
    check("v4.example.com", "SOA", &no_data());
    check("v4.example.com", "65", &no_data());
    check("v4.example.com", "ANY", "NoError aa; v4.example.com. 30 HINFO RFC8482 ;;");
}

#[test]
fn names_that_are_not_there() {
    check("none.example.com", "A", &no_name());
    check("none.example.com", "ANY", &no_name());
    check("a.v4.example.com", "A", &no_name());
    check("below.example.com", "A", &no_data());
    check("below.example.com", "ANY", &no_data());
    check("other.below.example.com", "A", &no_name());
    check("xample.com", "A", "Refused;;;");
}

#[test]
fn the_apex() {
    let soa = SOA.replacen(" 10 ", " 30 ", 1);
    check("example.com", "SOA", &format!("NoError aa; {soa};;"));
    check(
        "example.com",
        "NS",
        "NoError aa; example.com. 30 NS ns1.example.com., example.com. 30 NS ns.example.net.;; \
         ns1.example.com. 30 A 192.0.2.53, ns1.example.com. 30 AAAA 2001:db8::53",
    );
    check("example.com", "A", &no_data());
    check("example.com", "ANY", "NoError aa; example.com. 30 HINFO RFC8482 ;;");
    check("ns1.example.com", "A", "NoError aa; ns1.example.com. 30 A 192.0.2.53;;");
    check("ns1.example.com", "AAAA", "NoError aa; ns1.example.com. 30 AAAA 2001:db8::53;;");
    check("ns1.example.com", "ANY", "NoError aa; ns1.example.com. 30 HINFO RFC8482 ;;");
}

#[test]
fn negative_ttl_is_the_smaller_one() {
    let mut zones = Zones::default();
    zones.set_zone(Zone { ttl: 7, negative_ttl: 60, ..zone("example.com") });
    let reply = answer(&zones, &plain("x.example.com", "A"), Transport::Udp, &SiteId::default());
    let text = show(&reply.expect("a reply").bytes);
    assert!(text.contains("example.com. 7 SOA") && text.contains(" 604800 60;"), "{text}");
}

#[test]
fn a_zone_inside_a_zone() {
    check("shop.sub.example.com", "A", "NoError aa; shop.sub.example.com. 30 A 10.0.4.1;;");
    check("none.sub.example.com", "A", &format!("NXDomain aa;; {SUB_SOA};"));
    check("sub.example.com", "A", &format!("NoError aa;; {SUB_SOA};"));
    check("sub.example.com", "DS", &no_data());
    check("example.com", "DS", &no_data());
}

#[test]
fn zones_of_others() {
    check("shop.example.org", "A", "Refused;;;");
    check("com", "A", "Refused;;;");
    check("", "NS", "Refused;;;");
}

#[test]
fn wildcards() {
    check("a.wild.example.com", "A", "NoError aa; a.wild.example.com. 30 A 10.0.1.1;;");
    check("a.b.wild.example.com", "A", "NoError aa; a.b.wild.example.com. 30 A 10.0.1.1;;");
    check("*.wild.example.com", "A", "NoError aa; *.wild.example.com. 30 A 10.0.1.1;;");
    check("a.wild.example.com", "AAAA", &no_data());
    check("a.wild.example.com", "ANY", "NoError aa; a.wild.example.com. 30 HINFO RFC8482 ;;");
    check("wild.example.com", "A", &no_data());
    // A name that exists takes nothing from the wildcard beside it, ...
    check("known.wild.example.com", "A", &no_data());
    // ... nor do the names below it, ...
    check("a.known.wild.example.com", "A", &no_name());
    // ... and an empty non-terminal is a name that exists.
    check("empty.wild.example.com", "A", &no_data());
    check("y.empty.wild.example.com", "A", &no_name());
    check("a.*.wild.example.com", "A", &no_name());
    check("a.two.example.com", "A", "NoError aa; a.two.example.com. 30 A 10.0.2.1;;");
    check("a.b.two.example.com", "A", "NoError aa; a.b.two.example.com. 30 A 10.0.2.2;;");
    check("a.many.example.com", "A", "NoError aa; a.many.example.com. 30 A 10.0.3.1;;");
    check("a.b.many.example.com", "A", "NoError aa; a.b.many.example.com. 30 A 10.0.3.1;;");
}

#[test]
fn the_case_comes_back() {
    check("V4.eXample.COM", "A", "NoError aa; V4.eXample.COM. 5 A 10.0.0.1;;");
    check("nOne.eXample.cOm", "A", &no_name().replacen("example.com", "eXample.cOm", 3));
    let query = plain("V4.eXample.COM", "A");
    let reply = answer(&world(), &query, Transport::Udp, &SiteId::default()).expect("a reply");
    assert_eq!(reply.bytes[12..query.len()], query[12..]);
}

#[test]
fn a_dot_inside_a_label_is_no_border() {
    let odd = [b"\x0av4.example\x03com\0".as_slice(), &[0, 1, 0, 1]].concat();
    check_message(&message(0, [1, 0, 0, 0], &odd), "Refused;;;");
}

#[test]
fn header_bits() {
    let with = |flags| message(flags, [1, 0, 0, 0], &question("v4.example.com", 1, 1));
    let data = "v4.example.com. 5 A 10.0.0.1;;";
    check_message(&with(RD), &format!("NoError aa rd; {data}"));
    check_message(&with(0x0010), &format!("NoError aa cd; {data}"));
    // AA, TC, RA, Z, AD and an rcode mean nothing in a query.
    check_message(&with(0x06ef & !RD), &format!("NoError aa; {data}"));
}

#[test]
fn what_we_do_not_do() {
    check("example.com", "AXFR", "Refused;;;");
    check("example.com", "IXFR", "Refused;;;");
    check("example.com", "41", "FormErr;;;");
    check("example.com", "249", "FormErr;;;");
    check("example.com", "250", "FormErr;;;");
    check("example.com", "253", "NotImp;;;");
    for class in [2, 3, 4, 254, 255] {
        let query = message(0, [1, 0, 0, 0], &question("version.bind", 16, class));
        check_message(&query, "Refused;;;");
        let query = message(0, [1, 0, 0, 0], &question("v4.example.com", 1, class));
        check_message(&query, "Refused;;;");
    }
    for opcode in 1..16_u16 {
        let query = message(opcode << 11, [1, 0, 0, 0], &question("example.com", 6, 1));
        let reply = answer(&world(), &query, Transport::Udp, &SiteId::default()).expect("a reply");
        assert_eq!(reply.bytes[3] & 0x0f, 4, "NOTIMP for opcode {opcode}");
        assert_eq!(reply.bytes[2] >> 3 & 0x0f, u8::try_from(opcode).expect("small"));
    }
}

#[test]
fn messages_that_are_no_queries() {
    let nothing = |bytes: &[u8]| {
        assert_eq!(answer(&world(), bytes, Transport::Udp, &SiteId::default()), None);
    };
    nothing(b"");
    nothing(&plain("v4.example.com", "A")[..11]);
    nothing(&message(0x8000, [1, 0, 0, 0], &question("v4.example.com", 1, 1)));
}

#[test]
fn malformed_queries() {
    let one = question("v4.example.com", 1, 1);
    let broken = "FormErr;;;";
    check_message(&message(RD, [0, 0, 0, 0], &[]), "FormErr rd;;;");
    check_message(&message(0, [2, 0, 0, 0], &[&one[..], &one].concat()), broken);
    check_message(&message(0, [1, 0, 0, 0], &[]), broken);
    check_message(&message(0, [1, 0, 0, 0], &one[..one.len() - 1]), broken);
    check_message(&message(0, [1, 0, 0, 0], &[&one[..], b"x"].concat()), broken);
    check_message(&message(0, [1, 0, 0, 1], &one), broken);
    check_message(&message(0, [1, 65_535, 65_535, 65_535], &one), broken);
    check_message(&message(0, [1, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01"), broken);
    check_message(&message(0, [1, 0, 0, 0], b"\x03a\0b\xc0\x0c\0\x01\0\x01"), broken);
    check_message(&message(0, [1, 0, 0, 0], &[&[64][..], &[b'a'; 64], b"\0\0\x01\0\x01"].concat()), broken);
    // An OPT that is not in its place, or there twice, or not at the root, or breaks off.
    let edns = opt(1_232, 0, 0, &[]);
    check_message(&message(0, [1, 1, 0, 0], &[&one[..], &edns].concat()), broken);
    check_message(&message(0, [1, 0, 0, 2], &[&one[..], &edns, &edns].concat()), broken);
    check_message(&message(0, [1, 0, 0, 1], &[&one[..], b"\x01a", &edns].concat()), broken);
    check_message(&message(0, [1, 0, 0, 1], &[&one[..], &opt(1_232, 0, 0, &[0, 3, 0, 9])].concat()), broken);
    // Other records are stepped over, a compressed owner too.
    let stranger = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x01";
    check_message(
        &message(0, [1, 0, 1, 1], &[&one[..], stranger, stranger].concat()),
        "NoError aa; v4.example.com. 5 A 10.0.0.1;;",
    );
}

#[test]
fn edns() {
    let data = "NoError aa; v4.example.com. 5 A 10.0.0.1;;";
    let ask = |opt: Vec<u8>| with_opt("v4.example.com", "A", &opt);
    check_message(&ask(opt(4_096, 0, 0, &[])), &format!("{data}; edns 0 1232 false 0"));
    check_message(&ask(opt(0, 0, 0x8000, &[])), &format!("{data}; edns 0 1232 true 0"));
    check_message(&ask(opt(1_232, 0, 0, &[0xff, 0, 0, 2, 1, 2])), &format!("{data}; edns 0 1232 false 0"));
    check_message(&ask(opt(1_232, 0, 0, &[0, 3, 0, 0])), &format!("{data}; edns 0 1232 false 1"));
    check_message(&ask(opt(1_232, 1, 0, &[])), "BADVERS;;;; edns 0 1232 false 0");
    check_message(&ask(opt(1_232, 9, 0, &[9, 9, 9])), "BADVERS;;;; edns 0 1232 false 0");
    check_message(
        &with_opt("shop.example.org", "A", &opt(1_232, 0, 0, &[])),
        "Refused;;;; edns 0 1232 false 0",
    );
}

#[test]
fn nsid_is_the_site() {
    let query = with_opt("v4.example.com", "A", &opt(1_232, 0, 0, &[0, 3, 0, 0]));
    let bytes = |site: &SiteId| answer(&world(), &query, Transport::Udp, site).expect("a reply").bytes;
    let site = SiteId::new("paris-1").expect("short");
    assert!(bytes(&site).ends_with(b"\0\x03\0\x07paris-1"));
    assert!(show(&bytes(&SiteId::default())).ends_with("edns 0 1232 false 0"));
    assert_eq!(SiteId::new(&"x".repeat(65)), None);
}

fn many_addresses(count: u8) -> Zones {
    let mut zones = world();
    let addresses: Vec<String> = (1..=count).map(|n| format!("10.1.0.{n}")).collect();
    zones.set_records(set("big.example.com", &addresses.iter().map(String::as_str).collect::<Vec<_>>()));
    zones
}

#[test]
fn truncation() {
    let zones = many_addresses(100);
    let ask =
        |query: &[u8], transport| answer(&zones, query, transport, &SiteId::default()).expect("a reply");
    let short = plain("big.example.com", "A");
    let cut = ask(&short, Transport::Udp);
    assert_eq!(show(&cut.bytes), "NoError aa tc;;;");
    assert_eq!(cut.bytes.len(), short.len(), "the question is all that is left");
    let cut = ask(&with_opt("big.example.com", "A", &opt(65_535, 0, 0, &[])), Transport::Udp);
    assert_eq!(show(&cut.bytes), "NoError aa tc;;;; edns 0 1232 false 0");
    let whole = Message::from_vec(&ask(&short, Transport::Tcp).bytes).expect("a message");
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (100, false));
    // 31 addresses are 529 bytes: too much for 512, not for a client with EDNS.
    let zones = many_addresses(31);
    let fits =
        |query: &[u8]| !answer(&zones, query, Transport::Udp, &SiteId::default()).expect("a reply").truncated;
    assert!(!fits(&short));
    assert!(!fits(&with_opt("big.example.com", "A", &opt(512, 0, 0, &[]))));
    assert!(fits(&with_opt("big.example.com", "A", &opt(1_232, 0, 0, &[]))));
}

#[test]
fn glue_gives_way_before_truncation() {
    let mut zones = Zones::default();
    let glue = (1..=40).map(|n| (host("ns1.example.com"), [192, 0, 2, n].into())).collect();
    zones.set_zone(Zone { glue, ..zone("example.com") });
    let query = with_opt("example.com", "NS", &opt(512, 0, 0, &[]));
    let reply = answer(&zones, &query, Transport::Udp, &SiteId::default()).expect("a reply");
    assert_eq!(show(&reply.bytes), "NoError aa; example.com. 30 NS ns1.example.com.;;; edns 0 1232 false 0");
}

#[test]
fn a_slipped_denial_denies_nothing() {
    let query = with_opt("none.example.com", "A", &opt(1_232, 0, 0, &[]));
    let mut reply = answer(&world(), &query, Transport::Udp, &SiteId::default()).expect("a reply");
    reply.truncate();
    assert_eq!(show(&reply.bytes), "NoError aa tc;;;; edns 0 1232 false 0");
}

#[test]
fn addresses_take_turns() {
    let zones = world();
    let first = |id: u16| {
        let mut query = plain("three.example.com", "A");
        query[..2].copy_from_slice(&id.to_be_bytes());
        let reply = answer(&zones, &query, Transport::Udp, &SiteId::default()).expect("a reply");
        let message = Message::from_vec(&reply.bytes).expect("a message");
        assert_eq!(message.answers.len(), 3);
        message.answers[0].data.to_string()
    };
    assert_eq!([first(0), first(1), first(2), first(3)], ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
}

#[test]
fn accounts_for_the_rate_limiter() {
    let zones = world();
    let account = |name: &str, word: &str| {
        answer(&zones, &plain(name, word), Transport::Udp, &SiteId::default()).expect("a reply").account
    };
    assert_eq!(account("a.wild.example.com", "A"), account("B.wild.example.com", "A"));
    assert_eq!(account("x1.example.com", "A"), account("x2.Example.com", "A"));
    assert_ne!(account("x1.example.com", "A"), account("x1.sub.example.com", "A"));
    assert_ne!(account("v4.example.com", "A"), account("both.example.com", "A"));
    assert_eq!(account("a.example.org", "A"), account("example.com", "AXFR"));
}

/// Octets that are nearly a query: a valid one, with a few octets overwritten,
/// removed or added.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let names =
        ["v4.example.com", "a.b.wild.example.com", "big.example.com", "example.com", "none.example.com"];
    let kinds = prop::sample::select(vec!["A", "AAAA", "NS", "SOA", "ANY", "MX", "DS"]);
    let options = prop::collection::vec(any::<u8>(), 0..24);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..6);
    (prop::sample::select(names.to_vec()), kinds, any::<u16>(), 0..2_u8, options, edits).prop_map(
        |(name, word, size, version, options, edits)| {
            let mut bytes = with_opt(name, word, &opt(size, version, 0, &options));
            for (at, octet, how) in edits {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = octet,
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, octet),
                }
            }
            bytes
        },
    )
}

/// Whatever comes: no panic, nothing larger than the client may get, and a reply
/// that an independent reader can read and that belongs to the query.
fn holds(zones: &Zones, query: &[u8]) -> Result<(), TestCaseError> {
    let site = SiteId::new(&"s".repeat(64)).expect("short");
    for (transport, max) in [(Transport::Udp, 1_232), (Transport::Tcp, 65_535)] {
        let Some(mut reply) = answer(zones, query, transport, &site) else {
            prop_assert!(query.len() < 12 || query[2] & 0x80 != 0);
            continue;
        };
        prop_assert!(reply.bytes.len() <= max);
        prop_assert_eq!(&reply.bytes[..2], &query[..2]);
        prop_assert!(reply.bytes[2] & 0x80 != 0);
        let message = Message::from_vec(&reply.bytes);
        prop_assert!(message.is_ok(), "{:?} for {:?}", message, query);
        let with_edns = message.is_ok_and(|message| message.edns.is_some());
        prop_assert!(with_edns || transport == Transport::Tcp || reply.bytes.len() <= 512);
        reply.truncate();
        prop_assert!(reply.bytes.len() <= query.len() + 68, "a slip is hardly larger than its query");
        prop_assert!(Message::from_vec(&reply.bytes).is_ok());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets(query in prop::collection::vec(any::<u8>(), 0..600)) {
        holds(&many_addresses(100), &query)?;
    }

    #[test]
    fn nearly_queries(query in nearly()) {
        holds(&many_addresses(100), &query)?;
    }
}
