//! What starts that failed mean for the next one.

use super::Reason;
use crate::time::Timestamp;

/// Starts of the current release that failed, one after the other. A worker that becomes ready, a change
/// of the settings and a person who says so clear it; that is the caller's to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// How many.
    pub failed_in_a_row: u32,
    /// When the last one did.
    pub last_failed_at: Option<Timestamp>,
}

/// Pauses between starts that fail one after the other: 5 s, 15 s, 1 min, then every 5 min.
#[must_use]
pub fn hold_off_ms(failures_in_a_row: u32) -> u64 {
    match failures_in_a_row {
        0 => 0,
        1 => 5_000,
        2 => 15_000,
        3 => 60_000,
        _ => 300_000,
    }
}

/// Whether a start may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// As many as are wanted.
    Free,
    /// One, to see whether it works again: ten at once would fail ten times for the same reason.
    Trial,
    /// None: one is being tried.
    OnTrial { failures: u32 },
    /// None before then.
    Held { failures: u32, until: Timestamp },
    /// None until something changes.
    GivenUp { failures: u32 },
}

impl Starts {
    pub(super) fn attempt(&self, give_up_after: u32, starting: u32, now: Timestamp) -> Attempt {
        let failures = self.failed_in_a_row;
        if failures == 0 {
            return Attempt::Free;
        }
        if give_up_after > 0 && failures >= give_up_after {
            return Attempt::GivenUp { failures };
        }
        let until = self
            .last_failed_at
            .map(|at| at.plus_ms(hold_off_ms(failures)));
        match until.filter(|&until| until > now) {
            Some(until) => Attempt::Held { failures, until },
            None if starting > 0 => Attempt::OnTrial { failures },
            None => Attempt::Trial,
        }
    }
}

impl Attempt {
    /// How many of these may be started.
    pub(super) fn of(self, workers: u32) -> u32 {
        match self {
            Self::Free => workers,
            Self::Trial => workers.min(1),
            Self::OnTrial { .. } | Self::Held { .. } | Self::GivenUp { .. } => 0,
        }
    }

    /// Why none may be started, if none may.
    pub(super) fn refusal(self, now: Timestamp) -> Option<Reason> {
        match self {
            Self::Free | Self::Trial => None,
            Self::OnTrial { failures } => Some(Reason::OnTrial { failures }),
            Self::Held { failures, until } => Some(Reason::HoldOff {
                failures,
                left_ms: until.ms_since(now),
            }),
            Self::GivenUp { failures } => Some(Reason::GivenUp { failures }),
        }
    }

    /// When time alone will allow a start.
    pub(super) fn again_at(self) -> Timestamp {
        match self {
            Self::Held { until, .. } => until,
            Self::Free | Self::Trial | Self::OnTrial { .. } | Self::GivenUp { .. } => {
                Timestamp::NEVER
            }
        }
    }
}
