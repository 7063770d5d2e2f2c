//! The admin API: what the CLI and probes ask, as JSON over HTTP.
//!
//! *Takes* questions. *Gives* the types of `status`, Prometheus text, and two
//! probes. *Invariants*: loopback by default; it shows no secret (what it shows
//! holds none); one change only can be made through it, releasing a VIP; a browser
//! page of another origin cannot make it (a header no form can send). *To add one*:
//! a route in [`routes`], a method of [`Site`].
//!
//! | route | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 when all was read and every engine is in sync; else 503 and the reason |
//! | `GET /metrics` | OpenMetrics text, as Prometheus scrapes it |
//! | `GET /api/v1/status` | [`Status`](crate::status::Status) |
//! | `GET /api/v1/status/KIND[/NAMESPACE]/NAME` | [`ObjectStatus`](crate::status::ObjectStatus), or 404 |
//! | `GET /api/v1/vips` | list of [`VipStatus`](crate::status::VipStatus) |
//! | `GET /api/v1/vips/history` | list of [`HistoryEntry`](crate::store::HistoryEntry), newest first |
//! | `POST /api/v1/vips/release?claim=NAME` | the addresses released |

mod metrics;
mod site;

pub use site::{Processes, Site, Supervised};

use crate::base::ObjectKey;
use serde::Serialize;
use std::{collections::HashMap, convert::Infallible};
use warp::{
    Filter, Reply,
    http::{Response, StatusCode},
};

/// Events of the VIP ledger shown at most.
const HISTORY_SHOWN: usize = 1_000;
/// A form of another origin cannot set it, and scripts of one are not allowed to.
const MUTATION_HEADER: &str = "x-tidegate-admin";

type Answer = Result<Response<warp::hyper::body::Bytes>, Infallible>;

/// All routes, for `warp::serve`.
pub fn routes(site: Site) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
    let with = warp::any().map(move || site.clone());
    let health = warp::path!("healthz").map(|| text(StatusCode::OK, "ok\n"));
    let ready = warp::path!("readyz").and(with.clone()).and_then(ready);
    let numbers = warp::path!("metrics").and(with.clone()).and_then(numbers);
    let api = warp::path!("api" / "v1" / ..);
    let all = warp::path!("status").and(with.clone()).and_then(all);
    let one = warp::path("status").and(warp::path::tail()).and(with.clone()).and_then(one);
    let history = warp::path!("vips" / "history").and(with.clone()).and_then(history);
    let vips = warp::path!("vips").and(with.clone()).and_then(vips);
    let release = warp::post()
        .and(warp::path!("vips" / "release"))
        .and(warp::header::exact(MUTATION_HEADER, "1"))
        .and(warp::query::<HashMap<String, String>>())
        .and(with)
        .and_then(release);
    let read = health.or(ready).unify().or(numbers).unify();
    let read = read.or(api.and(all.or(one).unify().or(history).unify().or(vips).unify())).unify();
    warp::get().and(read).or(api.and(release)).unify()
}

async fn ready(site: Site) -> Answer {
    Ok(match site.unready().await {
        None => text(StatusCode::OK, "ok\n"),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    })
}

async fn numbers(site: Site) -> Answer {
    let mut response = text(StatusCode::OK, site.metrics().await);
    let kind = warp::http::HeaderValue::from_static(metrics::CONTENT_TYPE);
    response.headers_mut().insert(warp::http::header::CONTENT_TYPE, kind);
    Ok(response)
}

async fn all(site: Site) -> Answer {
    Ok(json(&site.status().await))
}

async fn one(tail: warp::path::Tail, site: Site) -> Answer {
    let object = match tail.as_str().parse::<ObjectKey>() {
        Ok(object) => object,
        Err(why) => return Ok(text(StatusCode::BAD_REQUEST, format!("{why}\n"))),
    };
    Ok(match site.object(object).await {
        Some(status) => json(&status),
        None => text(StatusCode::NOT_FOUND, "no such object\n"),
    })
}

async fn vips(site: Site) -> Answer {
    Ok(json(&site.vips().await))
}

async fn history(site: Site) -> Answer {
    Ok(match site.history(HISTORY_SHOWN).await {
        Ok(events) => json(&events),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    })
}

async fn release(query: HashMap<String, String>, site: Site) -> Answer {
    let Some(claim) = query.get("claim") else {
        return Ok(text(StatusCode::BAD_REQUEST, "name the claim: ?claim=NAME\n"));
    };
    Ok(match site.release(claim.as_str().into()).await {
        Ok(addresses) if addresses.is_empty() => text(StatusCode::NOT_FOUND, "this claim holds no address\n"),
        Ok(addresses) => json(&addresses),
        Err(why) => text(StatusCode::CONFLICT, format!("{why}\n")),
    })
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<warp::hyper::body::Bytes> {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response
}

fn json<T: Serialize>(value: &T) -> Response<warp::hyper::body::Bytes> {
    let body = serde_json::to_vec(value).expect("our own types are JSON");
    let mut response = Response::new(body.into());
    let json = warp::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(warp::http::header::CONTENT_TYPE, json);
    response
}
