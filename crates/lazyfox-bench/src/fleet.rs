//! What many idle workers cost the server. Each is three connections, as a worker of the SDK has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, sleep_until};

use crate::http::Connection;
use crate::job::ENDPOINT;
use crate::meter::Meter;
use crate::report::table;
use crate::server::{Server, Site};

/// Connections of a worker: for its polls, for what it shall stop, and for its heartbeats.
const CONNECTIONS: u64 = 3;

/// Open files that server and tool have beside those.
const OTHER_FILES: u64 = 100;

/// How often the SDK sends a heartbeat unless it is told otherwise.
const PING: Duration = Duration::from_secs(10);

/// The pause of the SDK after an answer that has nothing to stop.
const STOP_PAUSE: Duration = Duration::from_secs(1);

/// Until all polls of the last worker are parked. Starting up is not idling either.
const SETTLE: Duration = Duration::from_secs(2);

/// The budgets.
const CPU_PERCENT_MAX: f64 = 5.0;
const WORKER_KB_MAX: f64 = 40.0;

/// Arguments of `fleet`.
#[derive(Args)]
pub(crate) struct FleetArgs {
    /// Simulated workers
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    workers: u32,

    /// How long to look, in seconds, after all have come
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Store to measure
    #[arg(long, default_value = "sqlite")]
    store: String,
}

/// Calls that were answered.
#[derive(Default)]
struct Counts {
    polls: AtomicU64,
    stops: AtomicU64,
    pings: AtomicU64,
}

pub(crate) async fn measure(site: &Site, args: &FleetArgs) -> Result<()> {
    // The server inherits it.
    raise_open_files(u64::from(args.workers) * CONNECTIONS + OTHER_FILES)?;
    let server = site
        .start_fresh(&args.store, &[ENDPOINT.to_owned()])
        .await?;
    sleep(SETTLE).await;
    let without = server.memory()?;

    eprintln!("{} workers come, within {} s", args.workers, PING.as_secs());
    let counts = Arc::new(Counts::default());
    let mut workers = come(&server, args.workers, &counts);
    undisturbed(&mut workers, PING + SETTLE).await?;
    let counted = counts.read();
    let meter = Meter::start(&server)?;
    undisturbed(&mut workers, Duration::from_secs(args.seconds)).await?;
    let spent = meter.read()?;
    let answered: Vec<f64> = counts
        .read()
        .iter()
        .zip(counted)
        .map(|(after, before)| (after - before) as f64 / spent.seconds())
        .collect();
    let with = server.memory()?;
    drop(workers);
    server.kill().await?;

    let grown = with.resident.saturating_sub(without.resident) as f64;
    let share = |cpu_s: f64| format!("{:.2}", 100.0 * cpu_s / spent.seconds());
    let per_second = |at: usize| format!("{:.1}", answered[at]);
    let rows = [vec![
        format!("{}, {}", args.workers, args.store),
        per_second(0),
        per_second(1),
        per_second(2),
        share(spent.server_cpu_s),
        without.to_string(),
        with.to_string(),
        format!("{:.1}", grown / 1000.0 / f64::from(args.workers)),
        share(spent.own_cpu_s),
    ]];
    let cpu = format!("server CPU, % of a core (budget {CPU_PERCENT_MAX})");
    let memory = format!("kB/worker (budget {WORKER_KB_MAX})");
    let header = [
        "idle workers, store",
        "job-take/s",
        "job-stop/s",
        "ping/s",
        &cpu,
        "resident without, MB (anonymous)",
        "with",
        &memory,
        "tool CPU, %",
    ];
    println!("{}", table(&header, &rows));
    Ok(())
}

impl Counts {
    fn read(&self) -> [u64; 3] {
        [&self.polls, &self.stops, &self.pings].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Lets so many workers come, spread over the time between two heartbeats.
fn come(server: &Server, count: u32, counts: &Arc<Counts>) -> JoinSet<Result<()>> {
    let address = server.address;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let at = start + PING * number / count;
        let name: Arc<str> = format!("bench{number}").into();
        tasks.spawn(ping(address, Arc::clone(&name), at, Arc::clone(counts)));
        tasks.spawn(poll(address, Arc::clone(&name), at, Arc::clone(counts)));
        tasks.spawn(stop(address, name, at, Arc::clone(counts)));
    }
    tasks
}

/// Waits, unless a worker fails.
async fn undisturbed(workers: &mut JoinSet<Result<()>>, time: Duration) -> Result<()> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        Some(ended) = workers.join_next() => {
            ended.context("a worker panicked")?.context("a worker failed")?;
            bail!("a worker stopped");
        }
    }
}

async fn poll(address: SocketAddr, name: Arc<str>, at: Instant, counts: Arc<Counts>) -> Result<()> {
    sleep_until(at).await;
    let mut http = Connection::open(address).await?;
    loop {
        http.get(format_args!(
            "/v2/{ENDPOINT}/job-take/{name}?gpu=&job_in_progress=0"
        ));
        expect_nothing(&mut http).await?;
        counts.polls.fetch_add(1, Ordering::Relaxed);
    }
}

async fn stop(address: SocketAddr, name: Arc<str>, at: Instant, counts: Arc<Counts>) -> Result<()> {
    sleep_until(at).await;
    let mut http = Connection::open(address).await?;
    loop {
        http.get(format_args!("/v2/{ENDPOINT}/job-stop/{name}?gpu="));
        expect_nothing(&mut http).await?;
        counts.stops.fetch_add(1, Ordering::Relaxed);
        sleep(STOP_PAUSE).await;
    }
}

async fn ping(address: SocketAddr, name: Arc<str>, at: Instant, counts: Arc<Counts>) -> Result<()> {
    sleep_until(at).await;
    let mut http = Connection::open(address).await?;
    let mut ticks = interval_at(at, PING);
    loop {
        ticks.tick().await;
        http.get(format_args!(
            "/v2/{ENDPOINT}/ping/{name}?gpu=&runpod_version=1.12.0"
        ));
        http.expect_ok().await?;
        counts.pings.fetch_add(1, Ordering::Relaxed);
    }
}

async fn expect_nothing(http: &mut Connection) -> Result<()> {
    let answer = http.exchange().await?;
    if answer.status == 204 {
        return Ok(());
    }
    answer.ensure_ok()?;
    bail!(
        "an idle worker got {}",
        String::from_utf8_lossy(answer.body)
    );
}

/// Lets this process, and the server that it starts, have so many open files.
fn raise_open_files(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|most| most >= needed) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(needed),
        // Beyond the present maximum only where that is allowed.
        maximum: limit.maximum.map(|most| most.max(needed)),
    };
    setrlimit(Resource::Nofile, raised).with_context(|| {
        let most = limit.maximum.unwrap_or_default();
        format!(
            "the server and this tool need {needed} open files each, and at most {most} are \
             allowed here: raise the limit (ulimit -n), or take fewer --workers"
        )
    })
}
