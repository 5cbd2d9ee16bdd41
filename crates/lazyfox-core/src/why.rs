//! Why a job waits: a code for programs, a sentence for people, and a guess how long it will be.

use std::fmt::{self, Write as _};

use crate::time::Timestamp;

/// What is known of a waiting job and its endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Jobs that are handed out before it.
    pub ahead: u64,
    /// Whether it is of the low lane.
    pub low: bool,
    /// Whether this server starts the endpoint's workers.
    pub managed: bool,
    /// What is said of the server that starts them, where that is another one.
    pub elsewhere: Option<Elsewhere>,
    /// The maximum of workers.
    pub workers_max: u32,
    /// Workers that were started and have not asked for a job yet.
    pub starting: u32,
    /// When the first of those was started.
    pub starting_since: Option<Timestamp>,
    /// What the first of those does, where its provider says so: its image is pulled.
    pub starting_step: Option<String>,
    /// Workers that ask for jobs and have none.
    pub idle: u32,
    /// Workers that hold jobs.
    pub busy: u32,
    /// Workers that had this very job before.
    pub barred: u32,
    /// Workers that are wanted and find no room on the machine.
    pub no_room: u32,
    /// GPUs that each worker needs.
    pub gpus: u32,
    /// What became of the starts that failed last.
    pub failing: Option<Failing>,
    /// When the scaler will look again for whether one more worker is needed.
    pub next_step_at: Option<Timestamp>,
    /// How long jobs of the endpoint take, in milliseconds.
    pub run_ms: Option<u64>,
    /// How long its workers take to start, in milliseconds.
    pub start_ms: Option<u64>,
    /// Jobs that its workers run at once, each.
    pub slots: u32,
}

/// Another server starts the workers, or none does at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Who, as a sentence for people.
    pub who: String,
    /// How many of its workers may run.
    pub workers: u32,
}

/// Starts that fail one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// How many.
    pub in_a_row: u32,
    /// What went wrong last.
    pub last: String,
    /// When the next one is tried; `None` when no more are.
    pub next_at: Option<Timestamp>,
}

/// Why a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A worker is idle and will take it in a moment.
    Next,
    /// A worker is starting.
    Starting,
    /// All workers are busy; one more is added if it waits for long.
    Busy,
    /// All workers are busy, and there may be no more.
    AtMaximum,
    /// Workers do not start; another start is tried later.
    Unhealthy,
    /// Workers do not start, and no more are tried.
    GivenUp,
    /// The endpoint may have no workers.
    Paused,
    /// No GPU is free for a worker.
    NoGpu,
    /// It waits until no other job waits, and starts no worker.
    LowPriority,
    /// The workers that are there had it before, and must not have it again.
    Barred,
    /// Workers are started by somebody else, and none is there.
    NoWorker,
    /// Another server starts the workers.
    Elsewhere,
}

/// Why a job waits, and how long that may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// For programs.
    pub cause: Cause,
    /// For people.
    pub text: String,
    /// How long it will still wait, in milliseconds, if all goes on as it did lately; `None` when that cannot
    /// be said.
    pub estimate_ms: Option<u64>,
}

impl Cause {
    /// The name that programs may rely on.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Starting => "starting",
            Self::Busy => "busy",
            Self::AtMaximum => "at_maximum",
            Self::Unhealthy => "unhealthy",
            Self::GivenUp => "given_up",
            Self::Paused => "paused",
            Self::NoGpu => "no_gpu",
            Self::LowPriority => "low_priority",
            Self::Barred => "barred",
            Self::NoWorker => "no_worker",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Decides why a job waits now.
#[must_use]
pub fn why(facts: &Facts, now: Timestamp) -> Why {
    let cause = cause(facts);
    Why {
        cause,
        text: text(cause, facts, now),
        estimate_ms: estimate_ms(cause, facts, now),
    }
}

fn cause(facts: &Facts) -> Cause {
    if facts.managed && facts.workers_max == 0 {
        return Cause::Paused;
    }
    let fit = facts.idle.saturating_sub(facts.barred);
    if u64::from(fit) > facts.ahead {
        return Cause::Next;
    }
    if facts.starting > 0 {
        return Cause::Starting;
    }
    if facts.managed && facts.elsewhere.is_some() {
        return Cause::Elsewhere;
    }
    let workers = facts.idle + facts.busy;
    if workers == 0 {
        return match &facts.failing {
            Some(Failing { next_at: None, .. }) => Cause::GivenUp,
            Some(_) => Cause::Unhealthy,
            None if !facts.managed => Cause::NoWorker,
            None if facts.no_room > 0 => Cause::NoGpu,
            None if facts.low => Cause::LowPriority,
            None => Cause::Starting,
        };
    }
    if facts.barred >= workers {
        return Cause::Barred;
    }
    if facts.low {
        return Cause::LowPriority;
    }
    if facts.no_room > 0 {
        return Cause::NoGpu;
    }
    if facts.managed && workers >= facts.workers_max {
        return Cause::AtMaximum;
    }
    match &facts.failing {
        Some(Failing { next_at: None, .. }) => Cause::GivenUp,
        Some(_) => Cause::Unhealthy,
        None => Cause::Busy,
    }
}

fn text(cause: Cause, facts: &Facts, now: Timestamp) -> String {
    let since = |at: Timestamp| seconds(now.ms_since(at));
    let until = |at: Timestamp| seconds(at.ms_since(now));
    let mut text = match cause {
        Cause::Next => "a worker is idle and takes it in a moment".to_owned(),
        Cause::Starting => match facts.starting_since {
            Some(at) => {
                let step = facts.starting_step.as_deref();
                let step = step.map(|step| format!(": {step}")).unwrap_or_default();
                let workers = counted(facts.starting, "worker has", "workers have");
                format!(
                    "no worker is free yet; {workers} been starting for {}{step}",
                    since(at)
                )
            }
            None => "no worker is there yet; one is about to be started".to_owned(),
        },
        Cause::Busy => {
            let workers = all(facts.busy + facts.idle);
            let more = match facts.next_step_at {
                Some(at) if at > now => {
                    format!("one more is started if it still waits in {}", until(at))
                }
                Some(_) => "one more is about to be started".to_owned(),
                None => "no further one is wanted".to_owned(),
            };
            format!("{workers} busy; {more}")
        }
        Cause::AtMaximum => format!(
            "{} busy, and {} is the maximum (workers_max)",
            all(facts.busy + facts.idle),
            facts.workers_max
        ),
        Cause::Unhealthy | Cause::GivenUp => failing(facts, now),
        Cause::Paused => "the endpoint is paused: its workers_max is 0".to_owned(),
        Cause::NoGpu => format!(
            "a worker needs {}, and so many are not free on this machine",
            counted(facts.gpus, "GPU", "GPUs")
        ),
        Cause::LowPriority => match facts.busy + facts.idle {
            0 => "it is of low priority, and such a job starts no worker".to_owned(),
            n => format!(
                "it is of low priority: it starts no worker, and {} busy",
                all(n)
            ),
        },
        Cause::Barred => {
            "the workers that are there had this job before and lost it, so it waits for \
                          another"
                .to_owned()
        }
        Cause::NoWorker => "no worker is connected, and this endpoint's workers are started by \
                            somebody else"
            .to_owned(),
        Cause::Elsewhere => elsewhere(facts),
    };
    if facts.ahead > 0 {
        let jobs = counted64(facts.ahead, "job waits", "jobs wait");
        let _ = write!(text, "; {jobs} before it");
    }
    text
}

fn elsewhere(facts: &Facts) -> String {
    let Some(Elsewhere { who, workers }) = &facts.elsewhere else {
        return "another server starts the workers".to_owned();
    };
    match workers {
        0 => who.clone(),
        n => {
            let workers = counted(
                *n,
                "worker of another server is",
                "workers of other servers are",
            );
            format!("{who}; {workers} known")
        }
    }
}

fn failing(facts: &Facts, now: Timestamp) -> String {
    let Some(failing) = &facts.failing else {
        return "workers do not start".to_owned();
    };
    let starts = match failing.in_a_row {
        1 => "the last start of a worker failed".to_owned(),
        n => format!("the last {n} starts of workers failed"),
    };
    let next = match failing.next_at {
        Some(at) if at > now => format!("the next is tried in {}", seconds(at.ms_since(now))),
        Some(_) => "the next is about to be tried".to_owned(),
        None => "no more are tried until the endpoint is changed or its scaler reset".to_owned(),
    };
    format!("{starts}, and {next}; last error: {}", failing.last)
}

/// As it went lately: what is ahead is worked off by all slots at once, after a start if none is there.
fn estimate_ms(cause: Cause, facts: &Facts, now: Timestamp) -> Option<u64> {
    let start_left = || {
        let begun = facts.starting_since.map_or(0, |at| now.ms_since(at));
        facts.start_ms.map(|ms| ms.saturating_sub(begun))
    };
    let slots = |workers: u32| u64::from(workers.max(1)) * u64::from(facts.slots.max(1));
    match cause {
        Cause::Next => Some(0),
        Cause::Starting if facts.busy + facts.idle == 0 => {
            let before = match facts.ahead {
                0 => 0,
                ahead => facts.run_ms? * (ahead / slots(facts.starting)),
            };
            Some(start_left()? + before)
        }
        Cause::Starting | Cause::Busy | Cause::AtMaximum | Cause::NoGpu | Cause::LowPriority => {
            let workers = facts.busy + facts.idle;
            if workers == 0 {
                return None;
            }
            let run_ms = facts.run_ms?;
            // Those that run now are half done on average.
            Some(run_ms / 2 + run_ms * (facts.ahead / slots(workers)))
        }
        Cause::Unhealthy
        | Cause::GivenUp
        | Cause::Paused
        | Cause::Barred
        | Cause::NoWorker
        | Cause::Elsewhere => None,
    }
}

fn all(n: u32) -> String {
    match n {
        1 => "the one worker is".to_owned(),
        n => format!("all {n} workers are"),
    }
}

fn counted(n: u32, one: &str, more: &str) -> String {
    counted64(u64::from(n), one, more)
}

fn counted64(n: u64, one: &str, more: &str) -> String {
    let word = if n == 1 { one } else { more };
    format!("{n} {word}")
}

fn seconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        _ => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests;
