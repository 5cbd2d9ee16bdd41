//! `GET /deliveries/listen`: an endpoint's deliveries as they happen.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use crate::app::App;
use crate::events;
use crate::keyring::Need;
use crate::listeners::{Heard, LISTENERS_MAX, Listener};

/// How often a listener gets a sign of life: proxies close connections that are silent for a minute.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// How often it is asked whether a listener still may.
const ASK_AGAIN_MS: u64 = 1_000;

/// Server-sent events, from now on and until somebody ends it.
pub(super) async fn listen(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let endpoint = may_listen(&app, &headers, &endpoint).await?;
    if app.is_closing() {
        return Err(ApiError::closing());
    }
    let listener = app.listeners.listen(&endpoint).ok_or_else(|| {
        let message = format!("{LISTENERS_MAX} listen to {endpoint} already, and no more may");
        ApiError::new(Code::TooManyListeners, message)
    })?;
    let (held, refused) = oneshot::channel();
    let again = app.now().plus_ms(ASK_AGAIN_MS);
    tokio::spawn(hold_while_allowed(held, app, headers, endpoint, again));
    let mut signs = tokio::time::interval(SIGN_OF_LIFE);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = Events {
        listener,
        refused,
        signs,
        begun: false,
    };
    let mut response = Response::new(Body::new(events));
    let headers = response.headers_mut();
    let stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, stream);
    let no_cache = HeaderValue::from_static("no-cache");
    headers.insert(header::CACHE_CONTROL, no_cache);
    Ok(response)
}

/// Lets pass who may change jobs: an event carries a job's input, as a webhook does, and a signature
/// that a receiver believes.
async fn may_listen(app: &App, headers: &HeaderMap, endpoint: &str) -> ApiResult<EndpointId> {
    let (endpoint, _) = auth::client(app, headers, endpoint, Need::Write).await?;
    Ok(endpoint)
}

/// Drops `held` when the caller's key is revoked, and ends with the listener or the server.
async fn hold_while_allowed(
    mut held: oneshot::Sender<Infallible>,
    app: Arc<App>,
    headers: HeaderMap,
    endpoint: EndpointId,
    mut again: Timestamp,
) {
    loop {
        tokio::select! {
            () = held.closed() => return,
            () = app.closed() => return,
            () = app.clock.sleep_until(again) => {}
        }
        match may_listen(&app, &headers, endpoint.as_str()).await {
            Err(e) if e.is_refusal() => return,
            // A store that cannot answer is no reason to believe that the key is gone.
            Ok(_) | Err(_) => again = app.now().plus_ms(ASK_AGAIN_MS),
        }
    }
}

/// A body that grows with what happens.
struct Events {
    listener: Listener,
    /// Ends when the listener may listen no longer.
    refused: oneshot::Receiver<Infallible>,
    signs: Interval,
    begun: bool,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        if Pin::new(&mut self.refused).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        match self.listener.poll(context) {
            Poll::Ready(Some(Heard::Event(event))) => return frame(event),
            Poll::Ready(Some(Heard::Missed(count))) => return frame(events::missed(count)),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        // The first tick is at once: whoever listens knows that nothing is missed from here on.
        match self.signs.poll_tick(context) {
            Poll::Ready(_) if !self.begun => {
                self.begun = true;
                frame(Bytes::from_static(b": listening\n\n"))
            }
            Poll::Ready(_) => frame(Bytes::from_static(b": still here\n\n")),
            Poll::Pending => Poll::Pending,
        }
    }
}
