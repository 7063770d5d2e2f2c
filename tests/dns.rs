//! The DNS responder on real sockets, asked by BIND's `dig`.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};
use tidegate::{
    base::{HostPattern, Hostname},
    dns::{BindError, Limits, Options, Publish, Responder, SharedZones, SiteId},
    ir::{RecordSet, Zone},
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle, time::Instant};

/// For an event that comes at once on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn host(text: &str) -> Hostname {
    Hostname::parse(text).expect("a name")
}

fn pattern(text: &str) -> HostPattern {
    HostPattern::parse_ingress(text).expect("a host")
}

fn set(name: &str, addresses: &[&str]) -> RecordSet {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    RecordSet { name: pattern(name), addresses, ttl: None }
}

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    zones: SharedZones,
    counters: std::sync::Arc<tidegate::dns::Counters>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start() -> Self {
        Self::start_with(Options { site: SiteId::new("site-a").expect("short"), ..Options::default() })
    }

    fn start_with(options: Options) -> Self {
        Self::start_at(ANY_PORT, options)
    }

    fn start_at(address: SocketAddr, options: Options) -> Self {
        let responder = Responder::bind(address, options).expect("a free port");
        let (address, zones, counters) = (responder.address(), responder.zones(), responder.counters());
        fill(&zones);
        let runtime = Runtime::new().expect("a runtime");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = runtime.spawn(responder.serve(async { drop(stopped.await) }));
        Self { runtime, address, zones, counters, stop, served }
    }

    /// What `dig` prints for these words.
    #[track_caller]
    fn dig(&self, words: &str) -> Dig {
        let at = [format!("@{}", self.address.ip()), format!("-p{}", self.address.port())];
        let output = Command::new("dig")
            .args(at)
            .args(["+tries=1", "+time=30", "+nocookie"])
            .args(words.split_whitespace())
            .output()
            .expect("dig runs: install it with `apt-get install bind9-dnsutils`");
        Dig(String::from_utf8(output.stdout).expect("dig prints text"))
    }

    /// Asks and compares: `STATUS flags`, then the records of all sections.
    #[track_caller]
    fn check(&self, words: &str, expected: &[&str]) {
        let dig = self.dig(words);
        let mut got = vec![dig.status()];
        got.extend(dig.records());
        assert_eq!(got, expected, "dig {words}\n{}", dig.0);
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the listener is there");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        stream
    }

    fn count(&self, name: &str, label: &str) -> u64 {
        let mut samples = self.counters.samples().into_iter();
        let found = samples.find(|s| s.name == name && s.label.is_none_or(|(_, value)| value == label));
        found.expect("a counter of that name").value
    }
}

struct Dig(String);

impl Dig {
    fn after(&self, mark: &str) -> &str {
        let (_, rest) = self.0.split_once(mark).unwrap_or_else(|| panic!("no '{mark}' in:\n{}", self.0));
        rest.split([',', ';', '\n']).next().expect("split gives at least one").trim()
    }

    fn status(&self) -> String {
        format!("{} {}", self.after("status: "), self.after("flags: "))
    }

    fn records(&self) -> Vec<String> {
        let records = self.0.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
        records.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

fn fill(zones: &SharedZones) {
    zones.update(|zones| {
        zones.set_zone(Zone {
            apex: host("example.com"),
            name_servers: vec![host("ns1.example.com"), host("ns.example.net")],
            glue: vec![(host("ns1.example.com"), [192, 0, 2, 53].into())],
            contact: host("hostmaster.example.com"),
            ttl: 30,
            negative_ttl: 10,
            refresh: 3_600,
            retry: 600,
            expire: 604_800,
        });
        zones.set_records(set("v4.example.com", &["10.0.0.1"]));
        zones.set_records(set("both.example.com", &["10.0.0.2", "2001:db8::2"]));
        zones.set_records(set("*.wild.example.com", &["10.0.0.3"]));
        zones.set_records(set("known.wild.example.com", &["2001:db8::3"]));
        let many: Vec<String> = (1..=100).map(|n| format!("10.1.0.{n}")).collect();
        zones.set_records(set("big.example.com", &many.iter().map(String::as_str).collect::<Vec<_>>()));
        let stored = zones.serials();
        zones.restore_serial(&tidegate::dns::ZoneSerial { serial: 2_026, ..stored[0].clone() });
    });
}

const SOA: &str = "example.com. 10 IN SOA ns1.example.com. hostmaster.example.com. 2026 3600 600 604800 10";

#[test]
fn answers_and_denials() {
    let server = Server::start();
    server.check("v4.example.com A", &["NOERROR qr aa rd", "v4.example.com. 30 IN A 10.0.0.1"]);
    server.check("+norec v4.example.com A", &["NOERROR qr aa", "v4.example.com. 30 IN A 10.0.0.1"]);
    server.check("both.example.com AAAA", &["NOERROR qr aa rd", "both.example.com. 30 IN AAAA 2001:db8::2"]);
    server.check("v4.example.com AAAA", &["NOERROR qr aa rd", SOA]);
    server.check("wild.example.com A", &["NOERROR qr aa rd", SOA]);
    server.check("none.example.com A", &["NXDOMAIN qr aa rd", SOA]);
    server.check("a.wild.example.com A", &["NOERROR qr aa rd", "a.wild.example.com. 30 IN A 10.0.0.3"]);
    server.check("a.b.wild.example.com A", &["NOERROR qr aa rd", "a.b.wild.example.com. 30 IN A 10.0.0.3"]);
    server.check("known.wild.example.com A", &["NOERROR qr aa rd", SOA]);
    server.check(
        "v4.example.com ANY +notcp",
        &["NOERROR qr aa rd", "v4.example.com. 30 IN HINFO \"RFC8482\" \"\""],
    );
    server.check("shop.example.org A", &["REFUSED qr rd"]);
    server.check("version.bind TXT CH", &["REFUSED qr rd"]);
}

#[test]
fn the_apex() {
    let server = Server::start();
    let soa = SOA.replacen(" 10 ", " 30 ", 1);
    server.check("example.com SOA", &["NOERROR qr aa rd", &soa]);
    server.check(
        "example.com NS",
        &[
            "NOERROR qr aa rd",
            "example.com. 30 IN NS ns1.example.com.",
            "example.com. 30 IN NS ns.example.net.",
            "ns1.example.com. 30 IN A 192.0.2.53",
        ],
    );
    server.check("ns1.example.com A", &["NOERROR qr aa rd", "ns1.example.com. 30 IN A 192.0.2.53"]);
    let transfer = server.dig("example.com AXFR");
    assert!(transfer.0.contains("Transfer failed"), "{}", transfer.0);
}

#[test]
fn the_case_comes_back() {
    let server = Server::start();
    server.check("V4.eXample.COM A", &["NOERROR qr aa rd", "V4.eXample.COM. 30 IN A 10.0.0.1"]);
    let dig = server.dig("V4.eXample.COM A");
    assert!(dig.0.contains(";V4.eXample.COM."), "{}", dig.0);
}

#[test]
fn edns() {
    let server = Server::start();
    let plain = server.dig("+noedns v4.example.com A");
    assert!(!plain.0.contains("EDNS"), "{}", plain.0);
    let asked = server.dig("+bufsize=4096 v4.example.com A");
    assert!(asked.0.contains("; EDNS: version: 0, flags:; udp: 1232"), "{}", asked.0);
    let unknown = server.dig("+ednsopt=65001:abcd +dnssec v4.example.com A");
    assert!(unknown.0.contains("; EDNS: version: 0, flags: do; udp: 1232"), "{}", unknown.0);
    assert_eq!(unknown.status(), "NOERROR qr aa rd");
    server.check("+edns=1 +noednsnegotiation v4.example.com A", &["BADVERS qr rd"]);
    server.check("+opcode=NOTIFY example.com SOA", &["NOTIMP qr rd"]);
    let site = server.dig("+nsid v4.example.com A");
    assert!(site.0.contains("(\"site-a\")"), "{}", site.0);
}

#[test]
fn truncation_and_tcp() {
    let server = Server::start();
    for words in ["+bufsize=512", "+noedns", "+bufsize=65535"] {
        server.check(&format!("+ignore {words} big.example.com A"), &["NOERROR qr aa tc rd"]);
        // Without +ignore, dig comes back over TCP by itself.
        let whole = server.dig(&format!("{words} big.example.com A"));
        assert_eq!((whole.status().as_str(), whole.records().len()), ("NOERROR qr aa rd", 100));
    }
    server.check("+tcp v4.example.com A", &["NOERROR qr aa rd", "v4.example.com. 30 IN A 10.0.0.1"]);
    server.check("+tcp none.example.com A", &["NXDOMAIN qr aa rd", SOA]);
    let several = server.dig("+tcp +keepopen v4.example.com A big.example.com A both.example.com AAAA");
    assert_eq!(several.records().len(), 102, "{}", several.0);
}

#[test]
fn a_change_is_served_at_once() {
    let server = Server::start();
    server.check("new.example.com A", &["NXDOMAIN qr aa rd", SOA]);
    server.zones.set(set("new.example.com", &["10.0.0.9"]));
    server.check("new.example.com A", &["NOERROR qr aa rd", "new.example.com. 30 IN A 10.0.0.9"]);
    server.zones.remove(&pattern("new.example.com"));
    server.check("new.example.com A", &["NXDOMAIN qr aa rd", &SOA.replace("2026", "2028")]);
}

/// A machine may have no IPv6; then the responder says so.
#[test]
fn over_ipv6() {
    let loopback = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), 0);
    let here = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    if !here.lines().any(|line| line.ends_with(" lo")) {
        let error = Responder::bind(loopback, Options::default()).err().expect("no such address");
        assert!(error.to_string().contains("[::1]"), "{error}");
        return;
    }
    let server = Server::start_at(loopback, Options::default());
    server.check("v4.example.com A", &["NOERROR qr aa rd", "v4.example.com. 30 IN A 10.0.0.1"]);
    server.check("+tcp v4.example.com A", &["NOERROR qr aa rd", "v4.example.com. 30 IN A 10.0.0.1"]);
}

/// A query as it goes over the wire, without its TCP length.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("short"));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn framed(query: &[u8]) -> Vec<u8> {
    [&u16::try_from(query.len()).expect("short").to_be_bytes()[..], query].concat()
}

fn read_reply(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

/// Whether the other side has closed, orderly or not.
fn closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn pipelined_queries() {
    let server = Server::start();
    let mut stream = server.connect();
    let names = ["v4.example.com", "none.example.com", "big.example.com"];
    let all: Vec<u8> = (0..300_u16).flat_map(|id| framed(&query(id, names[usize::from(id) % 3]))).collect();
    // In two writes that part in the middle of a query.
    let (first, rest) = all.split_at(all.len() / 2 + 5);
    stream.write_all(first).expect("the server reads");
    stream.write_all(rest).expect("the server reads");
    for id in 0..300_u16 {
        let reply = read_reply(&mut stream).expect("a reply to each");
        assert_eq!(reply[..2], id.to_be_bytes());
        assert_eq!(reply[3] & 0x0f, [0, 3, 0][usize::from(id) % 3]);
        assert_eq!(reply[2] & 0x02, 0, "nothing is truncated over TCP");
    }
}

#[test]
fn a_connection_that_speaks_no_dns_is_closed() {
    let server = Server::start();
    let rows: [&[u8]; 3] = [b"GET / HTTP/1.1\r\n\r\n", b"\0\x03abc", b"\0\0"];
    for octets in rows {
        let mut stream = server.connect();
        stream.write_all(octets).expect("the server reads");
        assert!(closed(&mut stream), "{octets:?}");
    }
    server.check("+tcp v4.example.com A", &["NOERROR qr aa rd", "v4.example.com. 30 IN A 10.0.0.1"]);
}

#[test]
fn a_connection_that_drips_is_closed() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(&framed(&query(1, "v4.example.com"))[..5]).expect("the server reads");
    assert!(closed(&mut stream), "10 s are all it gets");
}

#[test]
fn one_prefix_cannot_take_all_connections() {
    let strict = Limits { exempt: Vec::new(), ..Limits::default() };
    let server = Server::start_with(Options { rate_limits: Some(strict), ..Options::default() });
    let ask = |stream: &mut TcpStream| {
        stream.write_all(&framed(&query(1, "v4.example.com"))).and_then(|()| read_reply(stream))
    };
    let mut open: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    for stream in &mut open {
        ask(stream).expect("admitted");
    }
    assert!(closed(&mut server.connect()), "the 51st is too many");
    open.pop();
    let start = Instant::now();
    while ask(&mut server.connect()).is_err() {
        assert!(start.elapsed() < DEADLINE, "the place of a closed connection is free again");
    }
}

#[test]
fn a_flood_is_limited_and_told_to_use_tcp() {
    let limits = Limits { no_such_names: 1, exempt: Vec::new(), ..Limits::default() };
    let server = Server::start_with(Options { rate_limits: Some(limits), ..Options::default() });
    let client = UdpSocket::bind(ANY_PORT).expect("a free port");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    for id in 0..100 {
        client.send_to(&query(id, &format!("n{id}.example.com")), server.address).expect("sent");
    }
    let start = Instant::now();
    let (limited, slipped) = loop {
        let limited = server.count("tidegate_dns_unanswered_total", "rate_limit");
        let slipped = server.count("tidegate_dns_rate_slipped_total", "");
        if limited + slipped + server.count("tidegate_dns_replies_total", "NXDOMAIN") == 100 {
            break (limited, slipped);
        }
        assert!(start.elapsed() < DEADLINE, "{:?}", server.counters.samples());
        std::thread::yield_now();
    };
    assert!(limited >= 25 && slipped.abs_diff(limited) <= 1, "{limited} {slipped}");
    let mut truncated = 0;
    for _ in 0..100 - limited {
        let mut reply = [0; 512];
        client.recv(&mut reply).expect("each counted reply arrives");
        truncated += u64::from(reply[2] & 0x02 != 0);
    }
    assert_eq!(truncated, slipped);
    // TCP proves the source, so it is answered in full.
    server.check("+tcp none.example.com A", &["NXDOMAIN qr aa rd", SOA]);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let server = Server::start();
    let error = Responder::bind(server.address, Options::default()).err().expect("it is taken");
    assert!(matches!(error, BindError::InUse { protocol: "TCP", .. }), "{error:?}");
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");

    let udp = UdpSocket::bind(ANY_PORT).expect("a free port");
    let address = udp.local_addr().expect("bound");
    let error = Responder::bind(address, Options::default()).err().expect("it is taken");
    assert!(matches!(error, BindError::InUse { protocol: "UDP", .. }), "{error:?}");

    let elsewhere = "192.0.2.1:0".parse().expect("an address");
    let error = Responder::bind(elsewhere, Options::default()).err().expect("it is not ours");
    assert!(matches!(error, BindError::NotHere { .. }), "{error:?}");
}

#[test]
fn shutdown_leaves_nothing() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(&framed(&query(1, "v4.example.com"))).expect("the server reads");
    read_reply(&mut stream).expect("a reply");
    let Server { runtime, address, stop, served, .. } = server;
    stop.send(()).expect("the server waits for it");
    runtime.block_on(served).expect("it does not panic").expect("it ends in order");
    assert!(closed(&mut stream));
    Responder::bind(address, Options::default()).map(drop).expect("the address is free again");
}
