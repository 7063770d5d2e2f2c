//! Asks a running control plane through its admin API.

use super::output::{Exit, Failure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// Where the admin API is.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArg {
    /// Address of the admin API of the control plane to ask.
    #[arg(long, default_value = crate::app::ADMIN_DEFAULT, value_name = "ADDR")]
    pub(super) admin: SocketAddr,
}

/// Answers beyond this are not ours.
const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// `GET`, or `POST` with no body. None for "no such object".
pub(super) fn ask<T: DeserializeOwned>(
    admin: SocketAddr,
    method: Method,
    path: &str,
) -> Result<Option<T>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange(admin, method, path)).await });
    let (status, body) = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            let message = format!("no control plane answers at {admin} ({why}): is it running? See --admin");
            return Err(Failure::unreachable(message));
        }
        Err(_) => return Err(Failure::unreachable(format!("{admin} did not answer within {PATIENCE:?}"))),
    };
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if status == StatusCode::CONFLICT {
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(Failure { exit: Exit::Findings, message });
    }
    if !status.is_success() {
        let said = String::from_utf8_lossy(&body);
        return Err(Failure::unreachable(format!("{admin} answered {status}: {}", said.trim())));
    }
    let value = serde_json::from_slice(&body)
        .map_err(|why| Failure::unreachable(format!("{admin} is no admin API of ours: {why}")))?;
    Ok(Some(value))
}

type Exchanged = Result<(StatusCode, bytes::Bytes), Box<dyn std::error::Error + Send + Sync>>;

async fn exchange(admin: SocketAddr, method: Method, path: &str) -> Exchanged {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", admin.to_string())
        .header("x-tidegate-admin", "1")
        .body(Empty::<bytes::Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await?.to_bytes();
        Ok((status, body))
    };
    tokio::select! {
        answer = answer => answer,
        ended = connection => Err(ended.err().map_or("the connection ended".into(), Into::into)),
    }
}
