//! A client that never stops asking, and counts what it is given.

use super::{
    client::{self, Connection, Request},
    tls,
};
use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between two requests: a steady stream, not a flood that starves the rest.
const PAUSE: Duration = Duration::from_millis(1);

/// Requests on a thread of its own.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Tally>,
}

/// What was answered.
#[derive(Debug, Default)]
pub struct Tally {
    /// 200, by the Service that answered.
    pub services: BTreeMap<String, usize>,
    /// Everything else, in words, as often as it was seen.
    pub failures: BTreeMap<String, usize>,
}

impl Tally {
    #[track_caller]
    pub fn all_good(&self) {
        assert!(self.failures.is_empty() && !self.services.is_empty(), "{self:?}");
    }
}

impl Load {
    /// On one plain connection as long as the peer keeps it.
    #[must_use]
    pub fn plain(at: SocketAddr, request: Request) -> Self {
        let mut connection: Option<Connection<TcpStream>> = None;
        Self::start(move || {
            let mut used = match connection.take() {
                Some(connection) => connection,
                None => Connection::new(client::connect(at)?),
            };
            let answer = used.send(&request)?;
            connection = (!used.closing).then_some(used);
            Ok(answer)
        })
    }

    /// A verified TLS connection for each request.
    #[must_use]
    pub fn tls(at: SocketAddr, request: Request) -> Self {
        Self::start(move || tls::send(at, &request))
    }

    fn start(mut ask: impl FnMut() -> io::Result<client::Answer> + Send + 'static) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let mut tally = Tally::default();
            while !stopped.load(Ordering::Relaxed) {
                match ask() {
                    Ok(answer) => match answer.service() {
                        Some(service) => *tally.services.entry(service).or_default() += 1,
                        None => *tally.failures.entry(answer.show()).or_default() += 1,
                    },
                    Err(why) => *tally.failures.entry(why.to_string()).or_default() += 1,
                }
                counter.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
            tally
        });
        Self { stop, count, thread }
    }

    /// Waits until so many more requests were answered, or failed.
    #[track_caller]
    pub fn more(&self, requests: usize) {
        let (begin, from) = (Instant::now(), self.count.load(Ordering::Relaxed));
        while self.count.load(Ordering::Relaxed) < from + requests {
            assert!(begin.elapsed() < super::DEADLINE, "requests hang");
            thread::sleep(PAUSE);
        }
    }

    #[must_use]
    pub fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only counts")
    }
}
