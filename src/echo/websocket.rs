//! The WebSocket echo: RFC 6455 over an HTTP/1.1 upgrade.

use super::{Scene, answer};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// The largest message, which is kept whole until it is sent back.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// What may wait to be sent to a client that does not read.
const WRITE_MAX_BYTES: usize = 4 << 20;
/// How long the other side may take to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Carries the upgrade from the request, which ends with its answer, to the connection.
pub(super) type Queue = mpsc::Sender<OnUpgrade>;

pub(super) fn queue() -> (Queue, mpsc::Receiver<OnUpgrade>) {
    // A connection is upgraded once.
    mpsc::channel(1)
}

/// Switches protocols, or says why not (RFC 6455, 4.2).
pub(super) fn accept(mut request: Request<Incoming>, upgrades: &Queue) -> Response<answer::Body> {
    let Some(key) = wanted(request.version(), request.headers()) else {
        let mut response =
            answer::text(StatusCode::UPGRADE_REQUIRED, "/ws speaks WebSocket version 13 over HTTP/1.1\n");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if request.version() == Version::HTTP_11 {
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        return response;
    };
    if upgrades.try_send(hyper::upgrade::on(&mut request)).is_err() {
        return answer::refused("this connection is upgraded already\n");
    }
    let mut response = Response::new(answer::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    response
}

/// The `Sec-WebSocket-Accept` of a request that is as it has to be.
fn wanted(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word)))
    };
    let upgrades = says(header::CONNECTION, "upgrade") && says(header::UPGRADE, "websocket");
    let version_13 = says(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| version == Version::HTTP_11)?;
    if !(upgrades && version_13) {
        return None;
    }
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// Sends each message back until the client closes, breaks off, or the server shuts down.
pub(super) async fn echo(upgrade: OnUpgrade, scene: Scene) {
    let peer = scene.peer;
    match upgrade.await {
        Ok(upgraded) => {
            if let Err(error) = echo_messages(upgraded, scene).await {
                tracing::debug!(%peer, %error, "WebSocket ended early");
            }
        }
        Err(error) => tracing::debug!(%peer, %error, "Connection not upgraded"),
    }
}

async fn echo_messages(upgraded: Upgraded, mut scene: Scene) -> Result<(), Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES))
        .max_write_buffer_size(WRITE_MAX_BYTES);
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = scene.closed() => break,
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => socket.send(message).await?,
            // The library answers pings and closes; it does so while we read on.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
    let going = CloseFrame { code: CloseCode::Away, reason: "the server shuts down".into() };
    socket.close(Some(going)).await?;
    // Until its close has come: what is in flight would else reset the connection before ours is read.
    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = socket.next().await {} }).await;
    Ok(())
}
