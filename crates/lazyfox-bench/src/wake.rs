//! How soon a parked worker gets a new job.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::job::{ENDPOINT, submit_body};
use crate::paced::{Delays, Pace, play};
use crate::report::table;
use crate::server::Site;

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

pub(crate) async fn measure(site: &Site, args: &WakeArgs) -> Result<()> {
    let server = site
        .start_fresh(&args.store, &[ENDPOINT.to_owned()])
        .await?;
    let pace = Pace {
        rate: args.rate,
        seconds: args.seconds,
        workers: args.workers,
    };
    let played = play(&server, &pace, submit_body(INPUT_BYTES).into()).await?;
    server.kill().await?;

    let mut delays = Delays::default();
    for job in &played.submitted {
        let handled = played
            .handled
            .get(&job.id)
            .with_context(|| format!("job {} was not taken", job.id))?;
        delays.add(job.sent, job.answered, handled.taken);
    }
    let title = format!("{pace}, {}", args.store);
    let rows = delays.rows("submit", "worker has the job");
    println!("{}", table(&[&title, "p50 / p99 µs"], &rows));
    Ok(())
}
