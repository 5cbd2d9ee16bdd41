//! Jobs from end to end, beside other queues on the same PostgreSQL.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::database::{Cluster, DatabaseArgs};
use crate::job::ENDPOINT;
use crate::report::{cpu, median, spread, table, thousands};
use crate::server::{Server, Site, tables};

use own::{Bulk, Callers};

mod own;
mod peers;

/// Arguments of `queues`.
#[derive(Args)]
pub(crate) struct QueuesArgs {
    /// Rounds, in each of which everybody has a turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,

    /// Length of one measurement with callers in seconds, after three of warm-up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Callers that submit a job, wait until it is done, and submit the next one
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    callers: u16,

    /// Our simulated workers, each with a connection and one job at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,

    /// Jobs that are all added before the first one is taken
    #[arg(long, default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    jobs: u64,

    /// Only our own figures
    #[arg(long, conflicts_with = "peers")]
    without_peers: bool,

    /// The script that measures the others
    #[arg(
        long,
        value_name = "PATH",
        default_value = "crates/lazyfox-bench/peers/run.sh"
    )]
    peers: PathBuf,

    /// Folder for the packages of the others [default: `peers` beside this program]
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Of one queue, a figure for each round.
#[derive(Default)]
struct Queue {
    name: String,
    callers: Vec<Callers>,
    bulk: Vec<Bulk>,
}

/// In the order in which they first came.
#[derive(Default)]
struct Queues(Vec<Queue>);

impl Queues {
    fn of(&mut self, name: &str) -> &mut Queue {
        let at = self.0.iter().position(|queue| queue.name == name);
        let at = at.unwrap_or_else(|| {
            self.0.push(Queue {
                name: name.to_owned(),
                ..Queue::default()
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

/// Where our own server keeps its jobs; ratios are to the first.
const OURS: [&str; 2] = ["lazyfox, postgres", "lazyfox, sqlite"];

pub(crate) async fn measure(site: &Site, args: &QueuesArgs) -> Result<()> {
    let cluster = Cluster::open(site, &args.database).await?;
    let packages = match &args.packages {
        Some(packages) => packages.clone(),
        None => site.beside("peers")?,
    };
    let mut queues = Queues::default();
    for round in 1..=args.rounds {
        for name in OURS {
            let (callers, bulk) = ours(site, &cluster, args, name).await?;
            eprintln!(
                "round {round}, {name}: {} jobs/s",
                thousands(callers.per_second)
            );
            let queue = queues.of(name);
            queue.callers.push(callers);
            queue.bulk.push(bulk);
        }
        if !args.without_peers {
            eprintln!("round {round}: the others");
            for line in peers::run(args, &cluster.url, &packages).await? {
                let queue = queues.of(&line.name);
                queue.callers.extend(line.callers);
                queue.bulk.extend(line.bulk);
            }
        }
    }
    print(args, &queues);
    Ok(())
}

/// Callers and bulk, each on a fresh server.
async fn ours(
    site: &Site,
    cluster: &Cluster,
    args: &QueuesArgs,
    name: &str,
) -> Result<(Callers, Bulk)> {
    let endpoint = [ENDPOINT.to_owned()];
    if name != OURS[0] {
        let servers = [site.start_fresh("sqlite", &endpoint).await?];
        let callers = own::callers(&servers, None, args).await?;
        Server::kill_all(servers.into()).await?;
        let server = site.start_fresh("sqlite", &endpoint).await?;
        let bulk = own::bulk(&server, args).await?;
        server.kill().await?;
        return Ok((callers, bulk));
    }
    let endpoints = tables(&endpoint);
    let database = cluster.fresh().await?;
    let servers = site.start_over(&database.url, 1, &endpoints).await?;
    let callers = own::callers(&servers, cluster.postmaster, args).await?;
    Server::kill_all(servers).await?;
    cluster.drop(database).await?;
    let database = cluster.fresh().await?;
    let servers = site.start_over(&database.url, 1, &endpoints).await?;
    let bulk = own::bulk(&servers[0], args).await?;
    Server::kill_all(servers).await?;
    cluster.drop(database).await?;
    Ok((callers, bulk))
}

fn print(args: &QueuesArgs, queues: &Queues) {
    let ours = &queues.0[0];
    let rate = |queue: &Queue| median(queue.callers.iter().map(|it| it.per_second));
    let measured = queues.0.iter().filter(|queue| !queue.callers.is_empty());
    let rows: Vec<Vec<String>> = measured
        .map(|queue| {
            let of = |figure: fn(&Callers) -> f64| queue.callers.iter().map(figure);
            vec![
                queue.name.clone(),
                spread(of(|it| it.per_second)),
                format!("{:.2}", rate(ours) / rate(queue)),
                format!(
                    "{:.1} / {:.1}",
                    median(of(|it| it.p50_ms)),
                    median(of(|it| it.p99_ms))
                ),
                cpu(of(|it| it.server_cpu_us)),
                cpu(of(|it| it.postgres_cpu_us)),
                cpu(of(|it| it.own_cpu_us)),
            ]
        })
        .collect();
    let title = format!("{} callers, {} s", args.callers, args.seconds);
    let versus = format!("{} / this", OURS[0]);
    let header = [
        &title,
        "jobs/s from end to end (lowest–highest)",
        &versus,
        "p50 / p99 ms",
        "server CPU µs/job",
        "PostgreSQL CPU µs/job",
        "tool CPU µs/job",
    ];
    println!("{}", table(&header, &rows));

    let drain = |queue: &Queue| median(queue.bulk.iter().map(|it| it.drained_per_second));
    let measured = queues.0.iter().filter(|queue| !queue.bulk.is_empty());
    let rows: Vec<Vec<String>> = measured
        .map(|queue| {
            vec![
                queue.name.clone(),
                spread(queue.bulk.iter().map(|it| it.added_per_second)),
                spread(queue.bulk.iter().map(|it| it.drained_per_second)),
                format!("{:.2}", drain(ours) / drain(queue)),
            ]
        })
        .collect();
    let title = format!("{} jobs", thousands(args.jobs as f64));
    let header = [
        &title,
        "added/s (lowest–highest)",
        "drained/s (lowest–highest)",
        &format!("drained/s, {versus}"),
    ];
    println!("{}", table(&header, &rows));
}
