//! Webhooks: how fast they go out, what they cost the jobs, how late they come, and what a receiver
//! that is dead costs.

mod cost;
mod dead;
mod delay;
mod drain;

use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::job::{submit_body, submit_body_with_webhook};
use crate::server::Site;

/// Arguments of `webhooks`.
#[derive(Args)]
pub(crate) struct WebhooksArgs {
    /// What to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "drain,cost,delay,dead",
        value_enum
    )]
    parts: Vec<Part>,

    /// Stores to measure
    #[arg(long, value_delimiter = ',', default_value = "sqlite")]
    stores: Vec<String>,

    /// Connections that live jobs, in `drain`, `cost` and `dead`
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// Rounds of `drain` and of `cost`; medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,

    /// Size of a job's input, which its webhook carries too
    #[arg(long, default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    input_bytes: u32,

    /// Jobs of a round of `drain`
    #[arg(long, default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    jobs: u64,

    /// Length of one round of `cost` in seconds, after one second of warm-up
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Jobs per second in `delay`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,

    /// Length of `delay` in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    rate_seconds: u32,

    /// Workers of `delay`, each on a connection of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,

    /// Jobs of `dead`
    #[arg(long, value_name = "JOBS", default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    dead: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Deliveries per second of a backlog
    Drain,
    /// Share of the job throughput that webhooks cost
    Cost,
    /// Time from the end of a job to its delivery
    Delay,
    /// Memory when nobody listens
    Dead,
}

pub(crate) async fn measure(site: &Site, args: &WebhooksArgs) -> Result<()> {
    for part in &args.parts {
        match part {
            Part::Drain => drain::measure(site, args).await?,
            Part::Cost => cost::measure(site, args).await?,
            Part::Delay => delay::measure(site, args).await?,
            Part::Dead => dead::measure(site, args).await?,
        }
    }
    Ok(())
}

impl WebhooksArgs {
    fn plain_body(&self) -> Arc<[u8]> {
        submit_body(self.input_bytes as usize).into()
    }

    fn body(&self, url: &str) -> Arc<[u8]> {
        submit_body_with_webhook(self.input_bytes as usize, url).into()
    }
}
