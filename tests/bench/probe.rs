//! A client: one connection that is kept, one request at a time.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// An answer: the body is a backend's name, or an error's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// Whether this backend gave it.
    pub fn is_from(&self, backend: &str) -> bool {
        self.status == 200 && self.body == backend
    }
}

/// See the module; connects anew where the connection was closed.
pub struct Probe {
    to: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Probe {
    pub fn new(to: SocketAddr) -> Self {
        Self { to, stream: None }
    }

    /// Asks once; a broken connection is an error, and the next call has a new one.
    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.to, ANSWER_MAX)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_MAX))?;
                BufReader::new(stream)
            }
        };
        stream.get_ref().write_all(request(host, path).as_bytes())?;
        let (answer, keep) = read(&mut stream)?;
        self.stream = keep.then_some(stream);
        Ok(answer)
    }
}

pub fn request(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// Reads one answer; tells whether the connection stays.
pub fn read(stream: &mut impl BufRead) -> io::Result<(Answer, bool)> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"))?;
    let (mut length, mut chunked, mut keep) = (0, false, true);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(("connection", "close")) => keep = false,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(stream, &mut body)?;
    } else {
        stream.take(length).read_to_end(&mut body)?;
    }
    Ok((Answer { status, body: String::from_utf8_lossy(&body).into_owned() }, keep))
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let read = stream.by_ref().take(size).read_to_end(body)?;
        line.clear();
        stream.read_line(&mut line)?;
        if read == 0 {
            return Ok(());
        }
    }
}
