//! One worker as this server knows it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::limits;
use lazyfox_core::scale::Phase;
use lazyfox_core::sdk::Runtime;
use lazyfox_core::time::Timestamp;
use tokio::sync::watch;

use super::hands::Hands;
use super::{Duty, Enlisted, Grace};
use crate::providers::Release;

/// A worker that holds no job asks for one at least every 25 s. One that has not for so long never will:
/// it hangs, or its server is not this one any more.
const DEAF_MS: u64 = limits::POLL_MS_MAX + 30_000;

pub(super) struct Worker {
    pub(super) endpoint: EndpointId,
    pub(super) started_at: Timestamp,
    /// Why it was started.
    pub(super) why: String,
    pub(super) release: Release,
    pub(super) gpus: Vec<String>,
    /// An earlier run of the server started it.
    pub(super) found: bool,
    /// Its provider still prepares the start; what it does, if it said so.
    pub(super) preparing: Option<String>,
    /// Since when its program runs.
    pub(super) runs_since: Timestamp,
    /// What it works on, as far as is known.
    pub(super) hands: Hands,
    /// The most jobs it was ever ready to take at once.
    pub(super) slots: usize,
    /// The most polls that it had open when one of them ended without a job.
    pub(super) polls_kept: Option<usize>,
    /// Its polls for work that are open now.
    pub(super) open_polls: usize,
    /// Whether the provider runs it.
    pub(super) managed: bool,
    pub(super) first_poll_at: Option<Timestamp>,
    pub(super) last_poll_at: Timestamp,
    pub(super) last_seen_at: Timestamp,
    pub(super) runtime: Option<Runtime>,
    /// Since when it holds no job, as far as is known.
    pub(super) free_since: Timestamp,
    /// When what it says it works on was last compared with what it holds.
    pub(super) compared_at: Timestamp,
    /// Jobs it may still work on although it no longer holds them.
    pub(super) let_go: HashMap<JobId, LetGo>,
    /// Jobs it named in a heartbeat although it does not hold them, once. The next
    /// heartbeat may already know better.
    pub(super) named_unheld: HashSet<JobId>,
    pub(super) retired: Option<Retired>,
    pub(super) unhealthy: Option<String>,
    /// Moves whenever a parked poll of it should look again.
    pub(super) calls: Arc<watch::Sender<()>>,
}

pub(super) struct LetGo {
    pub(super) since: Timestamp,
    /// From when on it can be told.
    pub(super) tell_at: Timestamp,
    /// Whether a job-stop poll was answered with it. The SDK asks again at once, so it is said once.
    pub(super) told: bool,
}

#[derive(Clone)]
pub(super) struct Retired {
    pub(super) why: String,
    pub(super) asked_to_stop_at: Option<Timestamp>,
    pub(super) killed: bool,
}

impl Worker {
    /// One that nobody here started, until the provider says otherwise.
    pub(super) fn new(endpoint: EndpointId, now: Timestamp) -> Self {
        Self {
            endpoint,
            started_at: now,
            why: String::new(),
            release: Release::default(),
            gpus: Vec::new(),
            found: false,
            preparing: None,
            runs_since: now,
            hands: Hands::default(),
            slots: 1,
            polls_kept: None,
            open_polls: 0,
            managed: false,
            first_poll_at: None,
            last_poll_at: now,
            last_seen_at: now,
            runtime: None,
            free_since: now,
            compared_at: Timestamp::from_ms(i64::MIN),
            let_go: HashMap::new(),
            named_unheld: HashSet::new(),
            retired: None,
            unhealthy: None,
            calls: Arc::new(watch::Sender::new(())),
        }
    }

    /// How long it took until it asked for its first job, where that was seen.
    pub(super) fn ready_ms(&self) -> Option<u64> {
        let ready_at = self.first_poll_at.filter(|_| !self.found)?;
        Some(ready_at.ms_since(self.started_at))
    }

    pub(super) fn phase(&self, holds: bool) -> Phase {
        if self.retired.is_some() {
            Phase::Stopping
        } else if holds || !self.let_go.is_empty() {
            Phase::Busy {
                since: self.free_since,
            }
        } else if self.first_poll_at.is_none() {
            Phase::Starting
        } else {
            Phase::Idle {
                since: self.free_since,
            }
        }
    }

    /// This server runs it, or did in an earlier run.
    pub(super) fn enlist(&mut self, new: Enlisted) {
        self.managed = true;
        self.started_at = new.started_at;
        self.runs_since = new.started_at;
        self.why = new.why;
        self.release = new.release;
        self.gpus = new.gpus;
        self.preparing = new.preparing.then(String::new);
    }

    /// It works on these jobs only.
    pub(super) fn let_go_but_for(&mut self, named: &[JobId], now: Timestamp) {
        let gone = self.let_go.extract_if(|job, _| !named.contains(job));
        for (job, _) in gone {
            self.hands.gone(job, now);
            self.free_since = now;
        }
    }

    /// A heartbeat that can be believed names jobs that it does not hold, at the second time: it works for
    /// nothing, for instance because its job was cancelled while the server was away.
    pub(super) fn names_unheld(&mut self, jobs: &[JobId], now: Timestamp) {
        let seen = std::mem::take(&mut self.named_unheld);
        for &job in jobs {
            if self.hands.is_void(job) {
                // It only waits there. When its turn comes it is in the way, and the worker is told then.
                continue;
            }
            if seen.contains(&job) {
                self.must_let_go(job, now, now);
            } else {
                self.named_unheld.insert(job);
            }
        }
    }

    /// What it runs although it was taken from it while it waited is to be let go.
    pub(super) fn clear_the_way(&mut self, now: Timestamp) {
        for job in self.hands.in_the_way() {
            if let Some(tell_at) = self.hands.taken_away(job, now) {
                self.must_let_go(job, tell_at, now);
            }
        }
    }

    /// Whether it can be counted on to ask for jobs. One that nobody here runs may be gone unless it does
    /// so at this moment.
    pub(super) fn asks(&self) -> bool {
        self.managed || self.open_polls > 0
    }

    pub(super) fn retire(&mut self, why: &str) {
        if self.retired.is_none() {
            let why = why.to_owned();
            self.retired = Some(Retired {
                why,
                asked_to_stop_at: None,
                killed: false,
            });
            self.calls.send_replace(());
        }
    }

    /// It may still work on a job that it does not hold: its parked polls are to tell it, from then on.
    pub(super) fn must_let_go(&mut self, job: JobId, tell_at: Timestamp, now: Timestamp) {
        self.let_go.entry(job).or_insert(LetGo {
            since: now,
            tell_at,
            told: false,
        });
        self.calls.send_replace(());
    }

    /// What is to be done about it. `holds` is whether it holds a job.
    pub(super) fn duty(
        &mut self,
        worker: &WorkerId,
        holds: bool,
        init_timeout_ms: u64,
        grace: Grace,
        now: Timestamp,
    ) -> Option<Duty> {
        let kill = |entry: &mut Self, why| {
            entry.retire(why);
            entry.kill().then(|| Duty::Kill(worker.clone(), why))
        };
        if self.first_poll_at.is_none() && !holds {
            let (since, limit_ms, why) = match self.preparing {
                Some(_) => (
                    self.started_at,
                    limits::PREPARE_MS_MAX.max(init_timeout_ms),
                    "its start was not prepared in time",
                ),
                None => (
                    self.runs_since,
                    init_timeout_ms,
                    "it did not ask for a job within its init timeout",
                ),
            };
            if now.ms_since(since) >= limit_ms {
                return kill(self, why);
            }
        }
        let clings = |it: &LetGo| now.ms_since(it.since) >= grace.release_ms;
        if self.let_go.values().any(clings) {
            return kill(self, "it did not let go of a job");
        }
        let idle = !holds && self.let_go.is_empty();
        let asked_at = self.last_poll_at.max(self.free_since);
        if idle && self.first_poll_at.is_some() && now.ms_since(asked_at) >= DEAF_MS {
            return kill(self, "it has no job and asks for none");
        }
        let retired = self.retired.as_mut()?;
        match retired.asked_to_stop_at {
            None if idle => {
                retired.asked_to_stop_at = Some(now);
                tracing::info!(worker.id = %worker, why = %retired.why, "stopping a worker");
                Some(Duty::AskToStop(worker.clone()))
            }
            Some(at) if now.ms_since(at) >= grace.stop_ms => {
                kill(self, "it did not stop when asked to")
            }
            None | Some(_) => None,
        }
    }

    /// Marks it killed; false when it was already.
    pub(super) fn kill(&mut self) -> bool {
        let retired = self.retired.as_mut();
        retired.is_some_and(|retired| !std::mem::replace(&mut retired.killed, true))
    }
}
