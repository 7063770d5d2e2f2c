//! An HTTP/2 client: plain (prior knowledge) or over TLS, and gRPC on it.

use super::{
    backend::runtime,
    client::{Answer, PATIENCE},
    tls::{self, Trust},
};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{error::Error, future::Future, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

type Failure = Box<dyn Error + Send + Sync>;

/// One connection; several hosts may be asked on it.
pub struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl Http2 {
    pub fn plain(at: SocketAddr) -> Result<Self, Failure> {
        wait(async move {
            let stream = TcpStream::connect(at).await?;
            Self::over(stream, "http").await
        })
    }

    /// Fails also where the peer does not choose `h2`.
    pub fn tls(at: SocketAddr, sni: &str) -> Result<Self, Failure> {
        let config = Arc::new(tls::client_config(Trust::Verified, &["h2", "http/1.1"]));
        let name = tls::server_name(Some(sni));
        wait(async move {
            let stream = TcpStream::connect(at).await?;
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err("h2 was not chosen".into());
            }
            Self::over(stream, "https").await
        })
    }

    async fn over<S>(stream: S, scheme: &'static str) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        runtime().spawn(connection);
        Ok(Self { sender, scheme })
    }

    pub fn get(&mut self, host: &str, path: &str) -> Result<Answer, Failure> {
        let request = Request::get(self.uri(host, path)?).body(Full::default())?;
        self.send(request).map(|(answer, _)| answer)
    }

    /// One unary call: the messages that came back, and `grpc-status`.
    pub fn grpc(&mut self, host: &str, method: &str, message: &[u8]) -> Result<(Vec<u8>, String), Failure> {
        let length = u32::try_from(message.len())?;
        let framed = [&[0_u8], length.to_be_bytes().as_slice(), message].concat();
        let request = Request::post(self.uri(host, method)?);
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let (answer, trailers) = self.send(request.body(Full::new(framed.into()))?)?;
        let status = trailers.get("grpc-status").and_then(|value| value.to_str().ok());
        let status = status.or(answer.header("grpc-status")).unwrap_or("none").to_owned();
        Ok((answer.body.get(5..).unwrap_or_default().to_vec(), status))
    }

    fn uri(&self, host: &str, path: &str) -> Result<Uri, Failure> {
        Ok(Uri::builder().scheme(self.scheme).authority(host).path_and_query(path).build()?)
    }

    fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(Answer, http::HeaderMap), Failure> {
        let sent = self.sender.send_request(request);
        wait(async move {
            let (head, body) = sent.await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            let (status, body) = (head.status.as_u16(), body.to_bytes().to_vec());
            Ok((Answer { status, headers, body }, trailers))
        })
    }
}

fn wait<T>(what: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime().block_on(async { tokio::time::timeout(PATIENCE, what).await? })
}
