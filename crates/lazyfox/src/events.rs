//! What listeners of an endpoint's deliveries get to hear, as server-sent events.

use bytes::Bytes;
use lazyfox_core::delivery::{Next, Try};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::time::Timestamp;
use lazyfox_store::Outgoing;

use crate::json::Object;
use crate::views;
use crate::webhooks::signature::Signed;
use crate::webhooks::{CONTENT_TYPE, USER_AGENT, target};

/// A try begins. The body is what is posted, byte for byte.
pub(crate) fn trying(
    outgoing: &Outgoing,
    round: u32,
    at: Timestamp,
    signed: &Signed,
    body: &[u8],
) -> Bytes {
    let mut headers = Object::new();
    headers.string("content-type", CONTENT_TYPE);
    headers.string("user-agent", USER_AGENT);
    headers.string("webhook-id", &signed.id);
    headers.string("webhook-timestamp", &signed.timestamp);
    headers.string("webhook-signature", &signed.signature);
    let mut object = named(outgoing.id, round, at);
    object.string("url", &target::shown(&outgoing.url));
    object.raw("headers", &headers.into_bytes());
    object.string("body", &String::from_utf8_lossy(body));
    event("try", object)
}

/// A try has ended.
pub(crate) fn tried(id: DeliveryId, round: u32, made: &Try, next: Next) -> Bytes {
    let mut object = named(id, round, made.at);
    views::try_fields(&mut object, made);
    object.string("state", next.state().as_str());
    if let Next::Again(at) = next {
        object.number("nextTryAt", at.as_ms());
    }
    event("result", object)
}

/// Events were lost on a slow listener.
pub(crate) fn missed(count: usize) -> Bytes {
    let mut object = Object::new();
    object.number("count", count);
    event("missed", object)
}

fn named(id: DeliveryId, round: u32, at: Timestamp) -> Object {
    let mut object = Object::new();
    object.string("id", &id.to_string());
    object.string("job", &id.job.to_string());
    object.number("try", round);
    object.number("at", at.as_ms());
    object
}

/// JSON that is written here has no line breaks, so one line of data is enough.
fn event(name: &str, object: Object) -> Bytes {
    let data = object.into_bytes();
    let mut text = Vec::with_capacity(data.len() + name.len() + 16);
    for part in [b"event: ", name.as_bytes(), b"\ndata: ", &data, b"\n\n"] {
        text.extend_from_slice(part);
    }
    text.into()
}
