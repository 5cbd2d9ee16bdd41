//! `/webhook-secret`: what an endpoint's deliveries are signed with.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::limits;

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use super::query::Params;
use crate::app::App;
use crate::json::{self, Object};
use crate::keyring::Need;

/// `GET`: which secrets are valid; never the secrets themselves.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let now = app.now();
    let mut secrets = app.store.webhook_secrets(&endpoint).await?;
    secrets.retain(|secret| secret.valid_until.is_none_or(|until| until > now));
    let secrets = json::array(secrets.iter().map(|secret| {
        let mut object = Object::new();
        object.string("id", &secret.id);
        object.number("createdAt", secret.created_at.as_ms());
        if let Some(until) = secret.valid_until {
            object.number("validUntil", until.as_ms());
        }
        object.into_bytes()
    }));
    let mut object = Object::new();
    object.raw("secrets", &secrets);
    Ok(object.into_response())
}

/// `POST ?overlap=`: makes a new one and shows it, this once.
pub(super) async fn make(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    // Receivers refuse what is signed with a secret that they do not know, so this is no client's business.
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Admin).await?;
    let overlap_ms = Params::of(&uri).number("overlap")?;
    let overlap_ms = overlap_ms.unwrap_or(limits::WEBHOOK_OVERLAP_MS);
    if overlap_ms > limits::WEBHOOK_OVERLAP_MS_MAX {
        let message = format!(
            "overlap is {overlap_ms} ms, allowed are 0 to {} ms",
            limits::WEBHOOK_OVERLAP_MS_MAX
        );
        return Err(ApiError::new(Code::InvalidQuery, message));
    }
    let now = app.now();
    let made = app
        .signing
        .make(&*app.store, &app.key, &endpoint, overlap_ms, now)
        .await?;
    tracing::info!(endpoint.id = %endpoint, secret.id = %made.id, "a new webhook secret");
    let mut object = Object::new();
    object.string("id", &made.id);
    object.string("secret", &made.text);
    object.number("createdAt", now.as_ms());
    if let Some(until) = made.previous_until {
        object.number("previousUntil", until.as_ms());
    }
    Ok(object.into_response())
}
