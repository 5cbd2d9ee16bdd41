//! A long queue: what it costs to fill, to hold, to find again after a crash and to work on.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::http::Connection;
use crate::job::{ENDPOINT, done, submit_body, take};
use crate::lanes::Left;
use crate::report::{Summary, Times, megabytes, table, thousands};
use crate::server::{Memory, Server, Site};

const CONNECTIONS: usize = 64;

/// Takes that are timed, and those before them that are not.
const TAKES: u64 = 2000;
const TAKES_WARM_UP: u64 = 200;

/// Slowest submit rate worth waiting for, in jobs per second.
const SUBMIT_RATE_MIN: u64 = 500;
const GRACE: Duration = Duration::from_secs(60);

/// Arguments of `backlog`.
#[derive(Args)]
pub(crate) struct BacklogArgs {
    /// Jobs to queue
    #[arg(long, default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(TAKES + TAKES_WARM_UP + 1..=10_000_000))]
    jobs: u64,

    /// Size of a job's input
    #[arg(long, default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    bytes: u32,

    /// Store to measure; one that survives the kill
    #[arg(long, default_value = "sqlite")]
    store: String,
}

pub(crate) async fn measure(site: &Site, args: &BacklogArgs) -> Result<()> {
    let body: Arc<[u8]> = submit_body(args.bytes as usize).into();
    let server = site
        .start_fresh(&args.store, &[ENDPOINT.to_owned()])
        .await?;
    eprintln!("timing takes from a queue of one");
    let empty = timeout(GRACE, takes(&server, &body, Refill::Each)).await??;

    let before = server.memory()?;
    eprintln!("submitting {} jobs", thousands(args.jobs as f64));
    let started = Instant::now();
    let limit = Duration::from_secs(args.jobs / SUBMIT_RATE_MIN) + GRACE;
    timeout(limit, fill(&server, &body, args.jobs, CONNECTIONS))
        .await
        .context("submitting takes too long")??;
    let rate = args.jobs as f64 / started.elapsed().as_secs_f64();
    let after = server.memory()?;
    let disk = site.data_bytes()?;
    server.kill().await?;

    eprintln!("starting again after SIGKILL");
    let server = site.start(&args.store).await?;
    let (first_answer, first_take) = timeout(GRACE, first_signs(&server)).await??;
    let restarted = server.memory()?;
    let waiting = queued(&server).await?;
    let expected = args.jobs - 1;
    ensure!(
        waiting == expected,
        "{expected} jobs should wait after the restart, not {waiting}"
    );
    eprintln!("timing takes from the backlog");
    let full = timeout(GRACE, takes(&server, &body, Refill::Never)).await??;
    server.kill().await?;

    print(
        args,
        rate,
        [before, after, restarted],
        disk,
        [first_answer, first_take],
        [empty, full],
    );
    Ok(())
}

fn print(
    args: &BacklogArgs,
    rate: f64,
    [before, after, restarted]: [Memory; 3],
    disk: u64,
    [first_answer, first_take]: [Duration; 2],
    [empty, full]: [Summary; 2],
) {
    let grown = after.anonymous.saturating_sub(before.anonymous) as f64 / args.jobs as f64;
    let row = |name: &str, figure: String| vec![name.to_owned(), figure];
    let rows = [
        row("submitted, jobs/s", thousands(rate)),
        row("resident before, MB (anonymous)", before.to_string()),
        row(
            "resident with the backlog, MB (anonymous)",
            after.to_string(),
        ),
        row("anonymous growth per job, B", format!("{grown:.0}")),
        row("on disk, MB", megabytes(disk)),
        row(
            "restart after SIGKILL to first answer, s",
            format!("{:.2}", first_answer.as_secs_f64()),
        ),
        row(
            "restart after SIGKILL to first take, s",
            format!("{:.2}", first_take.as_secs_f64()),
        ),
        row(
            "resident after the restart, MB (anonymous)",
            restarted.to_string(),
        ),
        row("jobs lost", "0".to_owned()),
        row("take from a queue of one, p50 / p99 µs", empty.to_string()),
        row("take from the backlog, p50 / p99 µs", full.to_string()),
    ];
    let title = format!(
        "{} jobs of {} B, {}",
        thousands(args.jobs as f64),
        args.bytes,
        args.store
    );
    println!("{}", table(&[&title, ""], &rows));
}

/// Submits so many jobs with this body, over so many connections.
pub(crate) async fn fill(
    server: &Server,
    body: &Arc<[u8]>,
    jobs: u64,
    connections: usize,
) -> Result<()> {
    let left = Arc::new(Left::Jobs(AtomicU64::new(jobs)));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (left, body) = (Arc::clone(&left), Arc::clone(body));
        let mut http = Connection::open(server.address).await?;
        tasks.spawn(async move {
            while left.claim() {
                http.post(format_args!("/v2/{ENDPOINT}/run"), &body);
                http.expect_ok().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.context("a submitter panicked")??;
    }
    Ok(())
}

/// Times from the start of the process to its first answer and to the first job it hands out.
async fn first_signs(server: &Server) -> Result<(Duration, Duration)> {
    let mut http = Connection::open(server.address).await?;
    http.get(format_args!("/v2/{ENDPOINT}/health"));
    http.expect_ok().await?;
    let first_answer = server.started.elapsed();
    let mut id = String::new();
    take(&mut http, "first", &mut id).await?;
    let first_take = server.started.elapsed();
    done(&mut http, "first", &id).await?;
    Ok((first_answer, first_take))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Refill {
    /// One job is submitted before each take.
    Each,
    Never,
}

/// Times takes one at a time; each job is reported before the next is taken.
async fn takes(server: &Server, body: &[u8], refill: Refill) -> Result<Summary> {
    let mut http = Connection::open(server.address).await?;
    let mut times = Times::with_capacity(TAKES as usize);
    let mut id = String::new();
    for number in 0..TAKES + TAKES_WARM_UP {
        if refill == Refill::Each {
            http.post(format_args!("/v2/{ENDPOINT}/run"), body);
            http.expect_ok().await?;
        }
        let started = Instant::now();
        take(&mut http, "single", &mut id).await?;
        if number >= TAKES_WARM_UP {
            times.add(started.elapsed());
        }
        done(&mut http, "single", &id).await?;
    }
    Ok(times.summary())
}

/// Jobs that wait, as the server counts them.
async fn queued(server: &Server) -> Result<u64> {
    let mut http = Connection::open(server.address).await?;
    http.get(format_args!("/v2/{ENDPOINT}/health"));
    let health = http.expect_ok().await?;
    let text = std::str::from_utf8(health).context("the health is not text")?;
    let digits = text
        .split_once("\"inQueue\":")
        .context("no inQueue in the health")?
        .1;
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().context("inQueue is no number")
}
