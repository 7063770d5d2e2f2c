//! An upstream that echoes: the request's head as a body, or the bytes of an upgrade.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

pub struct Upstream {
    pub port: u16,
}

impl Upstream {
    /// Serves until the test program ends, one thread a connection.
    pub fn start() -> Upstream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Errors here are the client's going away.
                std::thread::spawn(move || drop(serve(stream)));
            }
        });
        Upstream { port }
    }
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    if head.starts_with("GET /silent ") {
        // Nothing is said until Envoy gives up and closes.
        reader.read_to_end(&mut Vec::new())?;
    } else if head.to_ascii_lowercase().contains("upgrade: websocket") {
        writer.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )?;
        std::io::copy(&mut reader, &mut writer)?;
    } else {
        let length = head.len();
        write!(writer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{head}")?;
    }
    Ok(())
}
