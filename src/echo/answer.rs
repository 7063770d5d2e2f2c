//! The answers over plain HTTP.

use super::Scene;
use bytes::{Buf, Bytes};
use futures_util::stream::unfold;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, convert::Infallible, time::Duration};
use tokio::time::sleep;

/// The largest body that is taken; it is counted or passed on, never kept.
const BODY_MAX_BYTES: u64 = 16 << 20;
/// The longest `/delay`.
const DELAY_MAX: Duration = Duration::from_secs(600);
/// The longest `/stream`: 5 minutes.
const STREAM_MAX_CHUNKS: u32 = 6_000;
/// Between two chunks of a `/stream`.
const STREAM_PERIOD: Duration = Duration::from_millis(50);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// gRPC over HTTP/2, Responses: status codes.
const GRPC_OK: HeaderValue = HeaderValue::from_static("0");
const GRPC_RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What was asked, as this backend saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which backend answers: the name it was given.
    pub service: String,
    /// `:authority` (HTTP/2) or `Host`; empty if neither was sent.
    pub host: String,
    pub method: String,
    /// As it came, undecoded.
    pub path: String,
    pub query: Option<String>,
    /// All values of a name, in their order; names in small letters.
    pub headers: BTreeMap<String, Vec<String>>,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: String,
    /// The address the connection came from.
    pub peer: String,
    pub body_bytes: u64,
}

pub(super) async fn asked(request: Request<Incoming>, scene: &Scene) -> Response<Body> {
    told(request, scene, StatusCode::OK).await
}

pub(super) async fn with_status(request: Request<Incoming>, scene: &Scene, code: &str) -> Response<Body> {
    // 1xx are no final answers (RFC 9110, 15.2).
    match code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(status) if !status.is_informational() => told(request, scene, status).await,
        Some(_) | None => refused("/status/<code> takes 200 to 999\n"),
    }
}

pub(super) async fn delayed(request: Request<Incoming>, scene: &Scene, time: &str) -> Response<Body> {
    match time.parse().map(Duration::from_millis) {
        Ok(delay) if delay <= DELAY_MAX => {
            sleep(delay).await;
            asked(request, scene).await
        }
        Ok(_) | Err(_) => refused("/delay/<ms> takes 0 to 600000\n"),
    }
}

/// `chunk 1` to `chunk n`, a line each. The first comes at once; a shutdown ends it early.
pub(super) fn stream(chunks: &str, scene: Scene) -> Response<Body> {
    let Some(chunks) = chunks.parse::<u32>().ok().filter(|chunks| *chunks <= STREAM_MAX_CHUNKS) else {
        return refused("/stream/<n> takes 0 to 6000\n");
    };
    let lines = unfold((1, scene), move |(chunk, mut scene)| async move {
        if chunk > chunks {
            return None;
        }
        if chunk > 1 {
            tokio::select! {
                () = sleep(STREAM_PERIOD) => {}
                () = scene.closed() => return None,
            }
        }
        let line = Frame::data(Bytes::from(format!("chunk {chunk}\n")));
        Some((Ok(line), (chunk + 1, scene)))
    });
    response(StatusCode::OK, TEXT, StreamBody::new(lines).boxed_unsync())
}

pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content = request.headers().get(header::CONTENT_TYPE);
    request.method() == Method::POST
        && content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}

/// Sends back each piece as it comes, whatever its messages: unary and both ways of streaming.
pub(super) fn grpc(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let content = head.headers.get(header::CONTENT_TYPE).cloned().unwrap_or(TEXT);
    let pieces = unfold(Some((body, 0)), |state| async move {
        let (mut body, before) = state?;
        let status = match next_data(&mut body).await {
            Some(Ok(data)) if before + size(&data) <= BODY_MAX_BYTES => {
                let taken = before + size(&data);
                return Some((Ok(Frame::data(data)), Some((body, taken))));
            }
            Some(Ok(_)) => GRPC_RESOURCE_EXHAUSTED,
            // The client broke off: nobody reads the end, but it must have one.
            Some(Err(_)) | None => GRPC_OK,
        };
        let trailers = HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), status)]);
        Some((Ok(Frame::trailers(trailers)), None))
    });
    let mut response = response(StatusCode::OK, content, StreamBody::new(pieces).boxed_unsync());
    // HTTP/1.1 sends trailers only if they were announced (RFC 9110, 6.6.2).
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("grpc-status"));
    response
}

async fn told(request: Request<Incoming>, scene: &Scene, status: StatusCode) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let mut body_bytes = 0;
    while let Some(data) = next_data(&mut body).await {
        match data {
            Ok(data) => body_bytes += size(&data),
            Err(_) => return refused("the body broke off\n"),
        }
        if body_bytes > BODY_MAX_BYTES {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 16 MiB\n");
        }
    }
    let asked = describe(&head, scene, body_bytes);
    let json = serde_json::to_vec(&asked).expect("strings and numbers are JSON");
    if [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED].contains(&status) {
        return response(status, JSON, empty());
    }
    response(status, JSON, Full::new(Bytes::from(json)).boxed_unsync())
}

fn describe(head: &http::request::Parts, scene: &Scene, body_bytes: u64) -> Asked {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str().to_owned()).or_default().push(value);
    }
    let authority = head.uri.authority().map(ToString::to_string);
    let host = authority.or_else(|| headers.get("host").and_then(|hosts| hosts.first().cloned()));
    Asked {
        service: scene.name.to_string(),
        host: host.unwrap_or_default(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers,
        protocol: format!("{:?}", head.version),
        peer: scene.peer.to_string(),
        body_bytes,
    }
}

/// The next piece of a body, its trailers passed over.
async fn next_data(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        match body.frame().await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

fn size(data: &Bytes) -> u64 {
    u64::try_from(data.remaining()).unwrap_or(u64::MAX)
}

pub(super) fn refused(why: &'static str) -> Response<Body> {
    text(StatusCode::BAD_REQUEST, why)
}

pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    response(status, TEXT, Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync())
}

pub(super) fn empty() -> Body {
    Full::new(Bytes::new()).boxed_unsync()
}

fn response(status: StatusCode, content: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    response
}
