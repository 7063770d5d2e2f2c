//! A TCP proxy before the xDS server that cuts, and slows down, what goes through it.
//!
//! It sees records of TLS, not what is in them: each write of either side is one or
//! more, so that a cut after the n-th record is a cut between, or amid, two messages.

use crate::support::live::backend::runtime;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

/// A type, a version, and a length: RFC 8446, 5.1.
const RECORD_HEADER: usize = 5;
/// What a slow side takes of the other before it stops: small, so that it is felt.
const SLOW_BUFFER: u32 = 4_096;

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Records until the cut; below one, there is none to come.
    left: AtomicI64,
    /// The last record goes out by half, and the connection ends by a reset.
    rough: AtomicBool,
    /// What is taken of the server before it is passed on is little.
    narrow: bool,
    /// From now on the client reads a byte a second.
    slow: AtomicBool,
    cuts: AtomicUsize,
    connections: AtomicUsize,
    /// Bytes to the client.
    down: AtomicU64,
}

impl Proxy {
    #[must_use]
    pub(super) fn start(to: SocketAddr) -> Self {
        Self::of(to, Shared::default())
    }

    /// One that the server feels when it is slow.
    #[must_use]
    pub(super) fn narrow(to: SocketAddr) -> Self {
        Self::of(to, Shared { narrow: true, ..Shared::default() })
    }

    fn of(to: SocketAddr, shared: Shared) -> Self {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(shared);
        runtime().spawn(accept(listener, to, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Cuts the connection there is, or the next, after so many records of either side.
    pub(super) fn cut_after(&self, records: i64, rough: bool) {
        self.shared.rough.store(rough, Ordering::Relaxed);
        self.shared.left.store(records, Ordering::Relaxed);
    }

    /// From now on clients read one byte a second.
    pub(super) fn slow_down(&self) {
        self.shared.slow.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub(super) fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    #[must_use]
    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes that went to clients.
    #[must_use]
    pub(super) fn down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        runtime().spawn(async move {
            let socket = TcpSocket::new_v4().expect("a socket");
            if shared.narrow {
                socket.set_recv_buffer_size(SLOW_BUFFER).expect("a small buffer");
            }
            let Ok(server) = socket.connect(to).await else { return };
            shared.connections.fetch_add(1, Ordering::Relaxed);
            connection(client, server, &shared).await;
        });
    }
}

async fn connection(client: TcpStream, server: TcpStream, shared: &Shared) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("it is TCP");
    }
    if shared.rough.load(Ordering::Relaxed) {
        // Closing then resets.
        for stream in [&client, &server] {
            stream.set_zero_linger().expect("it is TCP");
        }
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Whichever ends first ends both.
    tokio::select! {
        () = copy(from_client, to_server, shared, false) => {}
        () = copy(from_server, to_client, shared, true) => {}
    }
}

/// Record by record, until either side or the plan ends it.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, down: bool) {
    let mut record = Vec::new();
    loop {
        if down && shared.slow.load(Ordering::Relaxed) {
            let mut byte = [0];
            if from.read_exact(&mut byte).await.is_err() || to.write_all(&byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        record.resize(RECORD_HEADER, 0);
        if from.read_exact(&mut record).await.is_err() {
            return;
        }
        let length = u16::from_be_bytes([record[3], record[4]]);
        record.resize(RECORD_HEADER + usize::from(length), 0);
        if from.read_exact(&mut record[RECORD_HEADER..]).await.is_err() {
            return;
        }
        let last =
            shared.left.load(Ordering::Relaxed) > 0 && shared.left.fetch_sub(1, Ordering::Relaxed) == 1;
        let rough = shared.rough.load(Ordering::Relaxed);
        let end = if last && rough { record.len() / 2 } else { record.len() };
        if to.write_all(&record[..end]).await.is_err() {
            return;
        }
        if down {
            shared.down.fetch_add(end as u64, Ordering::Relaxed);
        }
        if last {
            shared.cuts.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}
