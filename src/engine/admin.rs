//! Envoy's admin, asked over its socket: is it LIVE, let it drain, how many are connected.
//!
//! How Envoy 1.40 drains [run]:
//! * `POST /healthcheck/fail`: `/ready` says DRAINING, health check filters answer 503, and every
//!   HTTP/1 response carries `connection: close` (HTTP/2: GOAWAY) from now on. Without it, a
//!   graceful drain closes connections by a probability that grows over `--drain-time-s`.
//! * `POST /drain_listeners?graceful`: begins the drain sequence; listeners go on accepting until
//!   `--drain-time-s` (600 s) is over, then they are closed. The process does not exit.
//! * `POST /drain_listeners`: listening sockets are closed at once, also after the former; open
//!   connections live on and are still answered.
//! * Telling is not closing: a connection that was told stays until its client closes it, or for
//!   the connection manager's `drain_timeout` (5 s) and `delayed_close_timeout` (1 s). An idle one is
//!   told nothing before its next answer.
//! * `downstream_cx_active` counts idle connections too, and the admin's own.
//! * SIGTERM closes all that is open and exits with 0.

use super::{AdminAddress, program::Ready};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// An answer later than this is none. Envoy's main thread can be busy for seconds with a large
/// configuration.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// More than every answer we ask for.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// All we ever ask of the stats: reading more would hold up Envoy's main thread.
const CONNECTIONS: &str = "/stats?type=Gauges&filter=%5E(http%7Clistener)%5C..*%5C.downstream_cx_active%24";

/// Why the admin gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("cannot connect to Envoy's admin at {address} ({source})")]
    Connect {
        address: AdminAddress,
        #[source]
        source: io::Error,
    },
    #[error("Envoy's admin broke off ({0})")]
    Http(#[from] hyper::Error),
    #[error("Envoy's admin answered more than {ANSWER_MAX_BYTES} bytes or broke off ({0})")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("Envoy's admin answered {0} to {1}")]
    Status(StatusCode, &'static str),
    #[error("Envoy's admin did not answer within {ANSWER_TIMEOUT:?}")]
    Timeout,
}

impl AdminAddress {
    pub(super) async fn ready(&self) -> Result<Ready, AdminError> {
        let (status, _, pid) = self.ask(Method::GET, "/ready").await?;
        Ok(Ready { live: status == StatusCode::OK, pid })
    }

    /// Every answer from now on tells its client to come back on a new connection.
    pub(super) async fn begin_drain(&self) -> Result<(), AdminError> {
        self.order("/healthcheck/fail").await?;
        self.order("/drain_listeners?graceful").await
    }

    /// New connections are refused from now on.
    pub(super) async fn stop_listening(&self) -> Result<(), AdminError> {
        self.order("/drain_listeners").await
    }

    /// How many clients are connected, over HTTP or a TCP proxy.
    pub(super) async fn connections(&self) -> Result<u64, AdminError> {
        let (status, body, _) = self.ask(Method::GET, CONNECTIONS).await?;
        if status != StatusCode::OK {
            return Err(AdminError::Status(status, CONNECTIONS));
        }
        Ok(count(&String::from_utf8_lossy(&body)))
    }

    async fn order(&self, path: &'static str) -> Result<(), AdminError> {
        let (status, _, _) = self.ask(Method::POST, path).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(AdminError::Status(status, path)) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &'static str,
    ) -> Result<(StatusCode, Bytes, Option<u32>), AdminError> {
        let refused = |source| AdminError::Connect { address: self.clone(), source };
        let answer = async {
            match self {
                Self::Unix(socket) => {
                    let stream = UnixStream::connect(socket).await.map_err(refused)?;
                    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
                    let (status, body) = exchange(stream, method, path).await?;
                    Ok((status, body, pid.and_then(|pid| u32::try_from(pid).ok())))
                }
                Self::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(refused)?;
                    let (status, body) = exchange(stream, method, path).await?;
                    Ok((status, body, None))
                }
            }
        };
        timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| AdminError::Timeout)?
    }
}

/// One request on a connection of its own.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: Method,
    path: &'static str,
) -> Result<(StatusCode, Bytes), AdminError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "admin")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("the request is made of constants");
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(AdminError::Body)?;
        Ok((head.status, body.to_bytes()))
    };
    tokio::pin!(answer);
    // The connection does the I/O of the answer, in this task: nothing is left behind.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// The larger of both sums: a bootstrap may have put one of them on its diet, and each
/// connection of HTTP is also one of its listener.
fn count(stats: &str) -> u64 {
    let (mut http, mut listeners) = (0_u64, 0_u64);
    for (name, value) in stats.lines().filter_map(|line| line.rsplit_once(": ")) {
        let value: u64 = value.trim().parse().unwrap_or(0);
        if name.starts_with("http.admin.") || name.starts_with("listener.admin.") {
            // We are asking over it.
        } else if name.starts_with("http.") {
            http = http.saturating_add(value);
        } else if !name.contains(".worker_") {
            listeners = listeners.saturating_add(value);
        }
    }
    http.max(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_once_and_without_ours() {
        let stats = "http.admin.downstream_cx_active: 1\nhttp.web.downstream_cx_active: 2\n\
            http.tls.downstream_cx_active: 1\nlistener.127.0.0.1_80.downstream_cx_active: 2\n\
            listener.127.0.0.1_80.worker_0.downstream_cx_active: 2\nlistener.[__1]_80.downstream_cx_active: 2\n\
            listener.admin.downstream_cx_active: 1\nlistener.admin.main_thread.downstream_cx_active: 1\n";
        assert_eq!(count(stats), 4);
        assert_eq!(
            count("http.web.downstream_cx_active: 2\n"),
            2,
            "listener stats rejected by the bootstrap"
        );
        assert_eq!(count("http.admin.downstream_cx_active: 1\n"), 0);
        assert_eq!(count(""), 0);
    }

    #[tokio::test]
    async fn nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let address = AdminAddress::Unix(folder.path().join("admin.sock"));
        let error = address.ready().await.expect_err("nobody listens").to_string();
        assert!(error.contains("admin.sock"), "{error}");
    }
}
