//! Waiting for a job: long polls, a line that shows where it stands, Ctrl-C, and patience with a
//! server that restarts.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::call::{Reply, Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::job::Job;
use super::show::bare;

/// How long one poll is held where somebody watches: progress is seen only between two polls.
pub(super) const WATCHED_POLL: Duration = Duration::from_secs(1);

/// How long one poll is held for a script, which only wants the end. Below the minute after which
/// many proxies cut a silent connection.
const UNWATCHED_POLL: Duration = Duration::from_secs(50);

/// Least time between two polls, for servers that answer at once instead of holding the request.
const PACE: Duration = Duration::from_millis(500);

/// How long a server may be away: a restart or an upgrade fits in, a dead machine is told of.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the seconds on the progress line move.
const TICK: Duration = Duration::from_millis(100);

/// Somebody waiting for one job.
pub(super) struct Wait<'a> {
    pub(super) server: &'a Server,
    pub(super) console: &'a mut Console,
    endpoint: &'a str,
    /// Unknown while the first answer to a submit is awaited.
    job: Option<String>,
    started: Instant,
    heard: Instant,
    state: String,
    detail: String,
    interrupts: Option<Signal>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(
        server: &'a Server,
        console: &'a mut Console,
        endpoint: &'a str,
        job: Option<&str>,
    ) -> Self {
        Self {
            server,
            console,
            endpoint,
            job: job.map(str::to_owned),
            started: Instant::now(),
            heard: Instant::now(),
            state: "waiting".to_owned(),
            detail: String::new(),
            // Where no handler can be installed Ctrl-C just ends the process, which is fine too.
            interrupts: signal(SignalKind::interrupt()).ok(),
        }
    }

    /// Polls until the job of this reply is finished, or `limit` has passed since the start.
    /// Hands back the last document.
    pub(super) async fn until_terminal(
        &mut self,
        mut reply: Reply,
        limit: Option<Duration>,
    ) -> Result<(Reply, Outcome), Failure> {
        let deadline = limit.map(|limit| self.started + limit);
        let mut asked = None;
        loop {
            let job = reply.job()?;
            if job.is_terminal() {
                let outcome = job.outcome();
                return Ok((reply, outcome));
            }
            self.saw(&job);
            if let Some(asked) = asked.replace(Instant::now()) {
                self.pace(asked).await?;
            }
            let path = format!("{}/status-sync/{}", self.endpoint, job.id);
            match self.poll(path, deadline).await? {
                Some(newer) => reply = newer,
                None => return Ok((reply, Outcome::StillRunning)),
            }
        }
    }

    /// One long poll that survives passing trouble; `None` when the deadline is over.
    async fn poll(
        &mut self,
        path: String,
        deadline: Option<Instant>,
    ) -> Result<Option<Reply>, Failure> {
        loop {
            let asked = Instant::now();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(asked));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let hold = self.hold().min(left.unwrap_or(Duration::MAX));
            let answer = self.held_get(path.clone(), hold);
            let answer = match left {
                Some(left) => match self.watch(tokio::time::timeout(left, answer)).await? {
                    Ok(answer) => answer,
                    Err(_) => return Ok(None),
                },
                None => self.watch(answer).await?,
            };
            if let Some(reply) = self.survive(answer).await? {
                return Ok(Some(reply));
            }
        }
    }

    /// A GET that the server may hold back until there is something to say.
    pub(super) fn held_get(
        &self,
        path: String,
        hold: Duration,
    ) -> impl Future<Output = Result<Reply, Failure>> + use<'a> {
        let server = self.server;
        async move {
            let wait_ms = hold.as_millis().max(1).to_string();
            let query = [("wait", wait_ms.as_str())];
            let request = Request {
                query: &query,
                wait: hold,
                ..Request::get(path)
            };
            server.call(request).await
        }
    }

    /// Lets trouble pass: `None` after a pause when asking again is worth it.
    pub(super) async fn survive(
        &mut self,
        answer: Result<Reply, Failure>,
    ) -> Result<Option<Reply>, Failure> {
        let failure = match answer {
            Ok(reply) => {
                self.heard = Instant::now();
                return Ok(Some(reply));
            }
            Err(failure) if failure.is_passing() && self.heard.elapsed() < PATIENCE => failure,
            Err(failure) => return Err(failure),
        };
        let (reason, pause) = match failure {
            Failure::Refused {
                text,
                retry_after_s,
                ..
            } => (
                text,
                Duration::from_secs(retry_after_s.unwrap_or(1)).clamp(PACE, PATIENCE),
            ),
            Failure::Unreachable { reason, .. } => (reason, Duration::from_secs(1)),
            other @ (Failure::Usage(_)
            | Failure::NotUnderstood { .. }
            | Failure::Interrupted(_)
            | Failure::Output(_)) => return Err(other),
        };
        self.detail = format!("no answer ({reason}), asking again");
        self.watch(tokio::time::sleep(pause)).await?;
        Ok(None)
    }

    /// How long the server is asked to hold a poll.
    pub(super) fn hold(&self) -> Duration {
        if self.console.err_is_terminal {
            WATCHED_POLL
        } else {
            UNWATCHED_POLL
        }
    }

    /// Pauses after an answer that came at once and said nothing.
    pub(super) async fn pace(&mut self, asked: Instant) -> Result<(), Failure> {
        if asked.elapsed() < PACE {
            self.watch(tokio::time::sleep(PACE)).await?;
        }
        Ok(())
    }

    /// Takes over what a document says, for the progress line and for Ctrl-C.
    fn saw(&mut self, job: &Job<'_>) {
        self.job = Some(job.id.clone().into_owned());
        let detail = job.output.map(bare).unwrap_or_default();
        self.state_is(&job.status, &detail);
    }

    /// What the progress line shows from now on.
    pub(super) fn state_is(&mut self, state: &str, detail: &str) {
        state.clone_into(&mut self.state);
        detail.clone_into(&mut self.detail);
    }

    /// Waits for anything, keeping the progress line alive and an ear on Ctrl-C.
    pub(super) async fn watch<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        // Not at once: what is answered quickly needs no line.
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        loop {
            tokio::select! {
                output = &mut future => return Ok(output),
                () = interrupted(self.interrupts.as_mut()) => {
                    return Err(Failure::Interrupted(self.come_back("interrupted")));
                }
                _ = ticks.tick(), if self.console.err_is_terminal => {
                    let seconds = self.started.elapsed().as_secs_f64();
                    let line = format!("{} {seconds:.1}s  {}", self.state, self.detail);
                    self.console.progress(line.trim_end());
                }
            }
        }
    }

    /// How to find the job again after the waiting stopped for this reason.
    pub(super) fn come_back(&self, why: &str) -> String {
        let (endpoint, url) = (self.endpoint, self.server.url_option());
        match &self.job {
            Some(job) => format!(
                "{why}; job {job} keeps running. Come back to it with\n  \
                 lazyfox status {endpoint} {job} --wait{url}"
            ),
            None => format!(
                "{why} before the server had answered; if the job was accepted, it runs, \
                 and its id is in\n  lazyfox requests {endpoint}{url}"
            ),
        }
    }
}

/// Returns at Ctrl-C.
pub(super) async fn interrupted(interrupts: Option<&mut Signal>) {
    match interrupts {
        Some(interrupts) => {
            interrupts.recv().await;
        }
        None => std::future::pending().await,
    }
}
