//! Chunks of a stream as they are kept.

use bytes::Bytes;

use super::Report;
use crate::json::{self, Object};

/// The chunk as it is kept: its output, a long string in several pieces.
pub(super) fn chunks(body: &Bytes, chunk_bytes: usize) -> Result<Vec<Bytes>, String> {
    let not_json = |why: String| format!("a chunk of the stream is not valid JSON: {why}");
    let clean = json::without_nan(body).map(Bytes::from);
    let body = clean.as_ref().unwrap_or(body);
    let report = Report::parse(body).map_err(not_json)?;
    let chunk = match (report.output, report.error) {
        (Some(raw), _) => body.slice_ref(raw.get().as_bytes()),
        (None, Some(error)) => {
            let mut object = Object::new();
            object.raw("error", error.get().as_bytes());
            object.into_bytes()
        }
        (None, None) => Bytes::from_static(b"null"),
    };
    if chunk.len() <= chunk_bytes || chunk.first() != Some(&b'"') {
        return Ok(vec![chunk]);
    }
    let Ok(text) = serde_json::from_slice::<String>(&chunk) else {
        return Ok(vec![chunk]);
    };
    Ok(pieces(&text, chunk_bytes))
}

/// Splits a string at characters into JSON strings of about `bytes` each.
fn pieces(text: &str, bytes: usize) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut cut = bytes.min(rest.len()).max(1);
        while !rest.is_char_boundary(cut) {
            cut += 1;
        }
        let (piece, tail) = rest.split_at(cut);
        pieces.push(
            serde_json::to_vec(piece)
                .expect("a string can be written to memory")
                .into(),
        );
        rest = tail;
    }
    pieces
}
