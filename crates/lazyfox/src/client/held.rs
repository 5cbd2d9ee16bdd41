//! Streams of events that are held for as long as somebody watches: how it is noticed that one is lost, and
//! when it is asked for again.

use bytes::Bytes;

use super::call::EventStream;
use super::failure::Failure;
use super::times::roughly;
use crate::clock::Clock;

/// A server says something every 15 s, so one that was not heard for this long is gone.
const SILENCE_MS: u64 = 60_000;

/// Pause before the first attempt to get a lost connection back; each further one is twice as long.
const FIRST_PAUSE_MS: u64 = 1_000;
/// Longest pause: a server that is back is found within it.
const LONGEST_PAUSE_MS: u64 = 10_000;

/// The next bytes of a stream; `None` at its end, and the reason where it is lost.
pub(super) async fn heard(
    stream: &mut EventStream,
    clock: &Clock,
) -> Result<Option<Bytes>, String> {
    let silent = clock.now().plus_ms(SILENCE_MS);
    tokio::select! {
        bytes = stream.next() => bytes,
        () = clock.sleep_until(silent) => {
            Err(format!("nothing was heard for {} s", SILENCE_MS / 1000))
        }
    }
}

/// Why there is no stream now, if there may be one soon; else the failure that it is.
pub(super) fn reason(failure: Failure) -> Result<String, Failure> {
    match failure {
        Failure::Unreachable { reason, .. } | Failure::NotUnderstood { reason, .. } => Ok(reason),
        Failure::Refused {
            http_status, text, ..
        } if http_status == 429 || http_status >= 500 => Ok(text),
        Failure::Refused { .. }
        | Failure::Usage(_)
        | Failure::Interrupted(_)
        | Failure::Output(_) => Err(failure),
    }
}

/// The pauses between attempts to get one stream back.
pub(super) struct Pauses {
    pause_ms: u64,
    said: String,
}

/// One of them.
pub(super) struct Pause {
    pub(super) ms: u64,
    /// What is to be said about it, if that was not said before.
    pub(super) note: Option<String>,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self {
            pause_ms: FIRST_PAUSE_MS,
            said: String::new(),
        }
    }

    /// The next pause, which is for this reason.
    pub(super) fn next(&mut self, why: &str) -> Pause {
        let ms = self.pause_ms;
        let when = if ms < LONGEST_PAUSE_MS { "in" } else { "every" };
        let line = format!("{why}; trying again {when} {}", roughly(ms));
        self.pause_ms = (ms * 2).min(LONGEST_PAUSE_MS);
        // An outage of a night need not fill the screen.
        let note = (line != self.said).then(|| line.clone());
        self.said = line;
        Pause { ms, note }
    }
}
