//! HTTP/1.1 by hand: the tests need hosts and headers that a client library would mend.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than anything a test waits for; only a hang runs into it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Reply {
    pub status: u16,
    pub body: String,
    length: Option<u64>,
}

/// One request on its own connection, answered to the end.
pub fn get(port: u16, host: &str, path: &str, headers: &str) -> Reply {
    let headers = format!("Connection: close\r\n{headers}");
    let (mut reply, stream) = send(port, host, path, &headers);
    // To the end only where no length was told: Envoy keeps a closed connection open for a second,
    // for the client to be first.
    let length = reply.length.unwrap_or(u64::MAX);
    stream.take(length).read_to_string(&mut reply.body).unwrap();
    reply
}

/// One request; the reply's head is read, the body (or what follows an upgrade) is not.
pub fn send(port: u16, host: &str, path: &str, headers: &str) -> (Reply, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("Host {host}: no status line but {line:?}"));
    let mut reply = Reply { status, body: String::new(), length: None };
    while !matches!(line.as_str(), "\r\n" | "") {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if let Some(length) = line.strip_prefix("content-length: ") {
            reply.length = length.trim_end().parse().ok();
        }
    }
    (reply, stream)
}

/// One request over TLS by the `openssl` command, with the server name or without one. Gives all
/// that came back, in lower case.
pub fn get_tls(port: u16, server_name: Option<&str>, host: &str, headers: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
    match server_name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test needs the openssl command");
    let mut input = client.stdin.take().unwrap();
    write!(input, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let output = client.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).to_ascii_lowercase()
}
