//! What becomes of the tables of PostgreSQL under full load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::time::{Instant, interval_at};
use tokio_postgres::Client;

use crate::database::{Cluster, DatabaseArgs, connect};
use crate::job::{ENDPOINT, submit_body};
use crate::lanes::{Extent, drive, open};
use crate::report::thousands;
use crate::server::{Server, Site, tables};

use sample::{Sample, Table};

mod sample;

/// Between two looks at the tables.
const EVERY: Duration = Duration::from_secs(10);

/// Arguments of `rows`.
#[derive(Args)]
pub(crate) struct RowsArgs {
    /// How long to look, in minutes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,

    /// How long jobs that ended are kept, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    retention: u64,

    /// Another session keeps a snapshot open from before the load until its end
    #[arg(long)]
    pin_xmin: bool,

    /// Connections that live jobs
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// Size of a job's input
    #[arg(long, default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    input_bytes: u32,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn measure(site: &Site, args: &RowsArgs) -> Result<()> {
    let cluster = Cluster::open(site, &args.database).await?;
    let database = cluster.fresh().await?;
    let retention = args.retention;
    let endpoint = tables(&[ENDPOINT.to_owned()]);
    let endpoints = format!("{endpoint}retention_s = {retention}\n");
    let servers = site.start_over(&database.url, 1, &endpoints).await?;
    // It holds a transaction as long as it lives.
    let pin = match args.pin_xmin {
        true => Some(pin(&database.url).await?),
        false => None,
    };
    let client = connect(&database.url).await?;
    let body: Arc<[u8]> = submit_body(args.input_bytes as usize).into();
    let length = Duration::from_secs(args.minutes * 60);
    let lived = Arc::new(AtomicU64::new(0));
    let mut lanes = open(&servers, args.connections).await?;
    for lane in &mut lanes {
        lane.count_in(&lived);
    }
    let (_, samples) = tokio::try_join!(
        drive(lanes, &body, Extent::For(length)),
        watch(&client, length, &lived)
    )?;
    drop(client);
    drop(pin);
    Server::kill_all(servers).await?;
    cluster.drop(database).await?;

    let pinned = if args.pin_xmin { ", xmin pinned" } else { "" };
    let title = format!("minute, {} connections{pinned}", args.connections);
    println!("{}", sample::tables(&title, &samples));
    Ok(())
}

/// A transaction that sees everything as it is now: no row that is deleted or changed from now on
/// can be cleared away.
async fn pin(url: &str) -> Result<Client> {
    let client = connect(url).await?;
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
        .await
        .context("cannot open a snapshot")?;
    Ok(client)
}

/// Looks at the tables now and then, the first time at once.
async fn watch(client: &Client, length: Duration, lived: &AtomicU64) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let mut ticks = interval_at(start, EVERY);
    let mut samples: Vec<Sample> = Vec::new();
    for _ in 0..=length.as_secs() / EVERY.as_secs() {
        ticks.tick().await;
        let sample = Sample {
            at: start.elapsed(),
            lived: lived.load(Ordering::Relaxed),
            tables: look(client).await?,
        };
        if let Some(last) = samples.last() {
            eprintln!(
                "{} s: {} lives/s, {} dead rows",
                sample.at.as_secs(),
                thousands(sample.rate_since(last)),
                thousands(sample.dead() as f64)
            );
        }
        samples.push(sample);
    }
    Ok(samples)
}

async fn look(client: &Client) -> Result<Vec<Table>> {
    let rows = client
        .query(
            "SELECT relname::text, n_live_tup, n_dead_tup, pg_total_relation_size(relid),
                    pg_indexes_size(relid), autovacuum_count
             FROM pg_stat_user_tables WHERE schemaname = 'lazyfox' ORDER BY relname",
            &[],
        )
        .await
        .context("cannot look at the tables")?;
    let table = |row: &tokio_postgres::Row| Table {
        name: row.get(0),
        live: row.get(1),
        dead: row.get(2),
        bytes: row.get(3),
        index_bytes: row.get(4),
        vacuums: row.get(5),
    };
    Ok(rows.iter().map(table).collect())
}
