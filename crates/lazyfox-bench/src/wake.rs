//! How soon a parked worker gets a new job.

use anyhow::Result;
use clap::Args;

use crate::database::DatabaseArgs;
use crate::job::{ENDPOINT, submit_body};
use crate::paced::{Delays, Pace, play};
use crate::report::table;
use crate::server::Site;

mod across;

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
    #[arg(long, default_value = "sqlite", conflicts_with = "servers")]
    store: String,

    /// Servers over one PostgreSQL, instead of one with a store of its own
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=2))]
    servers: Option<u16>,

    /// Rounds of `--servers`, of so many seconds each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50),
        requires = "servers")]
    rounds: u16,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn measure(site: &Site, args: &WakeArgs) -> Result<()> {
    let pace = Pace {
        rate: args.rate,
        seconds: args.seconds,
        workers: args.workers,
    };
    if args.servers.is_some() {
        return across::measure(site, args, &pace).await;
    }
    let server = site
        .start_fresh(&args.store, &[ENDPOINT.to_owned()])
        .await?;
    let played = play(&server, &pace, submit_body(INPUT_BYTES).into()).await?;
    server.kill().await?;

    let mut delays = Delays::default();
    played.add_wakes(&mut delays)?;
    let title = format!("{pace}, {}", args.store);
    let rows = delays.rows("submit", "worker has the job");
    println!("{}", table(&[&title, "p50 / p99 µs"], &rows));
    Ok(())
}
