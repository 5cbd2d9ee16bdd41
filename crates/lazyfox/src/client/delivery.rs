//! A webhook's delivery as the server's documents describe it, borrowed from their text.

use std::borrow::Cow;

use serde::Deserialize;

use super::show::printable;
use super::times::duration;

/// What a person gets to see of a delivery. All but two fields may be missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) state: Cow<'a, str>,
    /// Without its query, which often holds a token.
    #[serde(borrow)]
    pub(super) url: Option<Cow<'a, str>>,
    pub(super) bytes: Option<u64>,
    pub(super) created_at: Option<i64>,
    pub(super) next_try_at: Option<i64>,
    /// Why the next try waits for longer than it would.
    #[serde(borrow)]
    pub(super) hold: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) tries: Vec<Try<'a>>,
}

/// One try at a delivery.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Try<'a> {
    /// When it began.
    pub(super) at: i64,
    pub(super) duration_ms: u64,
    /// What the receiver answered, if it did.
    pub(super) status: Option<u16>,
    /// First bytes of the answer's body.
    #[serde(borrow)]
    pub(super) answer: Option<Cow<'a, str>>,
    /// Why it was no success; `None` when it was one.
    #[serde(borrow)]
    pub(super) error: Option<Cow<'a, str>>,
}

impl Try<'_> {
    /// In a few words.
    pub(super) fn outcome(&self) -> String {
        match (&self.error, self.status) {
            (Some(error), _) => printable(error),
            (None, Some(status)) => format!("{status} in {}", duration(self.duration_ms)),
            (None, None) => duration(self.duration_ms),
        }
    }

    /// The status for a column of a table.
    pub(super) fn status(&self) -> String {
        self.status
            .map_or_else(|| "-".to_owned(), |status| status.to_string())
    }
}
