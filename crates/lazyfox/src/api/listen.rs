//! `GET /deliveries/listen`: an endpoint's deliveries as they happen.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use super::sse::{self, Events, Source};
use crate::app::App;
use crate::events;
use crate::keyring::Need;
use crate::listeners::{Heard, LISTENERS_MAX, Listener};

/// An event carries a job's input, as a webhook does, and a signature that a receiver believes: so this is
/// for those who may change jobs.
const NEED: Need = Need::Write;

/// Server-sent events, from now on and until somebody ends it.
pub(super) async fn listen(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, NEED).await?;
    if app.is_closing() {
        return Err(ApiError::closing());
    }
    let listener = app.listeners.listen(&endpoint).ok_or_else(|| {
        let message = format!("{LISTENERS_MAX} listen to {endpoint} already, and no more may");
        ApiError::new(Code::TooManyListeners, message)
    })?;
    let deliveries = Deliveries {
        listener,
        begun: false,
    };
    let allowed = sse::while_allowed(app, headers, endpoint, NEED);
    Ok(Events::new(deliveries, allowed).into_response())
}

/// What happens to deliveries.
struct Deliveries {
    listener: Listener,
    begun: bool,
}

impl Source for Deliveries {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.begun {
            // Whoever listens knows that nothing is missed from here on.
            self.begun = true;
            return Poll::Ready(Some(Bytes::from_static(sse::HELLO)));
        }
        let heard = std::task::ready!(self.listener.poll(context));
        Poll::Ready(heard.map(|heard| match heard {
            Heard::Event(event) => event,
            Heard::Missed(count) => events::missed(count),
        }))
    }
}
