//! Whole job lives over HTTP, store against store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::http::{Connection, read_id};
use crate::job::{ENDPOINT, done, submit_body, take};
use crate::report::{Summary, Times, median, median_summary, table, thousands};
use crate::server::{Server, Site, own_cpu_s};
use crate::single_caller;

const CALLS: [&str; 4] = ["run", "take", "done", "status"];
const WARM_UP: Duration = Duration::from_secs(1);

/// On top of the measured seconds: lives under way are finished, and a stuck server is noticed.
const GRACE: Duration = Duration::from_secs(60);

/// Arguments of `lives`.
#[derive(Args)]
pub(crate) struct LivesArgs {
    /// Numbers of connections, each measured on its own
    #[arg(long, value_delimiter = ',', default_value = "1,64,256",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Vec<u16>,

    /// Length of one round in seconds, after one second of warm-up
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Rounds for each store; the stores take turns, and medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,

    /// Stores to measure; ratios are to `memory`
    #[arg(long, value_delimiter = ',', default_value = "memory,sqlite")]
    stores: Vec<String>,

    /// Size of a job's input
    #[arg(long, default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    input_bytes: u32,
}

/// One store with one number of connections, in one round.
struct Round {
    per_second: f64,
    calls: [Summary; CALLS.len()],
    server_cpu_us: f64,
    own_cpu_us: f64,
}

pub(crate) async fn measure(site: &Site, args: &LivesArgs) -> Result<()> {
    let body: Arc<[u8]> = submit_body(args.input_bytes as usize).into();
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for &connections in &args.connections {
        let mut rounds: Vec<Vec<Round>> = args.stores.iter().map(|_| Vec::new()).collect();
        for number in 1..=args.rounds {
            for (store, rounds) in args.stores.iter().zip(&mut rounds) {
                let seconds = Duration::from_secs(args.seconds);
                let round = round(site, store, connections, seconds, &body).await?;
                eprintln!(
                    "{connections} connections, round {number}, {store}: {} lives/s",
                    thousands(round.per_second)
                );
                rounds.push(round);
            }
        }
        for (store, rounds) in args.stores.iter().zip(&rounds) {
            rows.push(row(connections, store, rounds));
        }
        ratios.extend(ratio_row(connections, &args.stores, &rounds));
    }
    let header = [
        "connections",
        "store",
        "lives/s (lowest–highest)",
        "run p50 / p99 µs",
        "take",
        "done",
        "status",
        "server CPU µs/life",
        "tool CPU µs/life",
    ];
    println!("{}", table(&header, &rows));
    if !ratios.is_empty() {
        let others = args.stores.iter().filter(|store| *store != "memory");
        let names: Vec<String> = others.map(|store| format!("{store} / memory")).collect();
        let header: Vec<&str> = std::iter::once("connections")
            .chain(names.iter().map(String::as_str))
            .collect();
        println!("{}", table(&header, &ratios));
    }
    single_caller::measure(site, &args.stores, args.rounds, &body).await
}

fn row(connections: u16, store: &str, rounds: &[Round]) -> Vec<String> {
    let rates = rounds.iter().map(|round| round.per_second);
    let lowest = rates.clone().fold(f64::INFINITY, f64::min);
    let highest = rates.clone().fold(0.0, f64::max);
    let mut row = vec![
        connections.to_string(),
        store.to_owned(),
        format!(
            "{} ({}–{})",
            thousands(median(rates)),
            thousands(lowest),
            thousands(highest)
        ),
    ];
    for call in 0..CALLS.len() {
        row.push(median_summary(rounds.iter().map(|round| round.calls[call])).to_string());
    }
    row.push(format!(
        "{:.1}",
        median(rounds.iter().map(|round| round.server_cpu_us))
    ));
    row.push(format!(
        "{:.1}",
        median(rounds.iter().map(|round| round.own_cpu_us))
    ));
    row
}

fn ratio_row(connections: u16, stores: &[String], rounds: &[Vec<Round>]) -> Option<Vec<String>> {
    let rate = |rounds: &[Round]| median(rounds.iter().map(|round| round.per_second));
    let memory = rate(&rounds[stores.iter().position(|store| store == "memory")?]);
    let others = stores
        .iter()
        .zip(rounds)
        .filter(|(store, _)| *store != "memory");
    let mut row = vec![connections.to_string()];
    row.extend(others.map(|(_, rounds)| format!("{:.2}", rate(rounds) / memory)));
    (row.len() > 1).then_some(row)
}

async fn round(
    site: &Site,
    store: &str,
    connections: u16,
    length: Duration,
    body: &Arc<[u8]>,
) -> Result<Round> {
    let server = site.start_fresh(store, &[ENDPOINT.to_owned()]).await?;
    let mut lanes = Vec::new();
    for number in 0..connections {
        lanes.push(Lane::open(&server, number).await?);
    }
    let mut lanes = drive(lanes, body, WARM_UP).await?;
    for lane in &mut lanes {
        lane.times.iter_mut().for_each(Times::clear);
    }
    let (server_cpu_s, own_cpu, started) = (server.cpu_s()?, own_cpu_s()?, Instant::now());
    let lanes = drive(lanes, body, length).await?;
    let elapsed = started.elapsed();
    let (server_cpu_s, own_cpu) = (server.cpu_s()? - server_cpu_s, own_cpu_s()? - own_cpu);
    server.kill().await?;

    let mut times: [Times; CALLS.len()] = std::array::from_fn(|_| Times::default());
    for mut lane in lanes {
        for (all, own) in times.iter_mut().zip(&mut lane.times) {
            all.append(own);
        }
    }
    let lives = times[0].count() as f64;
    Ok(Round {
        per_second: lives / elapsed.as_secs_f64(),
        calls: times.map(Times::summary),
        server_cpu_us: server_cpu_s * 1e6 / lives,
        own_cpu_us: own_cpu * 1e6 / lives,
    })
}

/// Lets all lanes live jobs for this long.
async fn drive(lanes: Vec<Lane>, body: &Arc<[u8]>, length: Duration) -> Result<Vec<Lane>> {
    let end = Instant::now() + length;
    let mut tasks = JoinSet::new();
    for mut lane in lanes {
        let body = Arc::clone(body);
        tasks.spawn(async move {
            while Instant::now() < end {
                lane.live(&body).await?;
            }
            anyhow::Ok(lane)
        });
    }
    let all = async {
        let mut lanes = Vec::new();
        while let Some(lane) = tasks.join_next().await {
            lanes.push(lane.context("a lane panicked")??);
        }
        Ok(lanes)
    };
    timeout(length + GRACE, all)
        .await
        .context("the server does not answer any more")?
}

/// One connection: a client and a worker in one.
struct Lane {
    http: Connection,
    worker: String,
    submitted: String,
    taken: String,
    times: [Times; CALLS.len()],
}

impl Lane {
    async fn open(server: &Server, number: u16) -> Result<Self> {
        Ok(Self {
            http: Connection::open(server.address).await?,
            worker: format!("w{number}"),
            submitted: String::new(),
            taken: String::new(),
            times: std::array::from_fn(|_| Times::default()),
        })
    }

    /// One job from submit to status. Which job is taken is the server's choice, but there is
    /// always one: every lane has put one in before it takes one out.
    async fn live(&mut self, body: &[u8]) -> Result<()> {
        let Self {
            http,
            worker,
            submitted,
            taken,
            times,
        } = self;
        let mut clock = Instant::now();
        let mut lap = |call: usize| {
            let now = Instant::now();
            times[call].add(now - clock);
            clock = now;
        };
        http.post(format_args!("/v2/{ENDPOINT}/run"), body);
        read_id(http.expect_ok().await?, submitted)?;
        lap(0);
        take(http, worker, taken).await?;
        lap(1);
        done(http, worker, taken).await?;
        lap(2);
        http.get(format_args!("/v2/{ENDPOINT}/status/{submitted}"));
        http.expect_ok().await?;
        lap(3);
        Ok(())
    }
}
