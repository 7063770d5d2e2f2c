//! One UDP socket.

use super::{QUERY_BYTES_MAX, Service};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::net::UdpSocket;

/// After an error of the socket itself, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(service: Arc<Service>, socket: UdpSocket) -> Infallible {
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, source)) => {
                if let Some(reply) = service.answer_datagram(&buffer[..len], source.ip())
                    // Not awaited: a full send buffer must not hold up the queries behind.
                    && socket.try_send_to(&reply, source).is_err()
                {
                    service.counters.unsent();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "The DNS socket cannot receive");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}
