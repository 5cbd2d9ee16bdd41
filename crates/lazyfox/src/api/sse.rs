//! Server-sent events: answers that go on for as long as both sides want and the caller may.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use lazyfox_core::id::EndpointId;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::auth;
use crate::app::App;
use crate::keyring::Need;

/// The media type.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// A comment that begins a stream.
pub(super) const HELLO: &[u8] = b": listening\n\n";

/// A comment that only shows that somebody is there.
pub(super) const STILL_HERE: &[u8] = b": still here\n\n";

/// How often a listener gets a sign of life: proxies close connections that are silent for a minute.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// How often it is asked whether a listener still may.
const ASK_AGAIN_MS: u64 = 1_000;

/// Where events come from, as text that is ready to be sent.
pub(super) trait Source: Send + Unpin + 'static {
    /// The next one; `None` when there will be no more.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// What goes out when nothing has happened for a while.
    fn sign_of_life(&mut self) -> Bytes {
        Bytes::from_static(STILL_HERE)
    }
}

/// A body that grows with what happens.
pub(super) struct Events<S> {
    source: S,
    allowed: Allowed,
    signs: Interval,
}

impl<S: Source> Events<S> {
    pub(super) fn new(source: S, allowed: Allowed) -> Self {
        let mut signs = tokio::time::interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            source,
            allowed,
            signs,
        }
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::new(self));
        let mut set = |name: HeaderName, value| {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        };
        set(header::CONTENT_TYPE, CONTENT_TYPE);
        set(header::CACHE_CONTROL, "no-cache");
        // Proxies of this kind gather answers otherwise, until they are large or over.
        set(HeaderName::from_static("x-accel-buffering"), "no");
        response
    }
}

impl<S: Source> http_body::Body for Events<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if Pin::new(&mut self.allowed.0).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let bytes = match self.source.poll(context) {
            Poll::Ready(Some(bytes)) => bytes,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(self.signs.poll_tick(context));
                self.source.sign_of_life()
            }
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// Is over when the caller may no longer.
pub(super) struct Allowed(oneshot::Receiver<Infallible>);

impl Allowed {
    /// For as long as the other end is there.
    pub(super) fn until_dropped() -> (oneshot::Sender<Infallible>, Self) {
        let (held, refused) = oneshot::channel();
        (held, Self(refused))
    }
}

/// Watches whether the caller's key stays valid, for as long as the answer is there.
pub(super) fn while_allowed(
    app: Arc<App>,
    headers: HeaderMap,
    endpoint: EndpointId,
    need: Need,
) -> Allowed {
    let (held, allowed) = Allowed::until_dropped();
    tokio::spawn(hold_while_allowed(held, app, headers, endpoint, need));
    allowed
}

/// Drops `held` when the caller's key is revoked, and ends with the answer or the server.
async fn hold_while_allowed(
    mut held: oneshot::Sender<Infallible>,
    app: Arc<App>,
    headers: HeaderMap,
    endpoint: EndpointId,
    need: Need,
) {
    let mut again = app.now().plus_ms(ASK_AGAIN_MS);
    loop {
        tokio::select! {
            () = held.closed() => return,
            () = app.closed() => break,
            () = app.clock.sleep_until(again) => {}
        }
        match auth::client(&app, &headers, endpoint.as_str(), need).await {
            Err(e) if e.is_refusal() => return,
            // A store that cannot answer is no reason to believe that the key is gone.
            Ok(_) | Err(_) => again = app.now().plus_ms(ASK_AGAIN_MS),
        }
    }
    // A server that is being stopped ends the answer where it comes from, and what is said until then may
    // be heard.
    drop(app);
    held.closed().await;
}
