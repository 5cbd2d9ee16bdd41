//! Our own figures: callers and workers over HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::QueuesArgs;
use crate::backlog::fill;
use crate::http::Connection;
use crate::job::{ENDPOINT, done, submit_body, take};
use crate::meter::{Meter, Postmaster};
use crate::report::Times;
use crate::server::Server;

/// As the others do.
const WARM_UP: Duration = Duration::from_secs(3);
const INPUT_BYTES: usize = 200;

/// Slowest rate worth waiting for, in jobs per second, and what is added to that.
const RATE_MIN: u64 = 100;
const GRACE: Duration = Duration::from_secs(60);

/// Jobs whose callers wait for them.
pub(super) struct Callers {
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Not a number where it was not measured.
    pub(super) server_cpu_us: f64,
    pub(super) postgres_cpu_us: f64,
    pub(super) own_cpu_us: f64,
}

/// Jobs that are all added first.
pub(super) struct Bulk {
    pub(super) added_per_second: f64,
    pub(super) drained_per_second: f64,
}

pub(super) async fn callers(
    servers: &[Server],
    postmaster: Option<Postmaster>,
    args: &QueuesArgs,
) -> Result<Callers> {
    let server = &servers[0];
    let (finished, _reports) = mpsc::unbounded_channel();
    let workers = start_workers(server, args.workers, &finished).await?;
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(args.seconds);
    let body: Arc<[u8]> = submit_body(INPUT_BYTES).into();
    let mut tasks = JoinSet::new();
    for _ in 0..args.callers {
        let http = Connection::open(server.address).await?;
        tasks.spawn(call(http, Arc::clone(&body), begin, end));
    }
    let measured = async {
        sleep_until(begin).await;
        let meter = Meter::start_over(servers, postmaster)?;
        sleep_until(end).await;
        let spent = meter.read()?;
        let mut times = Times::default();
        while let Some(result) = tasks.join_next().await {
            times.append(&mut result.context("a caller panicked")??);
        }
        anyhow::Ok((spent, times))
    };
    let limit = WARM_UP + Duration::from_secs(args.seconds) + GRACE;
    let (spent, times) = undisturbed(workers, timeout(limit, measured))
        .await?
        .context("the server does not answer any more")??;
    let jobs = times.count() as f64;
    let summary = times.summary();
    Ok(Callers {
        per_second: jobs / args.seconds as f64,
        p50_ms: summary.p50_us / 1000.0,
        p99_ms: summary.p99_us / 1000.0,
        server_cpu_us: spent.server_cpu_s * 1e6 / jobs,
        postgres_cpu_us: spent.postgres_cpu_s * 1e6 / jobs,
        own_cpu_us: spent.own_cpu_s * 1e6 / jobs,
    })
}

/// One caller; times are those of jobs that end within the measured time.
async fn call(
    mut http: Connection,
    body: Arc<[u8]>,
    begin: Instant,
    end: Instant,
) -> Result<Times> {
    let mut times = Times::default();
    let mut now = Instant::now();
    while now < end {
        let started = now;
        http.post(format_args!("/v2/{ENDPOINT}/runsync"), &body);
        let answer = http.expect_ok().await?;
        ensure!(
            is_completed(answer),
            "a job did not complete: {}",
            String::from_utf8_lossy(answer)
        );
        now = Instant::now();
        if (begin..end).contains(&now) {
            times.add(now - started);
        }
    }
    Ok(times)
}

fn is_completed(answer: &[u8]) -> bool {
    const STATUS: &[u8] = br#""status":"COMPLETED""#;
    answer.windows(STATUS.len()).any(|window| window == STATUS)
}

pub(super) async fn bulk(server: &Server, args: &QueuesArgs) -> Result<Bulk> {
    let limit = Duration::from_secs(args.jobs / RATE_MIN) + GRACE;
    let began = Instant::now();
    let body: Arc<[u8]> = submit_body(INPUT_BYTES).into();
    timeout(limit, fill(server, &body, args.jobs, args.callers.into()))
        .await
        .context("adding takes too long")??;
    let added = began.elapsed();

    let began = Instant::now();
    let (finished, mut reports) = mpsc::unbounded_channel();
    let workers = start_workers(server, args.workers, &finished).await?;
    let all = async {
        for _ in 0..args.jobs {
            reports.recv().await.context("all workers have stopped")?;
        }
        anyhow::Ok(began.elapsed())
    };
    let drained = undisturbed(workers, timeout(limit, all))
        .await?
        .context("draining takes too long")??;
    let jobs = args.jobs as f64;
    Ok(Bulk {
        added_per_second: jobs / added.as_secs_f64(),
        drained_per_second: jobs / drained.as_secs_f64(),
    })
}

/// Workers that take and report for ever, and tell of each job that is done.
async fn start_workers(
    server: &Server,
    count: u16,
    finished: &mpsc::UnboundedSender<()>,
) -> Result<JoinSet<Result<()>>> {
    let mut workers = JoinSet::new();
    for number in 0..count {
        let mut http = Connection::open(server.address).await?;
        let finished = finished.clone();
        workers.spawn(async move {
            let worker = format!("w{number}");
            let mut id = String::new();
            loop {
                take(&mut http, &worker, &mut id).await?;
                done(&mut http, &worker, &id).await?;
                // Not everybody counts them.
                let _ = finished.send(());
            }
        });
    }
    Ok(workers)
}

/// What comes of this, unless a worker stops first. They are stopped with it.
async fn undisturbed<T>(
    mut workers: JoinSet<Result<()>>,
    measured: impl Future<Output = T>,
) -> Result<T> {
    tokio::select! {
        done = measured => Ok(done),
        Some(ended) = workers.join_next() => {
            ended.context("a worker panicked")??;
            anyhow::bail!("a worker stopped")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_completed;

    #[test]
    fn a_job_that_goes_on_has_not_completed() {
        assert!(is_completed(
            br#"{"id":"a","status":"COMPLETED","output":1}"#
        ));
        assert!(!is_completed(br#"{"id":"a","status":"IN_PROGRESS"}"#));
    }
}
