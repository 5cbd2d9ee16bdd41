//! Reading the configuration once more.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use crate::app::App;
use crate::json::{self, Object};
use crate::reload::{self, ReloadError};

/// `POST /admin/reload`: takes over what the file says of endpoints now, or says what is wrong with it.
pub(super) async fn reload(State(app): State<Arc<App>>, headers: HeaderMap) -> ApiResult<Response> {
    auth::admin(&app, &headers).await?;
    let done = reload::reload(&app).await.map_err(|e| match e {
        ReloadError::Config(why) => ApiError::new(Code::InvalidConfig, why),
        ReloadError::Store(e) => e.into(),
    })?;
    let names = |names: &[lazyfox_core::id::EndpointId]| {
        json::array(names.iter().map(|name| Bytes::from(format!("\"{name}\""))))
    };
    let mut object = Object::new();
    object.raw("added", &names(&done.added));
    object.raw("removed", &names(&done.removed));
    object.raw("changed", &names(&done.changed));
    let releases = done.releases.iter().map(|(endpoint, release)| {
        let mut object = Object::new();
        object.string("endpoint", endpoint.as_str());
        object.number("version", release.0);
        object.into_bytes()
    });
    object.raw("releases", &json::array(releases));
    Ok(object.into_response())
}
