//! A job as the server's documents describe it, borrowed from their text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error_text;
use super::failure::Outcome;

/// The fields of a job document that a person gets to see. All but two may be missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) status: Cow<'a, str>,
    pub(super) delay_time: Option<u64>,
    pub(super) execution_time: Option<u64>,
    #[serde(borrow)]
    pub(super) output: Option<&'a RawValue>,
    // A string by contract; some servers send an object, and then it is shown as it is.
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    pub(super) retries: Option<u64>,
    #[serde(borrow)]
    pub(super) worker_id: Option<Cow<'a, str>>,
    pub(super) created_at: Option<i64>,
    pub(super) started_at: Option<i64>,
    pub(super) completed_at: Option<i64>,
}

impl Job<'_> {
    pub(super) fn is_terminal(&self) -> bool {
        is_terminal(&self.status)
    }

    pub(super) fn outcome(&self) -> Outcome {
        outcome(&self.status)
    }

    /// The handler's error or the platform's reason, taken apart where it has parts.
    pub(super) fn error(&self) -> Option<error_text::ErrorText> {
        self.error.map(|raw| {
            let text = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
            error_text::ErrorText::parse(&text)
        })
    }
}

/// A state the client does not know counts as unfinished: the terminal ones are fixed by the
/// contract, and every other name can only mean "not yet".
pub(super) fn is_terminal(status: &str) -> bool {
    matches!(status, "COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT")
}

/// What a job in this state means for the exit code.
pub(super) fn outcome(status: &str) -> Outcome {
    match status {
        "FAILED" | "CANCELLED" | "TIMED_OUT" => Outcome::EndedBadly,
        _ => Outcome::Fine,
    }
}
