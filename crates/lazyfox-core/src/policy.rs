//! What a client may ask for with a job, what an endpoint says otherwise, and the terms that result.

use std::fmt;
use std::ops::RangeInclusive;

use crate::job::Status;
use crate::limits;

/// `policy` as a client sent it; what is missing is the endpoint's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `policy.executionTimeout`, in milliseconds.
    pub execution_timeout_ms: Option<i64>,
    /// `policy.ttl`, in milliseconds.
    pub ttl_ms: Option<i64>,
    /// `policy.lowPriority`.
    pub low_priority: bool,
}

/// An endpoint's settings that a job carries with it from its submission to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Longest run of one attempt; `None` is no limit.
    pub execution_timeout_ms: Option<u64>,
    /// How long a job may wait in the queue.
    pub ttl_ms: u64,
    /// How long a result is kept.
    pub retention_ms: u64,
    /// How long a result is kept that `/runsync` has already delivered.
    pub retention_sync_ms: u64,
    /// Automatic retries after a lost worker.
    pub retries_max: u32,
    /// After so many workers that died in a row while they ran it, a job is given up, whatever retries are
    /// left; 0 is never.
    pub poison_after: u32,
    /// Whether a job whose ttl ran out is forgotten at once (404) instead of kept as TIMED_OUT.
    pub ttl_expiry_forgets: bool,
    /// Whether the webhook hears of a job that was cancelled or purged: who ends a job knows that it
    /// ended, so by default it does not.
    pub webhook_on_cancel: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            execution_timeout_ms: Some(limits::EXECUTION_TIMEOUT_MS),
            ttl_ms: limits::TTL_MS,
            retention_ms: limits::RETENTION_MS,
            retention_sync_ms: limits::RETENTION_SYNC_MS,
            retries_max: limits::RETRIES,
            poison_after: limits::POISON_AFTER,
            ttl_expiry_forgets: false,
            webhook_on_cancel: false,
        }
    }
}

/// What holds for one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Longest run of one attempt; `None` is no limit.
    pub execution_timeout_ms: Option<u64>,
    /// Longest life, counted from submission (or `/retry`).
    pub ttl_ms: u64,
    /// Whether the client gave the ttl. Then it is a hard limit on the whole life; a default one
    /// only ends jobs that still wait, so that no default ever kills running work.
    pub ttl_given: bool,
    /// Whether the job waits behind all others and starts no worker.
    pub low_priority: bool,
    /// Automatic retries after a lost worker.
    pub retries_max: u32,
    /// After so many workers that died in a row while they ran it, a job is given up, whatever retries are
    /// left; 0 is never.
    pub poison_after: u32,
    /// How long a result is kept.
    pub retention_ms: u64,
    /// How long a result is kept that `/runsync` has already delivered.
    pub retention_sync_ms: u64,
    /// Whether the job is forgotten at once when its ttl runs out.
    pub ttl_expiry_forgets: bool,
    /// Whether its webhook hears of it when it is cancelled or purged.
    pub webhook_on_cancel: bool,
}

/// A policy value outside its range. Clamping it silently would hide the mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The field as the client spells it.
    pub field: &'static str,
    /// What it sent.
    pub value: i64,
    /// What is allowed, in milliseconds.
    pub allowed: RangeInclusive<u64>,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            value,
            allowed,
        } = self;
        let (min, max) = (allowed.start(), allowed.end());
        write!(f, "{field} is {value} ms, allowed are {min} to {max} ms")
    }
}

impl std::error::Error for OutOfRange {}

fn within(
    field: &'static str,
    value: Option<i64>,
    allowed: RangeInclusive<u64>,
) -> Result<Option<u64>, OutOfRange> {
    let Some(value) = value else { return Ok(None) };
    match u64::try_from(value) {
        Ok(ms) if allowed.contains(&ms) => Ok(Some(ms)),
        _ => Err(OutOfRange {
            field,
            value,
            allowed,
        }),
    }
}

impl Terms {
    /// Joins what the client asked with what the endpoint says.
    ///
    /// # Errors
    /// [`OutOfRange`] names the first field that is outside its range.
    pub fn agree(asked: Asked, defaults: &Defaults) -> Result<Self, OutOfRange> {
        let execution = within(
            "policy.executionTimeout",
            asked.execution_timeout_ms,
            limits::EXECUTION_TIMEOUT_MS_MIN..=limits::EXECUTION_TIMEOUT_MS_MAX,
        )?;
        let ttl = within(
            "policy.ttl",
            asked.ttl_ms,
            limits::TTL_MS_MIN..=limits::TTL_MS_MAX,
        )?;
        Ok(Self {
            execution_timeout_ms: execution.or(defaults.execution_timeout_ms),
            ttl_ms: ttl.unwrap_or(defaults.ttl_ms),
            ttl_given: ttl.is_some(),
            low_priority: asked.low_priority,
            retries_max: defaults.retries_max,
            poison_after: defaults.poison_after,
            retention_ms: defaults.retention_ms,
            retention_sync_ms: defaults.retention_sync_ms,
            ttl_expiry_forgets: defaults.ttl_expiry_forgets,
            webhook_on_cancel: defaults.webhook_on_cancel,
        })
    }

    /// Whether a webhook hears of a job that is in this state.
    #[must_use]
    pub const fn reports(&self, status: Status) -> bool {
        match status {
            Status::InQueue | Status::InProgress => false,
            Status::Completed | Status::Failed | Status::TimedOut => true,
            Status::Cancelled => self.webhook_on_cancel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_wins_over_the_endpoint_and_a_given_ttl_is_hard() {
        let asked = Asked {
            execution_timeout_ms: Some(5_000),
            ttl_ms: Some(10_000),
            low_priority: true,
        };
        let terms = Terms::agree(asked, &Defaults::default()).unwrap();
        assert_eq!(terms.execution_timeout_ms, Some(5_000));
        assert_eq!(
            (terms.ttl_ms, terms.ttl_given, terms.low_priority),
            (10_000, true, true)
        );

        let terms = Terms::agree(Asked::default(), &Defaults::default()).unwrap();
        assert_eq!(terms.execution_timeout_ms, Some(86_400_000));
        assert_eq!(
            (terms.ttl_ms, terms.ttl_given, terms.low_priority),
            (86_400_000, false, false)
        );
    }

    #[test]
    fn a_webhook_hears_of_ends_and_of_those_by_hand_only_where_agreed() {
        for webhook_on_cancel in [false, true] {
            let defaults = Defaults {
                webhook_on_cancel,
                ..Defaults::default()
            };
            let terms = Terms::agree(Asked::default(), &defaults).unwrap();
            for status in Status::ALL {
                let by_hand = status == Status::Cancelled;
                let reported = status.is_terminal() && (webhook_on_cancel || !by_hand);
                assert_eq!(terms.reports(status), reported, "{status}");
            }
        }
    }

    #[test]
    fn values_out_of_range_name_field_value_and_range() {
        let ask = |execution, ttl| {
            let asked = Asked {
                execution_timeout_ms: execution,
                ttl_ms: ttl,
                low_priority: false,
            };
            Terms::agree(asked, &Defaults::default()).map_err(|e| e.to_string())
        };
        for (execution, ttl) in [(4_999, 10_000), (604_800_001, 10_000), (-1, 10_000)] {
            assert_eq!(
                ask(Some(execution), Some(ttl)).unwrap_err(),
                format!(
                    "policy.executionTimeout is {execution} ms, allowed are 5000 to 604800000 ms"
                )
            );
        }
        for ttl in [9_999, 604_800_001, 0] {
            assert_eq!(
                ask(None, Some(ttl)).unwrap_err(),
                format!("policy.ttl is {ttl} ms, allowed are 10000 to 604800000 ms")
            );
        }
        assert!(ask(Some(604_800_000), Some(604_800_000)).is_ok());
    }
}
