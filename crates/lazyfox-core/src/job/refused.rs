//! Why an event changes nothing.

use std::fmt;

use super::Status;

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The job has ended with this status.
    Ended(Status),
    /// The job is not waiting.
    NotQueued,
    /// The worker does not hold the job's lease.
    NotHolder,
    /// The worker works on it already.
    Begun,
    /// The worker had the job before and may still speak of it.
    Barred,
    /// No deadline is due.
    NotDue,
    /// Only FAILED and TIMED_OUT jobs can be retried; this one is in this state.
    NotRetryable(Status),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(status) => write!(f, "the job has ended {status}"),
            Self::NotQueued => write!(f, "the job is not waiting in the queue"),
            Self::NotHolder => write!(f, "the worker does not hold the job's lease"),
            Self::Begun => write!(f, "the worker works on the job already"),
            Self::Barred => write!(f, "the worker had the job before"),
            Self::NotDue => write!(f, "no deadline of the job is due"),
            Self::NotRetryable(status) => {
                write!(
                    f,
                    "only FAILED and TIMED_OUT jobs can be retried, this one is {status}"
                )
            }
        }
    }
}
