//! Request bodies, up to a bound and never buffered beyond it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::error::{ApiError, ApiResult, Code};

/// What is read and dropped of a body that is too large, so that a client that writes all before it
/// reads gets the answer and not a reset connection.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;
/// How long that may take.
const DRAIN: Duration = Duration::from_secs(5);

/// How much is kept of the start of a body that is too large.
const START_BYTES: usize = 64;

/// A body; of one that is larger than the bound, its size as far as it was read, and its start.
pub(super) enum Read {
    Whole(Bytes),
    TooLarge { bytes: usize, start: Bytes },
}

/// Reads a client's body; too large is 413.
pub(super) async fn whole(request: Request, limit: usize) -> ApiResult<Bytes> {
    match bounded(request, limit).await? {
        Read::Whole(body) => Ok(body),
        Read::TooLarge { .. } => Err(ApiError::too_large(limit)),
    }
}

/// Reads a body up to a bound; the rest is dropped as it comes.
pub(super) async fn bounded(request: Request, limit: usize) -> ApiResult<Read> {
    let (parts, mut body) = request.into_parts();
    let announced = length(&parts.headers);
    if let Some(bytes) = announced.filter(|&length| length > limit) {
        // With Expect nothing was sent yet, and nothing will be.
        let start = match parts.headers.get(header::EXPECT) {
            Some(_) => Bytes::new(),
            None => drain(&mut body).await.1,
        };
        return Ok(Read::TooLarge { bytes, start });
    }
    let mut first: Option<Bytes> = None;
    let mut buffer = BytesMut::new();
    while let Some(data) = next(&mut body).await? {
        let have = first.as_ref().map_or(0, Bytes::len) + buffer.len();
        if have + data.len() > limit {
            let pieces = [first.as_deref().unwrap_or_default(), &buffer, &data];
            let start = start_of(pieces.into_iter().find(|piece| !piece.is_empty()));
            let bytes = have + data.len() + drain(&mut body).await.0;
            return Ok(Read::TooLarge { bytes, start });
        }
        match first.take() {
            // Most bodies come in one piece, which is then used as it is.
            None if buffer.is_empty() => first = Some(data),
            None => buffer.extend_from_slice(&data),
            Some(piece) => {
                buffer.reserve(announced.unwrap_or(piece.len() + data.len()));
                buffer.extend_from_slice(&piece);
                buffer.extend_from_slice(&data);
            }
        }
    }
    Ok(Read::Whole(first.unwrap_or_else(|| buffer.freeze())))
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

async fn next(body: &mut Body) -> ApiResult<Option<Bytes>> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(e)) => {
                let message = format!("the body broke off: {e}");
                return Err(ApiError::new(Code::InvalidJson, message));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn start_of(piece: Option<&[u8]>) -> Bytes {
    let piece = piece.unwrap_or_default();
    Bytes::copy_from_slice(piece.get(..START_BYTES).unwrap_or(piece))
}

/// Drops what is left. Returns how much that was, and how it began.
async fn drain(body: &mut Body) -> (usize, Bytes) {
    let mut dropped = 0;
    let mut start = Bytes::new();
    let _ = tokio::time::timeout(DRAIN, async {
        while dropped < DRAIN_BYTES {
            match next(body).await {
                Ok(Some(data)) => {
                    if dropped == 0 {
                        start = start_of(Some(&data));
                    }
                    dropped += data.len();
                }
                Ok(None) | Err(_) => break,
            }
        }
    })
    .await;
    (dropped, start)
}
