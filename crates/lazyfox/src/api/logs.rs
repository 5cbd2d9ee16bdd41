//! `GET /logs` and `GET /workers/{worker}/logs`: what workers said, and what they say.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use tokio::sync::mpsc;

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use super::query::Params;
use super::sse::{self, Events};
use crate::app::App;
use crate::json::Object;
use crate::keyring::Need;
use crate::logs::sdk::Said;
use crate::logs::{Begin, FOLLOWERS_MAX, Filter, Most, Page, Place, Reader, Record, source, word};
use crate::when::{When, rfc3339};

/// Lines from the end, unless asked otherwise.
const TAIL: u64 = 100;
/// Most lines from the end, and most lines of a document.
const TAIL_MAX: u64 = 5_000;

/// How much of a document there may be: it is in memory as a whole.
const DOCUMENT: Most = Most {
    lines: 5_000,
    bytes: 4 * 1024 * 1024,
};

/// How much is sent at once of a stream. A few of these wait for each who reads slowly.
const PIECE: Most = Most {
    lines: 1_000,
    bytes: 256 * 1024,
};

/// Pieces that wait for a reader.
const PIECES: usize = 2;

/// `GET /logs?worker=&job=&source=&tail=&since=&cursor=&follow=`.
pub(super) async fn of_endpoint(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let worker = Params::of(&uri).get("worker");
    logs(app, endpoint, worker, headers, &uri).await
}

/// The same for one worker.
pub(super) async fn of_worker(
    State(app): State<Arc<App>>,
    Path((endpoint, worker)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    logs(app, endpoint, Some(worker), headers, &uri).await
}

async fn logs(
    app: Arc<App>,
    endpoint: String,
    worker: Option<String>,
    headers: HeaderMap,
    uri: &Uri,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let params = Params::of(uri);
    let filter = Filter {
        worker,
        job: params.get("job"),
        source: source_of(&params)?,
    };
    let begin = begin(&params, &headers, app.now())?;
    let wants_events = accepts_events(&headers);
    let follow = params.word("follow", truth, ["true", "false"])?;
    if follow.unwrap_or(wants_events) {
        let place = place(&app, &endpoint)?;
        let reader = read(&app, &endpoint, filter, begin).await?;
        return Ok(stream(app, headers, endpoint, reader, Some(place)));
    }
    let reader = read(&app, &endpoint, filter, begin).await?;
    if wants_events {
        return Ok(stream(app, headers, endpoint, reader, None));
    }
    let read = whole(reader).await;
    let page = read.map_err(|error| unreadable(&endpoint, &error))?;
    Ok(document(&page).into_response())
}

fn source_of(params: &Params<'_>) -> ApiResult<Option<crate::providers::Source>> {
    // The public contract knows containers only.
    let parse = |text: &str| match text {
        "container" => source("worker"),
        other => source(other),
    };
    params.word("source", parse, ["worker", "system"])
}

fn truth(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// Where to begin: the place where the caller was, else a point in time, else so many from the end.
fn begin(params: &Params<'_>, headers: &HeaderMap, now: Timestamp) -> ApiResult<Begin> {
    let invalid = |message: String| ApiError::new(Code::InvalidQuery, message);
    // All are looked at, so that a wrong one is told of even when another wins.
    let tail = params.number("tail")?.unwrap_or(TAIL);
    if tail > TAIL_MAX {
        return Err(invalid(format!(
            "tail is {tail}, allowed are 0 to {TAIL_MAX}"
        )));
    }
    let since = match params.get("since") {
        // A plus of a zone that was not escaped has become a space.
        Some(text) => match When::parse(&text).or_else(|_| When::parse(&text.replace(' ', "+"))) {
            Ok(when) => Some(when.from(now)),
            Err(_) => {
                return Err(invalid(format!(
                    "since is {text:?}, it should be how long ago (90s, 15m, 2h, 3d) or a point in \
                     time such as 2026-05-01T12:03:04Z"
                )));
            }
        },
        None => None,
    };
    let cursor = params.number("cursor")?;
    let last = headers.get("last-event-id").filter(|it| !it.is_empty());
    let last = last.map(|value| {
        let number = value.to_str().ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| {
            invalid(format!(
                "Last-Event-ID is {value:?}, it should be the id of an event"
            ))
        })
    });
    Ok(match (last.transpose()?.or(cursor), since) {
        (Some(number), _) => Begin::After(number),
        (None, Some(at)) => Begin::Since(at),
        (None, None) => Begin::Tail(usize::try_from(tail).unwrap_or(usize::MAX)),
    })
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter();
    accepts
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(sse::CONTENT_TYPE))
}

fn place(app: &App, endpoint: &EndpointId) -> ApiResult<Place> {
    if app.is_closing() {
        return Err(ApiError::closing());
    }
    app.logs.follow(endpoint).ok_or_else(|| {
        let message =
            format!("{FOLLOWERS_MAX} follow the log of {endpoint} already, and no more may");
        ApiError::new(Code::TooManyListeners, message)
    })
}

async fn read(app: &App, endpoint: &EndpointId, filter: Filter, begin: Begin) -> ApiResult<Reader> {
    let reader = app.logs.read(endpoint, filter).await;
    let reader = reader.ok_or_else(ApiError::closing)?;
    let found = reader.go(begin).await;
    found.map_err(|error| unreadable(endpoint, &error))
}

fn unreadable(endpoint: &EndpointId, error: &io::Error) -> ApiError {
    tracing::error!(endpoint.id = %endpoint, %error, "the log of its workers cannot be read");
    let message = "the server cannot read its logs of workers; its own log says why";
    ApiError::new(Code::StoreUnavailable, message)
}

/// As much as fits into one document.
async fn whole(mut reader: Reader) -> io::Result<Page> {
    let mut whole = Page::default();
    loop {
        let left = Most {
            lines: DOCUMENT.lines - whole.lines,
            bytes: DOCUMENT.bytes - whole.text.len(),
        };
        let page;
        (reader, page) = reader.page(left, write_item).await?;
        whole.text.extend_from_slice(&page.text);
        whole.lines += page.lines;
        whole.missed = page.missed.or(whole.missed);
        whole.position = page.position;
        let is_full = whole.lines >= DOCUMENT.lines || whole.text.len() >= DOCUMENT.bytes;
        if is_full || !page.more {
            return Ok(whole);
        }
    }
}

fn document(page: &Page) -> Object {
    let mut object = Object::with_payload(page.text.len());
    if let Some(missed) = page.missed {
        object.raw("missed", &gap(missed).into_bytes());
    }
    // The items stand one after the other, each with a comma behind it.
    let items = page.text.strip_suffix(b",").unwrap_or_default();
    object.raw("lines", &[b"[", items, b"]"].concat());
    object.string("next", &page.position.to_string());
    object
}

/// When the first and the last of those lines were seen that are missing, as far as their numbers tell.
fn gap((after, last): (u64, u64)) -> Object {
    let time = |number: u64| {
        rfc3339(Timestamp::from_ms(
            i64::try_from(number / 1000).unwrap_or(i64::MAX),
        ))
    };
    let mut object = Object::new();
    object.string("from", &time(after));
    object.string("to", &time(last));
    object
}

fn line(record: &Record<'_>) -> Bytes {
    let mut object = Object::new();
    object.string("ts", record.at);
    object.string("source", word(record.source));
    object.string("worker", record.worker);
    if let Some(job) = record.job {
        object.string("job", job);
    }
    if let Some(said) = Said::parse(record.text) {
        object.string("level", &said.level);
    }
    object.string("line", record.text);
    object.into_bytes()
}

fn write_item(record: &Record<'_>, to: &mut Vec<u8>) {
    to.extend_from_slice(&line(record));
    to.push(b',');
}

fn write_event(record: &Record<'_>, to: &mut Vec<u8>) {
    let id = record.number.to_string();
    for part in [b"id: ", id.as_bytes(), b"\ndata: ", &line(record), b"\n\n"] {
        to.extend_from_slice(part);
    }
}

/// Events, with a place in the log for as long as it is followed.
fn stream(
    app: Arc<App>,
    headers: HeaderMap,
    endpoint: EndpointId,
    reader: Reader,
    place: Option<Place>,
) -> Response {
    let (pieces, receiver) = mpsc::channel(PIECES);
    let lines = Lines {
        pieces: receiver,
        position: reader.position(),
        begun: false,
    };
    tokio::spawn(tell(reader, pieces, endpoint.clone(), place));
    let allowed = sse::while_allowed(app, headers, endpoint, Need::Read);
    Events::new(lines, allowed).into_response()
}

/// Events that are ready, and up to where in the log everything was looked at then.
struct Piece {
    text: Bytes,
    position: u64,
}

/// Reads as fast as the other side takes it.
async fn tell(
    mut reader: Reader,
    pieces: mpsc::Sender<Piece>,
    endpoint: EndpointId,
    place: Option<Place>,
) {
    loop {
        let read = reader.page(PIECE, write_event).await;
        let page;
        (reader, page) = match read {
            Ok(read) => read,
            Err(error) => {
                unreadable(&endpoint, &error);
                return;
            }
        };
        let mut text = Vec::new();
        if let Some(missed) = page.missed {
            let gap = gap(missed).into_bytes();
            text = [b"event: missed\ndata: ", &*gap, b"\n\n"].concat();
        }
        text.extend_from_slice(&page.text);
        let piece = Piece {
            text: text.into(),
            position: page.position,
        };
        if pieces.send(piece).await.is_err() {
            return;
        }
        if page.more {
            continue;
        }
        let goes_on = tokio::select! {
            more = reader.more(), if place.is_some() => more,
            () = pieces.closed(), if place.is_some() => false,
            else => false,
        };
        if !goes_on {
            return;
        }
    }
}

/// Lines as events. Signs of life and the beginning carry the place in the log, so that who comes back
/// does so at that place, even if none of the lines was for it.
struct Lines {
    pieces: mpsc::Receiver<Piece>,
    position: u64,
    begun: bool,
}

impl Lines {
    fn at_place(&self, comment: &[u8]) -> Bytes {
        [format!("id: {}\n", self.position).as_bytes(), comment]
            .concat()
            .into()
    }
}

impl sse::Source for Lines {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.begun {
            self.begun = true;
            return Poll::Ready(Some(self.at_place(sse::HELLO)));
        }
        loop {
            match std::task::ready!(self.pieces.poll_recv(context)) {
                Some(piece) => {
                    self.position = piece.position;
                    if !piece.text.is_empty() {
                        return Poll::Ready(Some(piece.text));
                    }
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn sign_of_life(&mut self) -> Bytes {
        self.at_place(sse::STILL_HERE)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_say_the_place_in_the_log() {
        let (pieces, receiver) = mpsc::channel(PIECES);
        let lines = Lines {
            pieces: receiver,
            position: 3,
            begun: false,
        };
        let (_held, allowed) = sse::Allowed::until_dropped();
        let mut events = Events::new(lines, allowed);
        let mut next = async || {
            let frame = events.frame().await.expect("it goes on").unwrap();
            String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
        };
        assert_eq!(next().await, "id: 3\n: listening\n\n");
        assert_eq!(next().await, "id: 3\n: still here\n\n");
        // Lines of others are no reason to say something at once.
        for (text, position) in [("", 4), ("id: 5\ndata: x\n\n", 5), ("", 6)] {
            let text = Bytes::from_static(text.as_bytes());
            assert!(pieces.try_send(Piece { text, position }).is_ok());
            if position == 4 {
                assert_eq!(next().await, "id: 4\n: still here\n\n");
            }
        }
        assert_eq!(next().await, "id: 5\ndata: x\n\n");
        assert_eq!(next().await, "id: 6\n: still here\n\n");
    }
}
