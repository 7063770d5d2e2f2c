//! A small HTTP/1.1 client that says exactly what it is told, and hides nothing
//! of what comes back: a library would mend the requests that tests are about.

use serde_json::Value;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Beyond it an answer counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub host: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    #[must_use]
    pub fn get(host: &str, path: &str) -> Self {
        Self::new("GET", host, path)
    }

    #[must_use]
    pub fn new(method: &str, host: &str, path: &str) -> Self {
        let [method, host, path] = [method, host, path].map(str::to_owned);
        Self { method, host, path, headers: Vec::new(), body: Vec::new() }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    #[must_use]
    pub fn show(&self) -> String {
        format!("{} {}{}", self.method, self.host, self.path)
    }

    fn encode(&self) -> Vec<u8> {
        let Self { method, host, path, headers, body } = self;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method.as_str(), "POST" | "PUT" | "PATCH") {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        [text.as_bytes(), body].concat()
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What the body says, where it is JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.show()))
    }

    /// The Service whose backend answered, or nothing where none did.
    #[must_use]
    pub fn service(&self) -> Option<String> {
        let said: Value = serde_json::from_slice(&self.body).ok()?;
        (self.status == 200).then(|| said["service"].as_str().map(str::to_owned)).flatten()
    }

    /// A header of the request, as the backend saw it.
    #[must_use]
    #[track_caller]
    pub fn seen(&self, header: &str) -> Option<String> {
        self.json()["headers"][header].as_str().map(str::to_owned)
    }

    /// A backend of this Service answered.
    #[track_caller]
    pub fn served_by(&self, service: &str) -> &Self {
        assert_eq!(self.service().as_deref(), Some(service), "{}", self.show());
        self
    }

    #[track_caller]
    pub fn refused_with(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.show());
        self
    }

    #[must_use]
    pub fn show(&self) -> String {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(600).collect();
        format!("{} {:?} {body}", self.status, self.headers)
    }
}

pub fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request on a connection of its own.
pub fn send(at: SocketAddr, request: &Request) -> io::Result<Answer> {
    Connection::new(connect(at)?).send(request)
}

#[must_use]
#[track_caller]
pub fn get(at: SocketAddr, host: &str, path: &str) -> Answer {
    must(at, &Request::get(host, path))
}

/// One request that must be answered.
#[must_use]
#[track_caller]
pub fn must(at: SocketAddr, request: &Request) -> Answer {
    send(at, request).unwrap_or_else(|why| panic!("{} at {at}: {why}", request.show()))
}

/// A connection that is kept alive.
pub struct Connection<S: Read + Write> {
    stream: BufReader<S>,
    /// The peer said that it closes.
    pub closing: bool,
}

impl<S: Read + Write> Connection<S> {
    pub fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream), closing: false }
    }

    pub fn send(&mut self, request: &Request) -> io::Result<Answer> {
        self.write(&request.encode())?;
        let answer = self.read(request.method == "HEAD")?;
        self.closing = answer.header("connection") == Some("close");
        Ok(answer)
    }

    /// Bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    pub fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(bytes)
    }

    fn read(&mut self, bodiless: bool) -> io::Result<Answer> {
        let first = self.line()?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status: u16 = status.ok_or_else(|| bad(format!("no status line: '{first}'")))?;
        let mut answer = Answer { status, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("no header: '{line}'")))?;
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if !bodiless && status >= 200 && !matches!(status, 204 | 304) {
            answer.body = self.body(&answer)?;
        }
        Ok(answer)
    }

    fn body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line()?;
                let size =
                    usize::from_str_radix(&size, 16).map_err(|_| bad(format!("no chunk: '{size}'")))?;
                let from = body.len();
                body.resize(from + size, 0);
                self.stream.read_exact(&mut body[from..])?;
                self.line()?;
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        match answer.header("content-length").and_then(|text| text.parse().ok()) {
            Some(length) => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body)?;
            }
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer"));
        }
        Ok(line.trim_end().to_owned())
    }
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
