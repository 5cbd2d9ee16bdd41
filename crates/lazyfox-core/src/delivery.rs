//! The life of a webhook delivery: pending, tried, tried again, settled.

use std::fmt;

use crate::limits;
use crate::time::Timestamp;

/// Where a delivery is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A try is due, now or later.
    Pending,
    /// The receiver has it.
    Delivered,
    /// Given up: every try was used, or the receiver wants no more.
    Failed,
    /// The end that it would report is none any more: the job was retried.
    Withdrawn,
}

impl State {
    /// All of them, in the order of a delivery's life.
    pub const ALL: [Self; 4] = [
        Self::Pending,
        Self::Delivered,
        Self::Failed,
        Self::Withdrawn,
    ];

    /// As the wire spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Reads the wire's spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a delivery is tried, and how long it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Tries in all; 1 is never again.
    pub tries: u32,
    /// Pause before the second try.
    pub pause_ms: u64,
    /// Each further pause in percent of the one before: 100 keeps it, 200 doubles it.
    pub growth_percent: u32,
    /// No pause grows beyond this.
    pub pause_ms_max: u64,
    /// By how many percent of itself a pause may be longer: receivers that were down get their
    /// deliveries back one after the other and not all at once.
    pub jitter_percent: u32,
    /// How long one try may take.
    pub timeout_ms: u64,
    /// How long a delivery is kept after it arrived.
    pub keep_ms: u64,
    /// How long a delivery is kept after it was given up.
    pub keep_failed_ms: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            tries: limits::WEBHOOK_TRIES,
            pause_ms: limits::WEBHOOK_PAUSE_MS,
            growth_percent: 100,
            pause_ms_max: limits::WEBHOOK_PAUSE_MS_MAX,
            jitter_percent: 0,
            timeout_ms: limits::WEBHOOK_TIMEOUT_MS,
            keep_ms: limits::WEBHOOK_KEEP_MS,
            keep_failed_ms: limits::WEBHOOK_KEEP_FAILED_MS,
        }
    }
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered.
    Answered {
        /// With this status.
        status: u16,
        /// And asked not to be called again for so long.
        retry_after_ms: Option<u64>,
    },
    /// The receiver did not answer, for this reason.
    Unanswered(String),
    /// Nothing was sent, for this reason: the receiver is not to blame.
    Unsent(String),
}

/// One try, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// The first bytes of the answer's body.
    pub answer: Option<String>,
    /// Why it was no success.
    pub error: Option<String>,
}

/// What happens to the delivery after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The receiver has it: any 2xx.
    Delivered,
    /// Another try is due then.
    Again(Timestamp),
    /// No further try.
    GaveUp,
}

impl Next {
    /// The state that it leads to.
    #[must_use]
    pub const fn state(self) -> State {
        match self {
            Self::Delivered => State::Delivered,
            Self::Again(_) => State::Pending,
            Self::GaveUp => State::Failed,
        }
    }
}

impl Outcome {
    /// Why it is no success, for people; `None` when it is one.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Answered {
                status: 200..=299, ..
            } => None,
            Self::Answered {
                status: status @ 300..=399,
                ..
            } => Some(format!(
                "answered {status}; redirects are not followed, the webhook should name the place itself"
            )),
            Self::Answered { status: GONE, .. } => Some(format!(
                "answered {GONE}: the receiver wants this no more, so it is not tried again"
            )),
            Self::Answered { status, .. } => Some(format!("answered {status}")),
            Self::Unanswered(why) | Self::Unsent(why) => Some(why.clone()),
        }
    }

    /// The answer's status, if there was an answer.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            Self::Unanswered(_) | Self::Unsent(_) => None,
        }
    }
}

/// The status by which a receiver says that it wants no more.
const GONE: u16 = 410;

impl Schedule {
    /// Decides after try number `tries` of the round (counted from 1). `roll` is the dice for the jitter:
    /// of a pause's jitter, it takes this many parts in 2^32.
    #[must_use]
    pub fn after_try(&self, tries: u32, outcome: &Outcome, now: Timestamp, roll: u32) -> Next {
        let asked_ms = match outcome {
            Outcome::Answered {
                status: 200..=299, ..
            } => return Next::Delivered,
            Outcome::Answered { status: GONE, .. } => return Next::GaveUp,
            Outcome::Answered { retry_after_ms, .. } => retry_after_ms.unwrap_or_default(),
            Outcome::Unanswered(_) | Outcome::Unsent(_) => 0,
        };
        if tries >= self.tries {
            return Next::GaveUp;
        }
        let pause_ms = self.pause_after(tries, roll);
        Next::Again(now.plus_ms(pause_ms.max(asked_ms.min(limits::WEBHOOK_PAUSE_MS_MAX))))
    }

    fn pause_after(&self, tries: u32, roll: u32) -> u64 {
        let mut pause_ms = self.pause_ms;
        for _ in 1..tries {
            if pause_ms >= self.pause_ms_max {
                break;
            }
            pause_ms = percent(pause_ms, self.growth_percent);
        }
        let pause_ms = pause_ms.min(self.pause_ms_max);
        let jitter_ms = percent(pause_ms, self.jitter_percent);
        // At most a day of jitter times 2^32 fits.
        pause_ms + ((u128::from(jitter_ms) * u128::from(roll)) >> 32) as u64
    }

    /// Until when a delivery that has come to this is kept.
    #[must_use]
    pub fn keep_until(&self, next: Next, now: Timestamp) -> Timestamp {
        match next {
            Next::Delivered => now.plus_ms(self.keep_ms),
            Next::Again(_) => Timestamp::NEVER,
            Next::GaveUp => now.plus_ms(self.keep_failed_ms),
        }
    }
}

fn percent(ms: u64, percent: u32) -> u64 {
    ms.saturating_mul(u64::from(percent)) / 100
}

#[cfg(test)]
mod tests;
