//! The HTTP side: routes, and what is the same for all of them.

mod auth;
mod body;
mod change;
mod charge;
mod deliveries;
mod error;
mod handout;
mod health;
mod input;
mod listen;
mod logs;
mod ping;
mod query;
mod read;
mod reload;
mod report;
mod requests;
mod scaler;
mod site;
mod sse;
mod stop;
mod stream;
mod submit;
mod take;
mod webhook_secret;
mod why;
mod worker_env;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Uri};
use axum::routing::{any, get, post};

pub use self::error::Code;
use self::error::{ApiError, ApiResult};
use crate::app::App;

/// The route table. Where the public SDKs send GET or POST for the same call, both work.
pub fn router(app: Arc<App>) -> Router {
    of_clients()
        .merge(of_operators())
        .merge(of_workers())
        // What answers without a key.
        .route("/healthz", any(health::healthz))
        .route("/readyz", any(health::readyz))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_route)
        .with_state(app)
}

/// What those call who submit jobs and want to know of them.
fn of_clients() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/{endpoint}/run", post(submit::run))
        .route("/v2/{endpoint}/runsync", post(submit::runsync))
        .route(
            "/v2/{endpoint}/status/{job}",
            get(read::status).post(read::status),
        )
        .route(
            "/v2/{endpoint}/status-sync/{job}",
            get(read::status_sync).post(read::status_sync),
        )
        .route(
            "/v2/{endpoint}/stream/{job}",
            get(stream::stream).post(stream::stream),
        )
        .route(
            "/v2/{endpoint}/cancel/{job}",
            post(change::cancel).get(change::cancel),
        )
        .route("/v2/{endpoint}/retry/{job}", post(change::retry))
        .route("/v2/{endpoint}/purge-queue", post(change::purge_queue))
        .route(
            "/v2/{endpoint}/health",
            get(health::health).post(health::health),
        )
        .route("/v2/{endpoint}/requests", get(requests::requests))
        .route("/v2/{endpoint}/deliveries", get(deliveries::deliveries))
        .route("/v2/{endpoint}/deliveries/listen", get(listen::listen))
        .route(
            "/v2/{endpoint}/deliveries/redeliver",
            post(deliveries::redeliver_range),
        )
        .route(
            "/v2/{endpoint}/deliveries/{delivery}/redeliver",
            post(deliveries::redeliver),
        )
        .route("/v2/{endpoint}/logs", get(logs::of_endpoint))
        .route("/v2/{endpoint}/workers/{worker}/logs", get(logs::of_worker))
        .route(
            "/v2/{endpoint}/webhook-secret",
            get(webhook_secret::list).post(webhook_secret::make),
        )
}

/// What those call who look after workers.
fn of_operators() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/{endpoint}/workers", get(workers::workers))
        .route("/v2/{endpoint}/why/{job}", get(why::why))
        .route(
            "/v2/{endpoint}/scaler",
            get(scaler::scaler).patch(scaler::change),
        )
        .route("/v2/{endpoint}/worker-env", post(worker_env::make))
        .route("/v2/{endpoint}/scaler/reset", post(scaler::reset))
        .route("/admin/reload", post(reload::reload))
}

/// What workers call.
fn of_workers() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/{endpoint}/job-take/{worker}", get(take::take_one))
        .route(
            "/v2/{endpoint}/job-take-batch/{worker}",
            get(take::take_batch),
        )
        .route(
            "/v2/{endpoint}/job-done/{worker}/{job}",
            post(report::job_done),
        )
        .route(
            "/v2/{endpoint}/job-stream/{worker}/{job}",
            post(report::job_stream),
        )
        .route(
            "/v2/{endpoint}/ping/{worker}",
            get(ping::ping).post(ping::ping),
        )
        .route("/v2/{endpoint}/job-stop/{worker}", get(stop::job_stop))
}

/// Makes `//` in a path one slash and drops one at the end: the Go SDK joins a base that ends in a
/// slash with paths that begin with one.
#[must_use]
pub fn collapse_slashes(mut request: Request) -> Request {
    let path = request.uri().path();
    if !decodes(path) {
        // No name here has such bytes; the fallback answers as for any other wrong path.
        *request.uri_mut() = Uri::from_static("/not-utf-8");
        return request;
    }
    let tidy = !path.contains("//") && (path == "/" || !path.ends_with('/'));
    if tidy {
        return request;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut collapsed = format!("/{}", parts.join("/"));
    if let Some(query) = request.uri().query() {
        collapsed = format!("{collapsed}?{query}");
    }
    if let Ok(path_and_query) = PathAndQuery::try_from(collapsed) {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(path_and_query);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Whether a path is UTF-8 when its escapes are decoded.
fn decodes(path: &str) -> bool {
    !path.contains('%') || String::from_utf8(query::unescaped(path.as_bytes())).is_ok()
}

/// Without a key not even the difference between a route and none shows.
async fn no_route(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> ApiResult<()> {
    auth::any_key(&app, &headers).await?;
    Err(ApiError::new(
        Code::RouteNotFound,
        format!("there is nothing at {}", uri.path()),
    ))
}

async fn wrong_method(State(app): State<Arc<App>>, headers: HeaderMap) -> ApiResult<()> {
    auth::any_key(&app, &headers).await?;
    Err(ApiError::new(
        Code::MethodNotAllowed,
        "this call takes another method, see Allow",
    ))
}
