//! `GET /requests`: an endpoint's jobs, newest first.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::job::Status;
use lazyfox_store::Query;

use super::auth;
use super::error::ApiResult;
use super::query::Params;
use crate::app::App;
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
    let query = Query {
        endpoint,
        status: params.word("status", Status::parse, Status::ALL.map(Status::as_str))?,
        limit: params.page()?,
        before: params.number("cursor")?,
    };
    let page = app.store.list(query).await?;
    let jobs = page.jobs.iter().map(views::listed);
    Ok(views::page("requests", jobs, page.next).into_response())
}
