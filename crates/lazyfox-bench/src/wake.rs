//! How soon a parked worker gets a new job.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, timeout};

use crate::http::{Connection, read_id};
use crate::job::{ENDPOINT, done, submit_body, take};
use crate::report::{Times, table};
use crate::server::{Server, Site};

/// Submitters share the rate, so that one slow answer does not delay the next submit.
const SUBMITTERS: u32 = 4;

/// Until all polls are parked.
const SETTLE: Duration = Duration::from_millis(500);

/// How long the last jobs may take to arrive.
const GRACE: Duration = Duration::from_secs(30);

const INPUT_BYTES: usize = 200;

/// Arguments of `wake`.
#[derive(Args)]
pub(crate) struct WakeArgs {
    /// Jobs submitted per second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,

    /// How long to submit, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// Workers, each on a connection of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,

    /// Store to measure
    #[arg(long, default_value = "sqlite")]
    store: String,
}

struct Submitted {
    id: String,
    sent: Instant,
    answered: Instant,
}

pub(crate) async fn measure(site: &Site, args: &WakeArgs) -> Result<()> {
    let server = site
        .start_fresh(&args.store, &[ENDPOINT.to_owned()])
        .await?;
    let (report, mut reports) = mpsc::unbounded_channel();
    // Dropped at the end, which stops them in their polls.
    let mut workers = JoinSet::new();
    for number in 0..args.workers {
        let http = Connection::open(server.address).await?;
        workers.spawn(work(http, format!("w{number}"), report.clone()));
    }
    drop(report);
    sleep(SETTLE).await;
    let limit = Duration::from_secs(args.seconds.into()) + GRACE;
    let submitted = tokio::select! {
        submitted = timeout(limit, submit(&server, args)) => {
            submitted.context("submitting takes too long")??
        }
        Some(ended) = workers.join_next() => {
            ended.context("a worker panicked")??;
            anyhow::bail!("a worker stopped");
        }
    };
    let mut taken = HashMap::with_capacity(submitted.len());
    let all = async {
        while taken.len() < submitted.len() {
            let (id, at) = reports.recv().await.context("all workers have stopped")?;
            ensure!(taken.insert(id, at).is_none(), "a job was handed out twice");
        }
        Ok(())
    };
    timeout(GRACE, all)
        .await
        .context("not all jobs were handed out")??;
    server.kill().await?;
    print(args, &submitted, &taken)
}

fn print(args: &WakeArgs, submitted: &[Submitted], taken: &HashMap<String, Instant>) -> Result<()> {
    let mut since_sent = Times::with_capacity(submitted.len());
    let mut since_answered = Times::with_capacity(submitted.len());
    let mut worker_first = 0_usize;
    for job in submitted {
        let at = taken
            .get(&job.id)
            .with_context(|| format!("job {} was not taken", job.id))?;
        since_sent.add(*at - job.sent);
        since_answered.add(at.saturating_duration_since(job.answered));
        worker_first += usize::from(*at < job.answered);
    }
    let share = 100.0 * worker_first as f64 / submitted.len() as f64;
    let rows = [
        vec![
            "submit sent → worker has the job".to_owned(),
            since_sent.summary().to_string(),
        ],
        vec![
            format!("submit answered → worker has the job (0 where it was first: {share:.0} %)"),
            since_answered.summary().to_string(),
        ],
    ];
    let title = format!(
        "{} jobs at {}/s, {} parked workers, {}",
        submitted.len(),
        args.rate,
        args.workers,
        args.store
    );
    println!("{}", table(&[&title, "p50 / p99 µs"], &rows));
    Ok(())
}

/// Takes and reports for ever, telling when which job came.
async fn work(
    mut http: Connection,
    worker: String,
    report: mpsc::UnboundedSender<(String, Instant)>,
) -> Result<()> {
    loop {
        let mut id = String::new();
        take(&mut http, &worker, &mut id).await?;
        let at = Instant::now();
        done(&mut http, &worker, &id).await?;
        if report.send((id, at)).is_err() {
            return Ok(());
        }
    }
}

/// Submits at the rate, in step with the clock and not with the answers.
async fn submit(server: &Server, args: &WakeArgs) -> Result<Vec<Submitted>> {
    let jobs = args.rate * args.seconds;
    let gap = Duration::from_secs(1) / args.rate;
    let body: Arc<[u8]> = submit_body(INPUT_BYTES).into();
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
