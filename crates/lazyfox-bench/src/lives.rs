//! Whole job lives over HTTP, store against store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::job::submit_body;
use crate::lanes::{CALLS, Round, in_turn, round};
use crate::report::{median, median_summary, spread, table, thousands};
use crate::server::Site;
use crate::single_caller;

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

pub(crate) async fn measure(site: &Site, args: &LivesArgs) -> Result<()> {
    let body: Arc<[u8]> = submit_body(args.input_bytes as usize).into();
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for &connections in &args.connections {
        let rounds = in_turn(&args.stores, args.rounds, async |store, number| {
            let length = Duration::from_secs(args.seconds);
            let round = round(site, store, connections, length, &body).await?;
            eprintln!(
                "{connections} connections, round {number}, {store}: {} lives/s",
                thousands(round.per_second)
            );
            Ok(round)
        })
        .await?;
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
    let mut row = vec![
        connections.to_string(),
        store.to_owned(),
        spread(rounds.iter().map(|round| round.per_second)),
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
