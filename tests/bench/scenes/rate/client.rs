//! A load of requests from one thread: each connection has one request under way,
//! and they are read in turn, so that a request costs two system calls.

use crate::harness::probe;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

/// Requests for as long as this, a connection a host; gives how many were answered,
/// and the time that took. Any answer but 200 is a panic.
pub(super) fn drive(to: SocketAddr, hosts: &[String], load: Duration) -> (usize, Duration) {
    let mut connections: Vec<_> = hosts.iter().map(|host| Connection::open(to, host)).collect();
    let (start, mut answered) = (Instant::now(), 0);
    connections.iter_mut().for_each(Connection::ask);
    while start.elapsed() < load {
        for connection in &mut connections {
            connection.answer();
            connection.ask();
        }
        answered += connections.len();
    }
    connections.iter_mut().for_each(Connection::answer);
    (answered + connections.len(), start.elapsed())
}

impl Connection {
    fn open(to: SocketAddr, host: &str) -> Self {
        let stream = TcpStream::connect_timeout(&to, ANSWER_MAX).expect("Envoy listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a TCP socket");
        Self { stream, request: probe::request(host, "/").into_bytes(), buffer: Vec::new() }
    }

    fn ask(&mut self) {
        self.stream.write_all(&self.request).expect("Envoy reads");
    }

    fn answer(&mut self) {
        self.buffer.clear();
        let mut part = [0; 4096];
        while !whole(&self.buffer) {
            let read = self.stream.read(&mut part).expect("Envoy answers");
            assert!(read > 0, "Envoy closed the connection");
            self.buffer.extend_from_slice(&part[..read]);
        }
        let ok = self.buffer.starts_with(b"HTTP/1.1 200 ");
        assert!(ok, "not served: {}", String::from_utf8_lossy(&self.buffer));
    }
}

/// The backends' bodies are one byte, with its length said.
fn whole(answer: &[u8]) -> bool {
    answer.len() > 5 && answer[..answer.len() - 1].ends_with(b"\r\n\r\n")
}
