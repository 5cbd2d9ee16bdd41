//! How a command ends: well, with a job that did not, or not at all; and what is said about it.

use std::fmt::Write as _;
use std::io;

/// The command did what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Fine,
    /// The job is FAILED, TIMED_OUT or CANCELLED.
    EndedBadly,
    /// `--timeout` is over and the job is not.
    StillRunning,
}

impl Outcome {
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::EndedBadly => 1,
            Self::StillRunning => 4,
        }
    }
}

/// The command could not do what it was asked to.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line or a file it names cannot be used.
    Usage(String),
    /// The server answered, and it was no.
    Refused {
        http_status: u16,
        code: Option<String>,
        text: String,
        retry_after_s: Option<u64>,
    },
    /// No answer. `perhaps_received` tells "never sent" from "sent, and then silence".
    Unreachable {
        url: String,
        reason: String,
        perhaps_received: bool,
    },
    /// An answer that no server of this kind gives; most likely the URL names something else.
    NotUnderstood { url: String, reason: String },
    /// Ctrl-C; the text says what that means, such as how to come back to the job.
    Interrupted(String),
    /// stdout or stderr cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// Whether asking the same again soon may well be answered: a restart, an overloaded server, a
    /// gateway between two releases.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { http_status, .. } => matches!(http_status, 429 | 502 | 503 | 504),
            Self::Usage(_)
            | Self::NotUnderstood { .. }
            | Self::Interrupted(_)
            | Self::Output(_) => false,
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            // `lazyfox requests … | head` is no error.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_)
            | Self::Refused { .. }
            | Self::NotUnderstood { .. }
            | Self::Output(_) => 2,
            Self::Unreachable { .. } => 3,
            // What shells report for a process ended by SIGINT.
            Self::Interrupted(_) => 130,
        }
    }

    /// What stderr gets to say; nothing when nobody listens any more.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Usage(text) => Some(format!("error: {text}")),
            Self::Refused {
                http_status,
                code,
                text,
                retry_after_s,
            } => {
                let mut said = format!("error: {text}\n");
                match code {
                    Some(code) => write!(said, "       {code}, HTTP {http_status}"),
                    None => write!(said, "       HTTP {http_status}"),
                }
                .expect("writing to a string cannot fail");
                if let Some(seconds) = retry_after_s {
                    write!(said, "; try again in {seconds} s")
                        .expect("writing to a string cannot fail");
                }
                if *http_status == 401 {
                    said.push_str("\n       set the key in LAZYFOX_API_KEY");
                }
                Some(said)
            }
            Self::Unreachable {
                url,
                reason,
                perhaps_received,
            } => {
                let mut said = format!(
                    "error: cannot reach {url}: {reason}\n       is the server running there? \
                     Another address is set with --url or LAZYFOX_URL"
                );
                if *perhaps_received {
                    said.push_str(
                        "\n       the request was sent and may have been carried out; a submit \
                         is safe to repeat with the same --idempotency-key",
                    );
                }
                Some(said)
            }
            Self::NotUnderstood { url, reason } => Some(format!(
                "error: {url} does not answer like a Lazyfox server: {reason}\n       \
                 the address is set with --url or LAZYFOX_URL"
            )),
            Self::Interrupted(text) => Some(text.clone()),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Output(error) => Some(format!("error: cannot write the output: {error}")),
        }
    }
}
