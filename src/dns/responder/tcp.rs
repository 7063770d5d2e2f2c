//! DNS over TCP (RFC 7766): many queries a connection, answered in order.

use super::{QUERY_BYTES_MAX, Service};
use crate::dns::{answer::Transport, rrl::Prefix};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{Id, JoinSet},
    time::timeout,
};

/// Connections at once; further ones are closed at once.
const TCP_MAX: usize = 1_000;
/// Connections at once from one /24 or /56 that rate limiting does not exempt.
const TCP_PREFIX_MAX: u32 = 50;
/// For a whole query to arrive after the one before, and for a reply to be
/// taken (RFC 7766 section 6.2.3 asks for seconds): dripping octets gains nothing.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptor left), so that it does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The connections there are, and how many each prefix has.
#[derive(Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    prefixes: HashMap<Id, Prefix>,
    counts: BTreeMap<Prefix, u32>,
}

impl Connections {
    /// Accepts for ever.
    pub(super) async fn serve(&mut self, service: &Arc<Service>, listener: &TcpListener) -> Infallible {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(service, stream, peer.ip()),
                    Err(error) => {
                        tracing::warn!(%error, "The DNS listener cannot accept");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                },
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.forget(match ended {
                        Ok((id, ())) => id,
                        Err(error) => error.id(),
                    });
                }
            }
        }
    }

    /// Ends all of them and waits for that.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
    }

    fn admit(&mut self, service: &Arc<Service>, stream: TcpStream, peer: IpAddr) {
        let prefix = Prefix::of(peer);
        let count = self.counts.get(&prefix).copied().unwrap_or(0);
        let crowded = count >= TCP_PREFIX_MAX && !service.exempts(peer);
        if crowded || self.tasks.len() >= TCP_MAX {
            service.counters.connection_refused();
            return;
        }
        service.counters.connection();
        let service = Arc::clone(service);
        let task = self.tasks.spawn(async move {
            // Whatever ends it, it is the client's affair: a reset, a stall, an oversize.
            if let Err(error) = converse(&service, stream).await {
                tracing::debug!(%error, "A DNS connection was ended");
            }
        });
        self.prefixes.insert(task.id(), prefix);
        *self.counts.entry(prefix).or_insert(0) += 1;
    }

    fn forget(&mut self, id: Id) {
        let prefix = self.prefixes.remove(&id).expect("each task was noted with its prefix");
        let count = self.counts.get_mut(&prefix).expect("a noted prefix is counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&prefix);
        }
    }
}

async fn converse(service: &Service, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut query = Vec::new();
    let mut framed = Vec::new();
    while timeout(TCP_IDLE, read_query(&mut stream, &mut query)).await?? {
        // No header, or a response: such a peer speaks no DNS that we could go on with.
        let Some(reply) = service.answer(&query, Transport::Tcp) else { break };
        service.counters.answered(reply.rcode, reply.truncated);
        framed.clear();
        let len = u16::try_from(reply.bytes.len()).expect("a TCP reply is held to 65,535 bytes");
        framed.extend_from_slice(&len.to_be_bytes());
        framed.extend_from_slice(&reply.bytes);
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// Reads one framed query; false at the end of the stream between two.
async fn read_query(stream: &mut BufReader<TcpStream>, query: &mut Vec<u8>) -> io::Result<bool> {
    let len = match stream.read_u16().await {
        Ok(len) => usize::from(len),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    if len > QUERY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a query longer than any of ours"));
    }
    query.resize(len, 0);
    stream.read_exact(query).await?;
    Ok(true)
}
