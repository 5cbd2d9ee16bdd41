//! Jobs at a fixed rate and workers that wait for them in long polls.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, timeout};

use crate::http::{Connection, read_id};
use crate::job::{ENDPOINT, done, take};
use crate::report::Times;
use crate::server::Server;

/// Submitters share the rate, so that one slow answer does not delay the next submit.
const SUBMITTERS: u32 = 4;

/// Until all polls are parked.
const SETTLE: Duration = Duration::from_millis(500);

/// How long the last jobs may take to arrive.
const GRACE: Duration = Duration::from_secs(30);

/// How many jobs, and for how many workers.
pub(crate) struct Pace {
    /// Jobs per second.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    pub(crate) workers: u16,
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rate,
            seconds,
            workers,
        } = self;
        write!(
            f,
            "{} jobs at {rate}/s, {workers} parked workers",
            rate * seconds
        )
    }
}

/// A job as its client saw it.
pub(crate) struct Submitted {
    pub(crate) id: String,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

/// A job as its worker saw it.
pub(crate) struct Handled {
    /// When the worker had it, and went on to report it at once.
    pub(crate) taken: Instant,
    /// When that report was answered.
    pub(crate) reported: Instant,
}

/// All jobs from both sides.
pub(crate) struct Played {
    pub(crate) submitted: Vec<Submitted>,
    pub(crate) handled: HashMap<String, Handled>,
}

/// Submits jobs with this body at the pace, and has all of them taken and reported.
pub(crate) async fn play(server: &Server, pace: &Pace, body: Arc<[u8]>) -> Result<Played> {
    play_between(server, server, pace, body).await
}

/// The same with workers that wait at another server.
pub(crate) async fn play_between(
    clients_at: &Server,
    workers_at: &Server,
    pace: &Pace,
    body: Arc<[u8]>,
) -> Result<Played> {
    let (report, mut reports) = mpsc::unbounded_channel();
    // Dropped at the end, which stops them in their polls.
    let mut workers = JoinSet::new();
    for number in 0..pace.workers {
        let http = Connection::open(workers_at.address).await?;
        workers.spawn(work(http, format!("w{number}"), report.clone()));
    }
    drop(report);
    sleep(SETTLE).await;
    let limit = Duration::from_secs(pace.seconds.into()) + GRACE;
    let submitted = tokio::select! {
        submitted = timeout(limit, submit(clients_at, pace, body)) => {
            submitted.context("submitting takes too long")??
        }
        Some(ended) = workers.join_next() => {
            ended.context("a worker panicked")??;
            anyhow::bail!("a worker stopped");
        }
    };
    let mut handled = HashMap::with_capacity(submitted.len());
    let all = async {
        while handled.len() < submitted.len() {
            let (id, job) = reports.recv().await.context("all workers have stopped")?;
            ensure!(
                handled.insert(id, job).is_none(),
                "a job was handed out twice"
            );
        }
        Ok(())
    };
    timeout(GRACE, all)
        .await
        .context("not all jobs were handed out")??;
    Ok(Played { submitted, handled })
}

/// Takes and reports for ever, telling when.
async fn work(
    mut http: Connection,
    worker: String,
    report: mpsc::UnboundedSender<(String, Handled)>,
) -> Result<()> {
    loop {
        let mut id = String::new();
        take(&mut http, &worker, &mut id).await?;
        let taken = Instant::now();
        done(&mut http, &worker, &id).await?;
        let reported = Instant::now();
        if report.send((id, Handled { taken, reported })).is_err() {
            return Ok(());
        }
    }
}

/// Submits at the rate, in step with the clock and not with the answers.
async fn submit(server: &Server, pace: &Pace, body: Arc<[u8]>) -> Result<Vec<Submitted>> {
    let jobs = pace.rate * pace.seconds;
    let gap = Duration::from_secs(1) / pace.rate;
    let start = Instant::now() + gap;
    let mut tasks = JoinSet::new();
    for number in 0..SUBMITTERS {
        let mut http = Connection::open(server.address).await?;
        let body = Arc::clone(&body);
        tasks.spawn(async move {
            let mut ticks = interval_at(start + gap * number, gap * SUBMITTERS);
            let mut submitted = Vec::new();
            for _ in (number..jobs).step_by(SUBMITTERS as usize) {
                ticks.tick().await;
                let mut id = String::new();
                let sent = Instant::now();
                http.post(format_args!("/v2/{ENDPOINT}/run"), &body);
                let answer = http.expect_ok().await?;
                let answered = Instant::now();
                read_id(answer, &mut id)?;
                submitted.push(Submitted { id, sent, answered });
            }
            anyhow::Ok(submitted)
        });
    }
    let mut submitted = Vec::new();
    while let Some(result) = tasks.join_next().await {
        submitted.append(&mut result.context("a submitter panicked")??);
    }
    Ok(submitted)
}

impl Played {
    /// Adds the times from each submit to the answer of its worker's poll.
    pub(crate) fn add_wakes(&self, delays: &mut Delays) -> Result<()> {
        for job in &self.submitted {
            let handled = self.handled.get(&job.id);
            let handled = handled.with_context(|| format!("job {} was not taken", job.id))?;
            delays.add(job.sent, job.answered, handled.taken);
        }
        Ok(())
    }
}

/// Times from a call to what follows from it on another connection.
#[derive(Default)]
pub(crate) struct Delays {
    since_sent: Times,
    since_answered: Times,
    before_answer: usize,
}

impl Delays {
    pub(crate) fn add(&mut self, sent: Instant, answered: Instant, followed: Instant) {
        self.since_sent.add(followed - sent);
        self.since_answered
            .add(followed.saturating_duration_since(answered));
        self.before_answer += usize::from(followed < answered);
    }

    /// Two rows of a table: since the call was sent, and since it was answered.
    pub(crate) fn rows(self, call: &str, followed: &str) -> [Vec<String>; 2] {
        let share = 100.0 * self.before_answer as f64 / self.since_sent.count() as f64;
        [
            vec![
                format!("{call} sent → {followed}"),
                self.since_sent.summary().to_string(),
            ],
            vec![
                format!("{call} answered → {followed} (0 where it was first: {share:.0} %)"),
                self.since_answered.summary().to_string(),
            ],
        ]
    }
}
