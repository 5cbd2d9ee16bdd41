//! One job from its submission to its end: the states, the events, and the one function that decides.

mod death;
mod refused;
mod status;

use crate::id::{EndpointId, JobId, WorkerId};
use crate::limits;
use crate::policy::Terms;
use crate::time::Timestamp;

pub use self::death::Death;
pub use self::refused::Refused;
pub use self::status::Status;

/// One unit of work. Its input, output and secrets are kept beside it by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// The queue it belongs to.
    pub endpoint: EndpointId,
    /// What was agreed at submission.
    pub terms: Terms,
    /// Whether its end is reported to a webhook.
    pub has_webhook: bool,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its present wait began: its submission, or the call to `/retry`.
    pub queued_at: Timestamp,
    /// When its ttl runs out.
    pub expires_at: Timestamp,
    /// Whether `expires_at` ends a running job too.
    pub expiry_is_hard: bool,
    /// Whether a `/runsync` caller still waits: a result that is delivered that way is kept shorter.
    pub awaited: bool,
    /// Automatic retries so far.
    pub retries: u32,
    /// Workers whose attempt at this job ended without their own report. They may still speak of it,
    /// and their URLs carry no attempt number, so the job never goes to them again.
    pub barred: Vec<WorkerId>,
    /// Workers that died while they ran it, one after the other, with no other kind of loss in between.
    pub deaths: Vec<Death>,
    /// Where it is in its life.
    pub state: State,
}

/// Where a job is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Running(Attempt),
    /// Ended with a result.
    Completed(End),
    /// Ended with an error.
    Failed(End),
    /// Ended by `/cancel` or `/purge-queue`.
    Cancelled(End),
    /// Ended by its execution timeout or its ttl.
    TimedOut(End),
}

/// One try at a job by one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who works on it.
    pub worker: WorkerId,
    /// Since when; until it has begun, since when the worker has it.
    pub started_at: Timestamp,
    /// Until when it may, unless it gives a sign of life.
    pub lease_until: Timestamp,
    /// Whether the worker is known to work on it. One that was handed out beyond what was asked for waits
    /// inside the worker until those before it are done, and no sign of life names it.
    pub begun: bool,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// The last attempt: who and since when. `None` when no worker ever took it.
    pub attempt: Option<(WorkerId, Timestamp)>,
    /// Why, where it ended badly.
    pub error: Option<String>,
    /// When the record is deleted.
    pub forget_at: Timestamp,
}

/// What can happen to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker's poll is answered with it.
    Take {
        /// The worker.
        worker: WorkerId,
        /// Length of the lease.
        lease_ms: u64,
        /// Whether it waits inside the worker at first.
        waits: bool,
    },
    /// The answer to that poll never left the server.
    HandBack {
        /// The worker that did not get it.
        worker: WorkerId,
        /// Since when it would have had it: it may have got the job by another poll meanwhile.
        since: Timestamp,
    },
    /// A heartbeat of the worker.
    Renew {
        /// The worker.
        worker: WorkerId,
        /// Length of the lease from now.
        lease_ms: u64,
    },
    /// The worker begins with a job that waited inside it.
    Begin {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker reports an intermediate output.
    Progress {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker reports the result.
    Complete {
        /// The worker.
        worker: WorkerId,
        /// Since when it worked on it, where that is known better than when it got it.
        began_at: Option<Timestamp>,
    },
    /// The worker reports an error, or a result that cannot be kept.
    Fail {
        /// The worker.
        worker: WorkerId,
        /// Its error.
        error: String,
        /// Since when it worked on it, where that is known better than when it got it.
        began_at: Option<Timestamp>,
    },
    /// The worker ended, or polls without the job that it holds.
    Lost {
        /// The worker.
        worker: WorkerId,
        /// What is known of it, as a fragment of a sentence.
        how: String,
        /// Whether its process or container ended, and not by the server's hand.
        died: bool,
    },
    /// The server stops the worker for another job's sake. The job is not to blame, so this is no retry.
    Evict {
        /// The worker.
        worker: WorkerId,
    },
    /// Time has passed: whatever deadline is due takes effect.
    Clock,
    /// `/cancel`.
    Cancel,
    /// `/purge-queue`.
    Purge,
    /// No worker can be started for it.
    Unservable {
        /// Why.
        reason: String,
    },
    /// `/retry`.
    Retry,
    /// The `/runsync` caller is gone or was answered without the result.
    WaitEnded,
    /// `/status?ttl=`: the remaining life, from now.
    SetTtl {
        /// Milliseconds.
        ms: u64,
    },
}

/// What a store has to do beside writing the new job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Keep the output that came with the event.
    KeepOutput,
    /// Forget the output of an earlier attempt.
    ClearOutput,
    /// Forget the chunks of an earlier attempt.
    ClearChunks,
    /// Forget the credentials: the job can never run again.
    WipeSecrets,
    /// Record a delivery for the webhook.
    Deliver,
    /// Withdraw the delivery of an earlier end, if it is still open.
    Withdraw,
    /// Count it for `/health`.
    Count(Counter),
}

/// What `/health` counts over the life of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "named like the states")]
pub enum Counter {
    Completed,
    Failed,
    Cancelled,
    TimedOut,
    Retried,
}

/// The job after an event, and what else has to happen in the same commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The job as it is now.
    pub job: Job,
    /// In the order in which to carry them out: what a delivery carries is there when it is recorded.
    pub effects: Vec<Effect>,
}

impl State {
    /// Its name.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Queued => Status::InQueue,
            Self::Running(_) => Status::InProgress,
            Self::Completed(_) => Status::Completed,
            Self::Failed(_) => Status::Failed,
            Self::Cancelled(_) => Status::Cancelled,
            Self::TimedOut(_) => Status::TimedOut,
        }
    }

    /// How it ended, if it did.
    #[must_use]
    pub const fn end(&self) -> Option<&End> {
        match self {
            Self::Queued | Self::Running(_) => None,
            Self::Completed(end)
            | Self::Failed(end)
            | Self::Cancelled(end)
            | Self::TimedOut(end) => Some(end),
        }
    }

    /// The attempt that runs or ran last: who and since when.
    #[must_use]
    pub const fn last_attempt(&self) -> Option<(&WorkerId, Timestamp)> {
        match self {
            Self::Queued => None,
            Self::Running(attempt) => Some((&attempt.worker, attempt.started_at)),
            Self::Completed(end)
            | Self::Failed(end)
            | Self::Cancelled(end)
            | Self::TimedOut(end) => match &end.attempt {
                Some((worker, started_at)) => Some((worker, *started_at)),
                None => None,
            },
        }
    }
}

impl Job {
    /// A job as it is at its submission.
    #[must_use]
    pub fn submitted(
        id: JobId,
        endpoint: EndpointId,
        terms: Terms,
        has_webhook: bool,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            endpoint,
            has_webhook,
            created_at: now,
            queued_at: now,
            expires_at: now.plus_ms(terms.ttl_ms),
            expiry_is_hard: terms.ttl_given,
            awaited: id.is_sync(),
            retries: 0,
            barred: Vec::new(),
            deaths: Vec::new(),
            state: State::Queued,
            terms,
        }
    }

    /// Its state's name.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.state.status()
    }

    /// Whether it was handed out and the worker is not known to work on it yet.
    #[must_use]
    pub const fn waits_in_worker(&self) -> bool {
        match &self.state {
            State::Running(attempt) => !attempt.begun,
            State::Queued
            | State::Completed(_)
            | State::Failed(_)
            | State::Cancelled(_)
            | State::TimedOut(_) => false,
        }
    }

    /// When [`Event::Clock`] has something to do next; for an ended job, when its record goes.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        match &self.state {
            State::Queued => self.expires_at,
            State::Running(attempt) => {
                let hard = if self.expiry_is_hard {
                    self.expires_at
                } else {
                    Timestamp::NEVER
                };
                attempt
                    .lease_until
                    .min(self.execution_deadline(attempt))
                    .min(hard)
            }
            State::Completed(end)
            | State::Failed(end)
            | State::Cancelled(end)
            | State::TimedOut(end) => end.forget_at,
        }
    }

    fn execution_deadline(&self, attempt: &Attempt) -> Timestamp {
        match self.terms.execution_timeout_ms {
            Some(ms) if attempt.begun => attempt.started_at.plus_ms(ms),
            Some(_) | None => Timestamp::NEVER,
        }
    }
}

/// Decides what an event does to a job. Every state is named in every arm: a new state must be
/// thought about everywhere.
///
/// # Errors
/// [`Refused`] when the event changes nothing.
pub fn apply(job: &Job, event: Event, now: Timestamp) -> Result<Step, Refused> {
    let refused = match (&job.state, event) {
        (
            State::Queued,
            Event::Take {
                worker,
                lease_ms,
                waits,
            },
        ) => return take(job, worker, lease_ms, waits, now),
        (State::Running(_), Event::Take { .. }) => Refused::NotQueued,

        (State::Running(attempt), Event::HandBack { worker, since })
            if attempt.worker == worker && attempt.started_at == since =>
        {
            // It never started, so its wait goes on as it was.
            return Ok(requeued(job.clone(), Vec::new()));
        }
        (State::Running(attempt), Event::Renew { worker, lease_ms })
            if attempt.worker == worker =>
        {
            let lease_until = attempt.lease_until.max(now.plus_ms(lease_ms));
            return Ok(changed(with_attempt(job, |it| {
                it.lease_until = lease_until;
            })));
        }
        (State::Running(attempt), Event::Begin { worker }) if attempt.worker == worker => {
            if !attempt.begun {
                return Ok(changed(begun_since(job, now)));
            }
            Refused::Begun
        }
        (State::Running(attempt), Event::Progress { worker }) if attempt.worker == worker => {
            // Whoever reports how far it is has begun.
            let since = if attempt.begun {
                attempt.started_at
            } else {
                now
            };
            return Ok(changed(begun_since(job, since)).with(vec![Effect::KeepOutput]));
        }
        (State::Running(attempt), Event::Complete { worker, began_at })
            if attempt.worker == worker =>
        {
            let job = reported(job, attempt, began_at, now);
            let effects = vec![Effect::KeepOutput];
            return Ok(ended(&job, State::Completed, None, now, effects));
        }
        (
            State::Running(attempt),
            Event::Fail {
                worker,
                error,
                began_at,
            },
        ) if attempt.worker == worker => {
            let job = reported(job, attempt, began_at, now);
            let effects = vec![Effect::KeepOutput];
            return Ok(ended(&job, State::Failed, Some(error), now, effects));
        }
        (State::Running(attempt), Event::Lost { worker, how, died })
            if attempt.worker == worker =>
        {
            return Ok(lost(job, attempt, &how, died, now));
        }
        (State::Running(attempt), Event::Evict { worker }) if attempt.worker == worker => {
            return Ok(taken_away(job, &worker, now));
        }
        (
            State::Queued | State::Running(_),
            Event::HandBack { .. }
            | Event::Renew { .. }
            | Event::Begin { .. }
            | Event::Progress { .. }
            | Event::Complete { .. }
            | Event::Fail { .. }
            | Event::Lost { .. }
            | Event::Evict { .. },
        ) => Refused::NotHolder,

        (State::Queued | State::Running(_), Event::Clock) => return clock(job, now),
        (State::Queued | State::Running(_), Event::Cancel) => {
            return Ok(ended(&let_go(job), State::Cancelled, None, now, Vec::new()));
        }
        (State::Queued, Event::Purge) => {
            return Ok(ended(job, State::Cancelled, None, now, Vec::new()));
        }
        (State::Queued, Event::Unservable { reason }) => {
            return Ok(ended(job, State::Failed, Some(reason), now, Vec::new()));
        }
        (State::Running(_), Event::Purge | Event::Unservable { .. }) => Refused::NotQueued,
        (State::Queued | State::Running(_), Event::WaitEnded) => {
            return Ok(changed(Job {
                awaited: false,
                ..job.clone()
            }));
        }
        (State::Queued | State::Running(_), Event::SetTtl { ms }) => {
            return Ok(changed(Job {
                expires_at: now.plus_ms(ms),
                expiry_is_hard: true,
                ..job.clone()
            }));
        }
        (State::Queued | State::Running(_), Event::Retry) => Refused::NotRetryable(job.status()),

        (State::Failed(_) | State::TimedOut(_), Event::Retry) => return Ok(retried(job, now)),
        (State::Completed(_) | State::Cancelled(_), Event::Retry) => {
            Refused::NotRetryable(job.status())
        }
        (
            State::Completed(end)
            | State::Failed(end)
            | State::Cancelled(end)
            | State::TimedOut(end),
            Event::SetTtl { ms },
        ) => return Ok(forgotten_earlier(job, end.forget_at.min(now.plus_ms(ms)))),
        (
            State::Completed(end)
            | State::Failed(end)
            | State::Cancelled(end)
            | State::TimedOut(end),
            Event::WaitEnded,
        ) if job.awaited => return Ok(kept_unanswered(job, end)),
        (
            State::Completed(_) | State::Failed(_) | State::Cancelled(_) | State::TimedOut(_),
            Event::Take { .. }
            | Event::HandBack { .. }
            | Event::Renew { .. }
            | Event::Begin { .. }
            | Event::Progress { .. }
            | Event::Complete { .. }
            | Event::Fail { .. }
            | Event::Lost { .. }
            | Event::Evict { .. }
            | Event::Clock
            | Event::Cancel
            | Event::Purge
            | Event::Unservable { .. }
            | Event::WaitEnded,
        ) => Refused::Ended(job.status()),
    };
    Err(refused)
}

fn take(
    job: &Job,
    worker: WorkerId,
    lease_ms: u64,
    waits: bool,
    now: Timestamp,
) -> Result<Step, Refused> {
    if job.barred.contains(&worker) {
        return Err(Refused::Barred);
    }
    // Its end is due; the clock's event will write it.
    if job.expires_at <= now {
        return Err(Refused::NotQueued);
    }
    Ok(changed(Job {
        state: State::Running(Attempt {
            worker,
            started_at: now,
            lease_until: now.plus_ms(lease_ms),
            begun: !waits,
        }),
        ..job.clone()
    }))
}

fn changed(job: Job) -> Step {
    Step {
        job,
        effects: Vec::new(),
    }
}

fn with_attempt(job: &Job, change: impl FnOnce(&mut Attempt)) -> Job {
    let mut job = job.clone();
    match &mut job.state {
        State::Running(attempt) => change(attempt),
        State::Queued
        | State::Completed(_)
        | State::Failed(_)
        | State::Cancelled(_)
        | State::TimedOut(_) => {}
    }
    job
}

/// The job, its attempt known to have begun then. One that does not run stays as it is.
#[must_use]
pub fn begun_since(job: &Job, at: Timestamp) -> Job {
    with_attempt(job, |attempt| {
        attempt.begun = true;
        attempt.started_at = at;
    })
}

/// The job as its worker reports it: it has run, and not since before the worker had it.
fn reported(job: &Job, attempt: &Attempt, began_at: Option<Timestamp>, now: Timestamp) -> Job {
    let began_at = began_at.map_or(attempt.started_at, |at| at.min(now));
    begun_since(job, began_at.max(attempt.started_at))
}

/// Back to its old place in the queue. Places are given in order of submission and a job that was
/// taken came before all that still wait, so its old place is the front.
fn requeued(job: Job, mut effects: Vec<Effect>) -> Step {
    effects.push(Effect::ClearChunks);
    Step {
        job: Job {
            state: State::Queued,
            ..job
        },
        effects,
    }
}

/// A job whose attempt was taken from it waits once more. It may have run past its default ttl, which
/// ends only jobs that wait; ending it now would let a default kill work that had started.
fn waiting_anew(mut job: Job, now: Timestamp) -> Job {
    if !job.expiry_is_hard {
        job.expires_at = job.expires_at.max(now.plus_ms(job.terms.ttl_ms));
    }
    job
}

fn barring(job: &Job, worker: &WorkerId) -> Job {
    let mut job = job.clone();
    if !job.barred.contains(worker) {
        job.barred.push(worker.clone());
    }
    job
}

/// The job with its present worker barred, where one holds it: it may work on for a while.
fn let_go(job: &Job) -> Job {
    match &job.state {
        State::Running(attempt) => barring(job, &attempt.worker),
        State::Queued
        | State::Completed(_)
        | State::Failed(_)
        | State::Cancelled(_)
        | State::TimedOut(_) => job.clone(),
    }
}

/// Back to its place, for nothing that it did: no retry is counted.
fn taken_away(job: &Job, worker: &WorkerId, now: Timestamp) -> Step {
    let job = waiting_anew(barring(job, worker), now);
    requeued(job, vec![Effect::ClearOutput])
}

fn lost(job: &Job, attempt: &Attempt, how: &str, died: bool, now: Timestamp) -> Step {
    let worker = &attempt.worker;
    // What waited inside the worker did it no harm.
    if !attempt.begun {
        return taken_away(job, worker, now);
    }
    let mut job = barring(job, worker);
    let most = job.terms.poison_after;
    if !died {
        job.deaths.clear();
    } else if most > 0 {
        job.deaths.push(Death::new(worker, how));
    }
    if most > 0 && job.deaths.len() as u64 >= u64::from(most) {
        let error = death::poison(&job.deaths);
        return given_up(&job, error, now);
    }
    if job.retries < job.terms.retries_max {
        job.retries += 1;
        let job = waiting_anew(job, now);
        return requeued(
            job,
            vec![Effect::ClearOutput, Effect::Count(Counter::Retried)],
        );
    }
    let error = match job.retries {
        0 => format!("worker {worker} {how}; automatic retries are off"),
        1 => format!("worker {worker} {how}; gave up after 1 retry"),
        n => format!("worker {worker} {how}; gave up after {n} retries"),
    };
    given_up(&job, error, now)
}

fn given_up(job: &Job, error: String, now: Timestamp) -> Step {
    let effects = vec![Effect::ClearOutput];
    ended(job, State::Failed, Some(error), now, effects)
}

const LEASE_RAN_OUT: &str = "gave no sign of life for the length of its lease";

fn clock(job: &Job, now: Timestamp) -> Result<Step, Refused> {
    let attempt = match &job.state {
        State::Running(attempt) => Some(attempt),
        State::Queued
        | State::Completed(_)
        | State::Failed(_)
        | State::Cancelled(_)
        | State::TimedOut(_) => None,
    };
    if job.expires_at <= now && (attempt.is_none() || job.expiry_is_hard) {
        let ms = job.expires_at.ms_since(job.queued_at);
        let error = format!("ttl of {ms} ms ran out");
        let mut step = ended(&let_go(job), State::TimedOut, Some(error), now, Vec::new());
        if job.terms.ttl_expiry_forgets {
            step = forgotten_earlier(&step.job, now).with(step.effects);
        }
        return Ok(step);
    }
    let Some(attempt) = attempt else {
        return Err(Refused::NotDue);
    };
    if job.execution_deadline(attempt) <= now {
        let ms = job.terms.execution_timeout_ms.unwrap_or_default();
        let error = format!("execution timeout after {ms} ms");
        return Ok(ended(
            &let_go(job),
            State::TimedOut,
            Some(error),
            now,
            Vec::new(),
        ));
    }
    if attempt.lease_until <= now {
        return Ok(lost(job, attempt, LEASE_RAN_OUT, false, now));
    }
    Err(Refused::NotDue)
}

fn ended(
    job: &Job,
    state: fn(End) -> State,
    error: Option<String>,
    now: Timestamp,
    mut effects: Vec<Effect>,
) -> Step {
    let keep_ms = if job.awaited {
        job.terms.retention_sync_ms
    } else {
        job.terms.retention_ms
    };
    let end = End {
        at: now,
        attempt: job.state.last_attempt().map(|(worker, at)| {
            // Of what never ran, all the time was waiting.
            let started_at = if job.waits_in_worker() { now } else { at };
            (worker.clone(), started_at)
        }),
        error: error.map(bounded),
        forget_at: now.plus_ms(keep_ms),
    };
    let state = state(end);
    let (counter, retryable) = match &state {
        State::Queued | State::Running(_) => unreachable!("an end is a terminal state"),
        State::Completed(_) => (Counter::Completed, false),
        State::Failed(_) => (Counter::Failed, true),
        State::Cancelled(_) => (Counter::Cancelled, false),
        State::TimedOut(_) => (Counter::TimedOut, true),
    };
    effects.push(Effect::Count(counter));
    if !retryable {
        effects.push(Effect::WipeSecrets);
    }
    if job.has_webhook && job.terms.reports(state.status()) {
        effects.push(Effect::Deliver);
    }
    Step {
        job: Job {
            state,
            ..job.clone()
        },
        effects,
    }
}

fn bounded(error: String) -> String {
    if error.len() <= limits::ERROR_BYTES {
        return error;
    }
    let cut = error.floor_char_boundary(limits::ERROR_BYTES);
    format!("{} … ({} bytes in all)", &error[..cut], error.len())
}

fn retried(job: &Job, now: Timestamp) -> Step {
    let job = Job {
        queued_at: now,
        expires_at: now.plus_ms(job.terms.ttl_ms),
        expiry_is_hard: job.terms.ttl_given,
        awaited: false,
        retries: 0,
        deaths: Vec::new(),
        state: State::Queued,
        ..job.clone()
    };
    Step {
        job,
        // A delivery that is still tried would report an end that is none any more.
        effects: vec![Effect::ClearOutput, Effect::ClearChunks, Effect::Withdraw],
    }
}

fn with_end(job: &Job, change: impl FnOnce(&mut End)) -> Job {
    let mut job = job.clone();
    match &mut job.state {
        State::Queued | State::Running(_) => {}
        State::Completed(end)
        | State::Failed(end)
        | State::Cancelled(end)
        | State::TimedOut(end) => change(end),
    }
    job
}

fn forgotten_earlier(job: &Job, forget_at: Timestamp) -> Step {
    changed(with_end(job, |end| end.forget_at = forget_at))
}

/// The job ended, and what it left is wanted longer than was agreed. One that has not ended stays as it is.
#[must_use]
pub fn kept_until(job: &Job, until: Timestamp) -> Job {
    with_end(job, |end| end.forget_at = end.forget_at.max(until))
}

/// The job ended, but its caller was gone before the answer: the result is kept as long as any.
fn kept_unanswered(job: &Job, end: &End) -> Step {
    let forget_at = end.at.plus_ms(job.terms.retention_ms);
    let mut job = with_end(job, |end| end.forget_at = forget_at);
    job.awaited = false;
    changed(job)
}

impl Step {
    fn with(mut self, effects: Vec<Effect>) -> Self {
        self.effects.extend(effects);
        self
    }
}

#[cfg(test)]
mod tests;
