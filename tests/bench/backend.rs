//! Backends that answer their own name, each connection on a thread.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

/// Serves until the process ends. Every backend listens on the same port, since
/// an EndpointSlice that moves from one to the other changes its address alone.
pub fn start(backends: &[(&'static str, &str)]) -> u16 {
    let first = TcpListener::bind((backends[0].1, 0)).expect("a free port on loopback");
    let port = first.local_addr().expect("it is bound").port();
    serve(first, backends[0].0);
    for (name, address) in &backends[1..] {
        serve(TcpListener::bind((*address, port)).expect("the same port on another address"), name);
    }
    port
}

fn serve(listener: TcpListener, name: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, name));
        }
    });
}

fn answer(stream: TcpStream, name: &str) {
    let Ok(()) = stream.set_nodelay(true) else { return };
    let Ok(mut write) = stream.try_clone() else { return };
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
    // Requests have no bodies: an empty line ends each.
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) if line.is_empty() => {
                if write.write_all(reply.as_bytes()).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
