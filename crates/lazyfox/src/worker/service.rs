//! The worker's main loop: takes as many jobs as it has room for, until it shall end.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use lazyfox_core::time::Timestamp;
use tokio::task::JoinSet;

use super::exec::Exec;
use super::held::{Held, Hold, Stop};
use super::http::Http;
use super::job::Job;
use super::output::{Outcome, Report};
use super::pause::{Pause, wait};
use super::report::hand_in;
use super::server::Server;
use super::signs;
use crate::clock::Clock;
use crate::signals::{End, Signals};

/// A server that has nothing to give holds the call; one that answers faster than this does not, and is
/// asked again after [`UNHELD_PAUSE`].
const HELD_MS: u64 = 500;
const UNHELD_PAUSE: Duration = Duration::from_secs(1);

/// How long a worker that wants to be replaced by a fresh one keeps quiet before it ends. The server takes
/// one that asks for work again within 3 s, under the same name, for the one that was to go.
const QUIET_MS: u64 = 3_500;

/// What does a job.
pub(super) enum Handler {
    Exec(Exec),
    Http(Box<Http>),
}

impl Handler {
    async fn run(&self, job: &Job, server: &Server, stop: &mut Stop) -> Outcome {
        match self {
            Self::Exec(exec) => exec.run(job, &server.settings, stop).await,
            Self::Http(http) => http.run(job, stop).await,
        }
    }

    /// Returns when it cannot do any more jobs, and says why.
    async fn broken(&self) -> String {
        match self {
            Self::Http(http) => match &http.started {
                Some(started) => started.exited().await,
                None => std::future::pending().await,
            },
            Self::Exec(_) => std::future::pending().await,
        }
    }

    /// Ends what it runs for all jobs.
    pub(super) async fn close(&self) {
        if let Self::Http(http) = self
            && let Some(started) = &http.started
        {
            started.stop().await;
        }
    }
}

/// A worker's parts.
pub(super) struct Service {
    pub(super) server: Arc<Server>,
    pub(super) handler: Handler,
    pub(super) held: Arc<Held>,
    pub(super) clock: Clock,
    pub(super) concurrency: usize,
}

/// How far the worker is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// A job asked for a fresh worker: what runs is finished.
    Refreshing,
    /// It was asked to end: what runs is finished.
    Draining,
    /// It was asked twice: what runs is stopped.
    Stopping(End),
}

/// What a job means for the worker.
enum Effect {
    None,
    Refresh,
    Broken(String),
}

type Poll = Pin<Box<dyn Future<Output = (Poller, Vec<Job>)> + Send>>;

impl Service {
    /// Serves until a signal, and does not leave a job undone then unless there is a second one.
    ///
    /// # Errors
    /// When no more jobs can be done.
    pub(super) async fn serve(self: &Arc<Self>, signals: &mut Signals) -> Result<ExitCode> {
        let mut beside = JoinSet::new();
        let (server, held) = (Arc::clone(&self.server), Arc::clone(&self.held));
        beside.spawn(async move { signs::heartbeats(&server, &held).await });
        let it = Arc::clone(self);
        beside.spawn(async move { signs::stops(&it.server, &it.held, &it.clock).await });
        let mut jobs = JoinSet::new();
        let mut poller = Some(Poller::new(self));
        let mut poll: Option<Poll> = None;
        let mut phase = Phase::Serving;
        let end = loop {
            let room = self.concurrency.saturating_sub(jobs.len());
            match phase {
                Phase::Serving if room > 0 => {
                    if let Some(poller) = poller.take() {
                        poll = Some(Box::pin(poller.next(room, jobs.is_empty())));
                    }
                }
                Phase::Serving => {}
                // A call that is closed gets no job: the server sees it and gives the job to another.
                Phase::Refreshing | Phase::Draining | Phase::Stopping(_) if jobs.is_empty() => {
                    break phase;
                }
                Phase::Refreshing | Phase::Draining | Phase::Stopping(_) => poll = None,
            }
            tokio::select! {
                // Jobs that have come are ours before anything else is looked at.
                biased;
                (came_back, taken) = answer(&mut poll) => {
                    (poll, poller) = (None, Some(came_back));
                    for job in taken {
                        self.begin(job, &mut jobs);
                    }
                }
                Some(ended) = jobs.join_next() => match ended {
                    Ok(Effect::None) => {}
                    Ok(Effect::Refresh) if phase == Phase::Serving => phase = Phase::Refreshing,
                    Ok(Effect::Refresh) => {}
                    Ok(Effect::Broken(why)) => bail!(why),
                    Err(error) => tracing::error!(%error, "a job broke off inside the worker"),
                },
                signal = signals.next() => match self.interrupted(phase, signal) {
                    Some(next) => phase = next,
                    None => break phase,
                },
                why = self.handler.broken() => bail!(why),
            }
        };
        if end == Phase::Refreshing {
            self.keep_quiet(signals).await;
        }
        Ok(match end {
            Phase::Serving | Phase::Refreshing | Phase::Draining => ExitCode::SUCCESS,
            Phase::Stopping(signal) => ExitCode::from(128 + signal.number()),
        })
    }

    /// What a signal leads to; `None` is the end, whatever still runs.
    fn interrupted(&self, phase: Phase, signal: End) -> Option<Phase> {
        match phase {
            Phase::Serving | Phase::Refreshing => {
                let running = self.held.names().len();
                tracing::info!(
                    running,
                    "taking no more jobs; a second signal stops those that run"
                );
                Some(Phase::Draining)
            }
            Phase::Draining => {
                tracing::warn!("stopping the jobs that run");
                self.held.stop_all();
                Some(Phase::Stopping(signal))
            }
            Phase::Stopping(_) => None,
        }
    }

    async fn keep_quiet(&self, signals: &mut Signals) {
        tracing::info!("ending, so that a fresh worker does the next job");
        tokio::select! {
            () = wait(&self.clock, Duration::from_millis(QUIET_MS)) => {}
            _ = signals.next() => {}
        }
    }

    fn begin(self: &Arc<Self>, job: Job, jobs: &mut JoinSet<Effect>) {
        let Some(hold) = self.held.begin(&job.id) else {
            tracing::warn!(job.id = %job.id, "the server handed out a job twice");
            return;
        };
        let it = Arc::clone(self);
        jobs.spawn(async move { it.work(job, hold).await });
    }

    /// Does one job and hands in its result.
    async fn work(&self, job: Job, mut hold: Hold) -> Effect {
        tracing::debug!(job.id = %job.id, "job started");
        let outcome = self.handler.run(&job, &self.server, &mut hold.stop).await;
        let report = match outcome {
            Outcome::Completed(output) => Report::completed(&output),
            Outcome::Failed(error) => {
                tracing::info!(job.id = %job.id, "job failed");
                Report::failed(&error)
            }
            Outcome::Stopped => {
                tracing::info!(job.id = %job.id, "job stopped");
                return Effect::None;
            }
            Outcome::Broken(why) => return Effect::Broken(why),
        };
        let refresh = report.refresh;
        tokio::select! {
            () = hand_in(&self.server, &self.clock, &job.id, report) => {}
            // The job is over; the server takes no result any more.
            () = hold.stop.asked() => {}
        }
        tracing::debug!(job.id = %job.id, "job ended");
        if refresh {
            Effect::Refresh
        } else {
            Effect::None
        }
    }
}

/// Waits for an open call for work.
async fn answer(poll: &mut Option<Poll>) -> (Poller, Vec<Job>) {
    match poll {
        Some(poll) => poll.await,
        None => std::future::pending().await,
    }
}

/// Asks for work, and knows how the last call went.
struct Poller {
    service: Arc<Service>,
    pause: Pause,
    /// What was wrong when something was.
    trouble: Option<String>,
}

impl Poller {
    fn new(service: &Arc<Service>) -> Self {
        Self {
            service: Arc::clone(service),
            pause: Pause::new(),
            trouble: None,
        }
    }

    /// Asks once. Returns when it is time to ask again.
    async fn next(mut self, count: usize, idle: bool) -> (Self, Vec<Job>) {
        let service = Arc::clone(&self.service);
        let asked_at = service.clock.now();
        match service.server.take(count, idle).await {
            Ok(jobs) => {
                self.went_well();
                if jobs.is_empty() && self.answered_at_once(asked_at) {
                    wait(&service.clock, UNHELD_PAUSE).await;
                }
                (self, jobs)
            }
            Err(trouble) => {
                // The same again is said once.
                if self.trouble.as_ref() != Some(&trouble.text) {
                    tracing::warn!(why = %trouble.text, "the server gives no jobs; asking again");
                    self.trouble = Some(trouble.text.clone());
                }
                self.pause.wait(&service.clock, &trouble).await;
                (self, Vec::new())
            }
        }
    }

    fn went_well(&mut self) {
        self.pause.reset();
        if self.trouble.take().is_some() {
            tracing::info!("the server gives jobs again");
        }
    }

    fn answered_at_once(&self, asked_at: Timestamp) -> bool {
        self.service.clock.now().ms_since(asked_at) < HELD_MS
    }
}
