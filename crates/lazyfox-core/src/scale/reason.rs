//! Why a plan is as it is: a code for programs, a fragment of a sentence for people.

use std::fmt;

/// Why workers are started, or none is, or why one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Jobs wait and there is no worker.
    FirstJob {
        /// How many wait.
        queued: u64,
    },
    /// The oldest job has waited for the scaler's value, or for it once more.
    QueueDelay {
        /// How long it has waited.
        waited_ms: u64,
        /// The scaler's value.
        ms: u64,
    },
    /// More jobs than the workers should have.
    RequestCount {
        /// Waiting and running.
        jobs: u64,
        /// The scaler's value.
        per_worker: u32,
    },
    /// Fewer workers than are always kept.
    WorkersMin {
        /// The minimum.
        min: u32,
    },
    /// Workers of an older release are to be replaced.
    Rollout {
        /// How many are left.
        outdated: u32,
    },
    /// More would be wanted, and there may be no more.
    AtMaximum {
        /// The maximum.
        max: u32,
    },
    /// The maximum is 0.
    Paused,
    /// More are wanted, and the machine has no room for one.
    NoRoom {
        /// How many are wanted.
        missing: u32,
    },
    /// Starts failed, and the next one is tried later.
    HoldOff {
        /// How many failed one after the other.
        failures: u32,
        /// How long it is until then.
        left_ms: u64,
    },
    /// Starts failed, and one is being tried.
    OnTrial {
        /// How many failed one after the other.
        failures: u32,
    },
    /// So many starts failed that no more are tried.
    GivenUp {
        /// How many failed one after the other.
        failures: u32,
    },
    /// Only jobs that start no worker wait, and there is none.
    LowPriorityOnly {
        /// How many wait.
        queued: u64,
    },
    /// Jobs wait, not yet long enough for one more worker.
    Waiting {
        /// How long the oldest has waited.
        waited_ms: u64,
        /// How long it is until one more is started.
        left_ms: u64,
    },
    /// The workers that are there, or are starting, are enough.
    Enough {
        /// How many.
        workers: u32,
    },
    /// Of one that goes: it had no work for long enough.
    Idle {
        /// For how long.
        for_ms: u64,
    },
    /// Of one that goes: there are more than the maximum.
    OverMaximum {
        /// The maximum.
        max: u32,
    },
    /// Of one that goes: it runs an older release.
    Outdated,
}

impl Reason {
    /// The code: stable, for programs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::FirstJob { .. } => "first_job",
            Self::QueueDelay { .. } => "queue_delay",
            Self::RequestCount { .. } => "request_count",
            Self::WorkersMin { .. } => "workers_min",
            Self::Rollout { .. } => "rollout",
            Self::AtMaximum { .. } => "at_maximum",
            Self::Paused => "paused",
            Self::NoRoom { .. } => "no_room",
            Self::HoldOff { .. } => "hold_off",
            Self::OnTrial { .. } => "on_trial",
            Self::GivenUp { .. } => "given_up",
            Self::LowPriorityOnly { .. } => "low_priority_only",
            Self::Waiting { .. } => "waiting",
            Self::Enough { .. } => "enough",
            Self::Idle { .. } => "idle",
            Self::OverMaximum { .. } => "over_maximum",
            Self::Outdated => "outdated",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FirstJob { queued } => {
                write!(f, "{} and there is no worker", waiting(queued))
            }
            Self::QueueDelay { waited_ms, ms } => write!(
                f,
                "the oldest job has waited {}, one more worker for each {}",
                Seconds(waited_ms),
                Seconds(ms)
            ),
            Self::RequestCount { jobs, per_worker } => {
                write!(f, "{jobs} jobs waiting or running, {per_worker} a worker")
            }
            Self::WorkersMin { min } => write!(f, "the minimum is {}", workers(min)),
            Self::Rollout { outdated } => {
                write!(f, "{} of an older release to replace", workers(outdated))
            }
            Self::AtMaximum { max } => write!(f, "the maximum of {} is reached", workers(max)),
            Self::Paused => f.write_str("the endpoint is paused, its maximum is 0"),
            Self::NoRoom { missing } => write!(f, "no room for {} more", workers(missing)),
            Self::HoldOff { failures, left_ms } => write!(
                f,
                "{}, the next one is tried in {}",
                failed(failures),
                Seconds(left_ms)
            ),
            Self::OnTrial { failures } => write!(f, "{}, one is being tried", failed(failures)),
            Self::GivenUp { failures } => {
                write!(f, "{}, no more are tried", failed(failures))
            }
            Self::LowPriorityOnly { queued } => write!(
                f,
                "{} and all are of low priority, which starts no worker",
                waiting(queued)
            ),
            Self::Waiting { waited_ms, left_ms } => write!(
                f,
                "the oldest job has waited {}, one more worker in {}",
                Seconds(waited_ms),
                Seconds(left_ms)
            ),
            Self::Enough { workers: 0 } => f.write_str("no worker is needed"),
            Self::Enough { workers: 1 } => f.write_str("1 worker is enough"),
            Self::Enough { workers: n } => write!(f, "{} are enough", workers(n)),
            Self::Idle { for_ms } => write!(f, "idle for {}", Seconds(for_ms)),
            Self::OverMaximum { max } => write!(f, "more than the maximum of {}", workers(max)),
            Self::Outdated => f.write_str("it runs an older release"),
        }
    }
}

fn waiting(jobs: u64) -> String {
    let (s, verb) = if jobs == 1 {
        ("", "waits")
    } else {
        ("s", "wait")
    };
    format!("{jobs} job{s} {verb}")
}

fn workers(n: u32) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} worker{s}")
}

fn failed(failures: u32) -> String {
    let s = if failures == 1 { "" } else { "s" };
    format!("{failures} start{s} failed in a row")
}

/// Milliseconds as people read them: `4 s`, `0.5 s`, `12.345 s`.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        if ms == 0 {
            return write!(f, "{seconds} s");
        }
        let fraction = format!("{ms:03}");
        write!(f, "{seconds}.{} s", fraction.trim_end_matches('0'))
    }
}
