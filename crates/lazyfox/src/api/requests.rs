//! `GET /requests`: an endpoint's jobs, newest first.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::job::Status;
use lazyfox_store::Query;

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use super::query::Params;
use crate::app::App;
use crate::json::{self, Object};
use crate::keyring::Need;
use crate::views;

/// `GET /requests?status=&limit=&cursor=`.
pub(super) async fn requests(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let params = Params::of(&uri);
    let invalid = |message: String| ApiError::new(Code::InvalidQuery, message);
    let status = params.get("status").map(|text| {
        Status::parse(&text).ok_or_else(|| {
            let known = Status::ALL.map(Status::as_str).join(", ");
            invalid(format!("status is {text:?}, it should be one of {known}"))
        })
    });
    let query = Query {
        endpoint,
        status: status.transpose()?,
        limit: params.page()?,
        before: params.number("cursor")?,
    };
    let page = app.store.list(query).await?;
    let jobs = json::array(page.jobs.iter().map(|job| views::listed(job).into_bytes()));
    let mut object = Object::with_payload(jobs.len());
    object.raw("requests", &jobs);
    if let Some(next) = page.next {
        object.string("next", &next.to_string());
    }
    Ok(object.into_response())
}
