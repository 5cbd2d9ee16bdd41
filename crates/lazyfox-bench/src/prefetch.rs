//! How many jobs a second go through one unmodified worker of the SDK, which asks once a second at
//! most.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::{Connection, read_id};
use crate::job::{ENDPOINT, submit_body};
use crate::meter::{Meter, Spent};
use crate::report::{p50_p95, table, thousands};
use crate::sdk::{Kind, now_s, number};
use crate::server::{Server, Site};

const INPUT_BYTES: usize = 200;
const CONNECTIONS: usize = 16;

/// How long a worker may take to its first job.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The first seconds of a worker are left out: how many jobs it is given at once is found out in
/// them.
const RAMP: Duration = Duration::from_secs(6);

/// Hand-outs come every second or two: a shorter time would count one too many or too few as a large
/// error.
const MEASURED_MIN_S: f64 = 4.0;

/// How often to look how far it is.
const LOOK: Duration = Duration::from_millis(50);

/// Slowest rate worth waiting for, in calls per second.
const CALLS_MIN: u64 = 500;
const GRACE: Duration = Duration::from_secs(30);

/// What the SDK writes after each hand-out, at the level that it is told to use.
const HANDED_OUT: &str = "Jobs in queue: ";

/// The budget, with one slot.
const JOBS_MIN: f64 = 500.0;

/// Arguments of `prefetch`.
#[derive(Args)]
pub(crate) struct PrefetchArgs {
    /// Interpreter of an environment with the SDK; several times if need be
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: Vec<PathBuf>,

    /// Jobs that the worker runs at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    slots: u16,

    /// Settings of the endpoint to measure
    #[arg(long, value_delimiter = ',', default_value = "auto,off", value_enum)]
    prefetch: Vec<Ahead>,

    /// Jobs that wait when the worker starts
    #[arg(long, default_value_t = 30_000,
        value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    jobs: u64,

    /// Longest measured time, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,

    /// Store to measure
    #[arg(long, default_value = "sqlite")]
    store: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ahead {
    /// As many short jobs as fit into about a second
    Auto,
    /// Never more than the worker asks for
    Off,
}

/// What a worker did in the measured time.
struct Done {
    /// Execution times of its jobs, in ms.
    executions: Vec<f64>,
    seconds: f64,
    hand_outs: usize,
    spent: Spent,
}

pub(crate) async fn measure(site: &Site, args: &PrefetchArgs) -> Result<()> {
    let mut rows = Vec::new();
    for program in &args.python {
        let kind = Kind::python(program).await?;
        for ahead in &args.prefetch {
            eprintln!("{kind}, prefetch = {}", ahead.as_str());
            let done = work(site, args, &kind, *ahead)
                .await
                .with_context(|| format!("{kind}, prefetch = {}", ahead.as_str()))?;
            rows.push(done.row(&kind, *ahead));
        }
    }
    let title = format!(
        "one worker, slots: {}, {} jobs, {}",
        args.slots,
        thousands(args.jobs as f64),
        args.store
    );
    let header = [
        &title,
        "prefetch",
        "jobs/s",
        "jobs/hand-out",
        "executionTime p50 / p95 ms",
        "measured s",
        "server CPU µs/job",
    ];
    println!("{}", table(&header, &rows));
    if args.slots == 1 {
        println!("The budget with SDK 1.12.0 and `auto`: at least {JOBS_MIN} jobs/s.");
    }
    Ok(())
}

impl Ahead {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

impl Done {
    fn row(&self, kind: &Kind, ahead: Ahead) -> Vec<String> {
        let jobs = self.executions.len() as f64;
        let per_second = jobs / self.seconds;
        let rate = if per_second < 100.0 {
            format!("{per_second:.1}")
        } else {
            thousands(per_second)
        };
        vec![
            kind.to_string(),
            ahead.as_str().to_owned(),
            rate,
            format!("{:.1}", jobs / self.hand_outs as f64),
            p50_p95(self.executions.iter().copied()),
            format!("{:.0}", self.seconds),
            format!("{:.0}", self.spent.server_cpu_s * 1e6 / jobs),
        ]
    }
}

async fn work(site: &Site, args: &PrefetchArgs, kind: &Kind, ahead: Ahead) -> Result<Done> {
    let mut endpoint = kind.table(site, ENDPOINT, args.slots)?;
    let ahead = ahead.as_str();
    endpoint.push_str(&format!("workers_max = 1\nprefetch = \"{ahead}\"\n"));
    let server = site.start_with(&args.store, &endpoint).await?;
    let calls = Duration::from_secs(args.jobs / CALLS_MIN) + GRACE;
    let ids = timeout(calls, submit(&server, args.jobs)).await;
    let ids = ids.context("submitting takes too long")??;

    let mut http = Connection::open(server.address).await?;
    let first = timeout(START_LIMIT, until(&mut http, |counts| counts.ended > 0)).await;
    first.context("the worker does no job")??;
    sleep(RAMP).await;
    let (from_s, from_byte) = (now_s(), log_bytes(site)?);
    let meter = Meter::start(&server)?;
    let limit = Duration::from_secs(args.seconds);
    // It may as well be over before.
    let _ = timeout(limit, until(&mut http, |counts| counts.left == 0)).await;
    let (to_s, to_byte) = (now_s(), log_bytes(site)?);
    let spent = meter.read()?;

    let jobs = timeout(calls, read(&server, ids, from_s..to_s)).await;
    let jobs = jobs.context("reading the jobs takes too long")??;
    let hand_outs = hand_outs(site, from_byte, to_byte)?;
    server.stop().await?;
    Done::of(&jobs, from_s, hand_outs, spent)
}

impl Done {
    fn of(jobs: &[Ended], from_s: f64, hand_outs: usize, spent: Spent) -> Result<Self> {
        // The end of the last one, or of the time: what came after the jobs is not measured.
        let last_s = jobs.iter().map(|job| job.at_s).fold(from_s, f64::max);
        let seconds = last_s - from_s;
        ensure!(
            seconds >= MEASURED_MIN_S,
            "the jobs were done {seconds:.1} s after the first {} s, too soon to tell: take more \
             --jobs",
            RAMP.as_secs()
        );
        ensure!(
            hand_outs > 0,
            "the worker wrote no line with {HANDED_OUT:?}"
        );
        Ok(Self {
            executions: jobs.iter().map(|job| job.execution_ms).collect(),
            seconds,
            hand_outs,
            spent,
        })
    }
}

struct Counts {
    ended: u64,
    left: u64,
}

/// Looks again and again until the endpoint's counts are so.
async fn until(http: &mut Connection, is_so: impl Fn(&Counts) -> bool) -> Result<()> {
    loop {
        let health = http.get_json(&format!("/v2/{ENDPOINT}/health")).await?;
        let count = |name: &str| health["jobs"][name].as_u64();
        let (done, queued, running) = count("completed")
            .zip(count("inQueue"))
            .zip(count("inProgress"))
            .map(|((done, queued), running)| (done, queued, running))
            .with_context(|| format!("a count is missing: {health}"))?;
        let failed = count("failed").unwrap_or_default();
        ensure!(failed == 0, "jobs fail: {health}");
        let counts = Counts {
            ended: done,
            left: queued + running,
        };
        if is_so(&counts) {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Submits so many jobs over several connections, and gives their ids.
async fn submit(server: &Server, jobs: u64) -> Result<Vec<String>> {
    let mut tasks = JoinSet::new();
    for lane in 0..CONNECTIONS as u64 {
        let mut http = Connection::open(server.address).await?;
        let body = submit_body(INPUT_BYTES);
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for _ in (lane..jobs).step_by(CONNECTIONS) {
                http.post(format_args!("/v2/{ENDPOINT}/run"), &body);
                let mut id = String::new();
                read_id(http.expect_ok().await?, &mut id)?;
                ids.push(id);
            }
            anyhow::Ok(ids)
        });
    }
    let mut ids = Vec::new();
    while let Some(result) = tasks.join_next().await {
        ids.append(&mut result.context("a submitter panicked")??);
    }
    Ok(ids)
}

/// A job that has ended.
struct Ended {
    at_s: f64,
    execution_ms: f64,
}

impl Ended {
    /// `None` for a job that has not.
    fn read(job: &Value) -> Result<Option<Self>> {
        match job["status"].as_str() {
            Some("COMPLETED") => Ok(Some(Self {
                at_s: number(job, "completedAt")? / 1000.0,
                execution_ms: number(job, "executionTime")?,
            })),
            Some("IN_QUEUE" | "IN_PROGRESS") => Ok(None),
            Some(_) | None => bail!("a job ended otherwise: {job}"),
        }
    }
}

/// Of these jobs, those that ended in this time.
async fn read(
    server: &Server,
    mut ids: Vec<String>,
    time_s: std::ops::Range<f64>,
) -> Result<Vec<Ended>> {
    let mut tasks = JoinSet::new();
    let share = ids.len().div_ceil(CONNECTIONS);
    while !ids.is_empty() {
        let own = ids.split_off(ids.len().saturating_sub(share));
        let mut http = Connection::open(server.address).await?;
        tasks.spawn(async move {
            let mut ended = Vec::new();
            for id in own {
                let path = format!("/v2/{ENDPOINT}/status/{id}");
                ended.extend(Ended::read(&http.get_json(&path).await?)?);
            }
            anyhow::Ok(ended)
        });
    }
    let mut ended = Vec::new();
    while let Some(result) = tasks.join_next().await {
        ended.append(&mut result.context("a reader panicked")??);
    }
    ended.retain(|job| time_s.contains(&job.at_s));
    Ok(ended)
}

fn log_bytes(site: &Site) -> Result<usize> {
    let metadata = fs::metadata(site.log()).context("cannot look at the server's log")?;
    usize::try_from(metadata.len()).context("the log is too large")
}

/// How many hand-outs the worker spoke of in this part of the log.
fn hand_outs(site: &Site, from: usize, to: usize) -> Result<usize> {
    let log = fs::read(site.log()).context("cannot read the server's log")?;
    let part = log.get(from..to).context("the log has become shorter")?;
    Ok(String::from_utf8_lossy(part).matches(HANDED_OUT).count())
}
