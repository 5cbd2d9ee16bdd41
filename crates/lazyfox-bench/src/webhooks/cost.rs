//! What webhooks cost the jobs: lives per second with one on every job and without.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::WebhooksArgs;
use crate::lanes::{self, in_turn};
use crate::receiver::Receiver;
use crate::report::{median, spread, table, thousands};
use crate::server::Site;

/// Both kinds, one after the other.
struct Pair {
    without: lanes::Round,
    with: lanes::Round,
    /// Deliveries that arrived within the measured time.
    delivered_per_second: f64,
    /// Jobs that had ended and were not delivered when the measured time was over.
    backlog: usize,
    repeats: u64,
}

pub(super) async fn measure(site: &Site, args: &WebhooksArgs) -> Result<()> {
    let rounds = in_turn(&args.stores, args.rounds, async |store, number| {
        let pair = pair(site, store, args).await?;
        eprintln!(
            "cost, round {number}, {store}: {} lives/s without, {} with, {} deliveries/s",
            thousands(pair.without.per_second),
            thousands(pair.with.per_second),
            thousands(pair.delivered_per_second)
        );
        Ok(pair)
    })
    .await?;
    let rows: Vec<Vec<String>> = args
        .stores
        .iter()
        .zip(&rounds)
        .map(|(store, pairs)| row(store, pairs))
        .collect();
    let title = format!("{} connections", args.connections);
    let header = [
        &title,
        "lives/s without webhooks (lowest–highest)",
        "with one on every job",
        "share lost (in single pairs)",
        "deliveries/s in that time",
        "backlog at its end",
        "server CPU µs/life without, with",
        "tool CPU µs/life without, with",
        "delivered again",
    ];
    println!("{}", table(&header, &rows));
    Ok(())
}

fn row(store: &str, pairs: &[Pair]) -> Vec<String> {
    let of = |figure: fn(&Pair) -> f64| pairs.iter().map(figure);
    let without = of(|pair| pair.without.per_second);
    let with = of(|pair| pair.with.per_second);
    let lost = 1.0 - median(with.clone()) / median(without.clone());
    let lost_by_pair = of(|pair| 1.0 - pair.with.per_second / pair.without.per_second);
    vec![
        store.to_owned(),
        spread(without),
        spread(with),
        format!(
            "{lost:.2} ({:.2}–{:.2})",
            lost_by_pair.clone().fold(f64::INFINITY, f64::min),
            lost_by_pair.fold(f64::NEG_INFINITY, f64::max)
        ),
        spread(of(|pair| pair.delivered_per_second)),
        spread(of(|pair| pair.backlog as f64)),
        format!(
            "{:.1}, {:.1}",
            median(of(|pair| pair.without.server_cpu_us)),
            median(of(|pair| pair.with.server_cpu_us))
        ),
        format!(
            "{:.1}, {:.1}",
            median(of(|pair| pair.without.own_cpu_us)),
            median(of(|pair| pair.with.own_cpu_us))
        ),
        pairs
            .iter()
            .map(|pair| pair.repeats)
            .sum::<u64>()
            .to_string(),
    ]
}

async fn pair(site: &Site, store: &str, args: &WebhooksArgs) -> Result<Pair> {
    let length = Duration::from_secs(args.seconds);
    let plain = args.plain_body();
    let without = lanes::round(site, store, args.connections, length, &plain).await?;

    let receiver = Receiver::start().await?;
    let body = args.body(&receiver.url);
    let with = lanes::round(site, store, args.connections, length, &body).await?;
    let deliveries = receiver.stop()?;
    let until = |end| {
        let times = deliveries.first_bytes.values();
        times.filter(|at| **at < end).count()
    };
    let delivered = until(with.time.end) - until(with.time.start);
    Ok(Pair {
        delivered_per_second: delivered as f64 / (with.time.end - with.time.start).as_secs_f64(),
        backlog: with
            .ended
            .checked_sub(until(with.time.end))
            .context("more jobs were delivered than have ended")?,
        repeats: deliveries.repeats,
        without,
        with,
    })
}
