//! Whole job lives over HTTP, with one server and with several that share a database.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::database::{Cluster, DatabaseArgs};
use crate::job::{ENDPOINT, submit_body};
use crate::lanes::{self, CALLS, Round, in_turn, round_on};
use crate::report::{cpu, median, median_summary, spread, table, thousands};
use crate::server::{Server, Site, tables};

/// Arguments of `several`.
#[derive(Args)]
pub(crate) struct SeveralArgs {
    /// Numbers of callers, each measured on its own. A caller has a connection to every server and
    /// uses one at a time
    #[arg(long, value_delimiter = ',', default_value = "64,256",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Vec<u16>,

    /// Numbers of servers over PostgreSQL
    #[arg(long, value_delimiter = ',', default_value = "1,2",
        value_parser = clap::value_parser!(u16).range(1..=16))]
    servers: Vec<u16>,

    /// Length of one round in seconds, after one second of warm-up
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Rounds for each; they take turns, and medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,

    /// Size of a job's input
    #[arg(long, default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    input_bytes: u32,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Servers that are compared.
#[derive(Clone, Copy)]
enum House {
    Sqlite,
    Postgres { servers: u16 },
}

impl fmt::Display for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => f.write_str("1 server, sqlite"),
            Self::Postgres { servers: 1 } => f.write_str("1 server, postgres"),
            Self::Postgres { servers } => write!(f, "{servers} servers, postgres"),
        }
    }
}

pub(crate) async fn measure(site: &Site, args: &SeveralArgs) -> Result<()> {
    let cluster = Cluster::open(site, &args.database).await?;
    let body: Arc<[u8]> = submit_body(args.input_bytes as usize).into();
    let length = Duration::from_secs(args.seconds);
    let over_postgres = args.servers.iter();
    let over_postgres = over_postgres.map(|&servers| House::Postgres { servers });
    let houses: Vec<House> = std::iter::once(House::Sqlite)
        .chain(over_postgres)
        .collect();
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for &connections in &args.connections {
        let rounds = in_turn(&houses, args.rounds, async |house, number| {
            let round = match *house {
                House::Sqlite => lanes::round(site, "sqlite", connections, length, &body).await?,
                House::Postgres { servers } => {
                    shared(site, &cluster, servers, connections, length, &body).await?
                }
            };
            eprintln!(
                "{connections} connections, round {number}, {house}: {} lives/s",
                thousands(round.per_second)
            );
            Ok(round)
        })
        .await?;
        rows.extend(
            houses
                .iter()
                .zip(&rounds)
                .map(|(house, it)| row(connections, *house, it)),
        );
        ratios.push(ratio_row(connections, &rounds));
    }
    print(&houses, &rows, &ratios);
    Ok(())
}

/// One round of servers over a fresh database.
async fn shared(
    site: &Site,
    cluster: &Cluster,
    servers: u16,
    connections: u16,
    length: Duration,
    body: &Arc<[u8]>,
) -> Result<Round> {
    let database = cluster.fresh().await?;
    let endpoints = tables(&[ENDPOINT.to_owned()]);
    let servers = site
        .start_over(&database.url, servers.into(), &endpoints)
        .await?;
    let round = round_on(&servers, cluster.postmaster, connections, length, body).await?;
    Server::kill_all(servers).await?;
    cluster.drop(database).await?;
    Ok(round)
}

fn print(houses: &[House], rows: &[Vec<String>], ratios: &[Vec<String>]) {
    let header = [
        "connections in use",
        "servers",
        "lives/s (lowest–highest)",
        "run p50 / p99 µs",
        "take",
        "done",
        "status",
        "servers CPU µs/life",
        "PostgreSQL CPU µs/life",
        "tool CPU µs/life",
    ];
    println!("{}", table(&header, rows));
    let mut header = vec!["connections in use".to_owned()];
    header.extend(
        houses[1..]
            .iter()
            .map(|house| format!("{house} / {}", houses[0])),
    );
    header.extend(
        houses
            .iter()
            .skip(2)
            .map(|house| format!("{house} / {}", houses[1])),
    );
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    println!("{}", table(&header, ratios));
}

fn row(connections: u16, house: House, rounds: &[Round]) -> Vec<String> {
    let mut row = vec![
        connections.to_string(),
        house.to_string(),
        spread(rounds.iter().map(|round| round.per_second)),
    ];
    for call in 0..CALLS.len() {
        row.push(median_summary(rounds.iter().map(|round| round.calls[call])).to_string());
    }
    row.extend([
        cpu(rounds.iter().map(|round| round.server_cpu_us)),
        cpu(rounds.iter().map(|round| round.postgres_cpu_us)),
        cpu(rounds.iter().map(|round| round.own_cpu_us)),
    ]);
    row
}

/// All to the first, and those behind the second to the second.
fn ratio_row(connections: u16, rounds: &[Vec<Round>]) -> Vec<String> {
    let rates = rounds
        .iter()
        .map(|rounds| median(rounds.iter().map(|round| round.per_second)));
    let rates: Vec<f64> = rates.collect();
    let mut row = vec![connections.to_string()];
    for base in 0..rates.len().min(2) {
        let behind = rates[base + 1..].iter();
        row.extend(behind.map(|rate| format!("{:.2}", rate / rates[base])));
    }
    row
}
