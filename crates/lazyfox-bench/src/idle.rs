//! A server with nothing to do.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::sleep;

use crate::database::DatabaseArgs;
use crate::meter::Meter;
use crate::report::table;
use crate::server::Site;

mod database;

/// Starting up is not idling.
const SETTLE: Duration = Duration::from_secs(2);

const SECONDS: u64 = 30;

/// Arguments of `idle`.
#[derive(Args)]
pub(crate) struct IdleArgs {
    /// Endpoints of the server, none of them in use
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    endpoints: u16,

    /// How long to look, in seconds [default: 30; 60 with a database]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,

    /// Store to measure
    #[arg(long, default_value = "sqlite")]
    store: String,

    /// Measure a server over PostgreSQL, and what it asks of that
    #[arg(long, conflicts_with = "store")]
    database: bool,

    #[command(flatten)]
    postgres: DatabaseArgs,
}

pub(crate) async fn measure(site: &Site, args: &IdleArgs) -> Result<()> {
    let endpoints: Vec<String> = (0..args.endpoints).map(|n| format!("bench{n}")).collect();
    if args.database || args.postgres.is_given() {
        return database::measure(site, args, &endpoints).await;
    }
    let server = site.start_fresh(&args.store, &endpoints).await?;
    sleep(SETTLE).await;
    let meter = Meter::start(&server)?;
    sleep(Duration::from_secs(args.seconds.unwrap_or(SECONDS))).await;
    let spent = meter.read()?;
    let share = spent.server_cpu_s / spent.seconds();
    let memory = server.memory()?;
    server.kill().await?;
    let rows = [vec![
        args.endpoints.to_string(),
        args.store.clone(),
        format!("{:.2}", share * 100.0),
        memory.to_string(),
    ]];
    let header = [
        "idle endpoints",
        "store",
        "CPU, % of a core",
        "resident, MB (anonymous)",
    ];
    println!("{}", table(&header, &rows));
    Ok(())
}
