//! With how many deliveries per second a backlog drains.

use std::slice;

use anyhow::{Context as _, Result};

use super::WebhooksArgs;
use crate::job::ENDPOINT;
use crate::lanes::{Extent, drive, in_turn, open, warm_up};
use crate::meter::{Meter, Spent};
use crate::receiver::{Deliveries, Receiver};
use crate::report::{median, spread, table, thousands};
use crate::server::Site;

/// A shorter backlog is gone before its rate can be told.
const BACKLOG_MIN: usize = 1_000;

struct Round {
    lives_per_second: f64,
    /// Deliveries that had not arrived when the load stopped.
    backlog: usize,
    /// While nothing else was done; none where the backlog was too short.
    drained: Option<Drained>,
    /// From the first delivery to the last, under load and after it.
    whole_per_second: f64,
    repeats: u64,
}

struct Drained {
    per_second: f64,
    server_cpu_us: f64,
    own_cpu_us: f64,
}

pub(super) async fn measure(site: &Site, args: &WebhooksArgs) -> Result<()> {
    let rounds = in_turn(&args.stores, args.rounds, async |store, number| {
        let round = round(site, store, args).await?;
        eprintln!(
            "drain, round {number}, {store}: a backlog of {}, {} deliveries/s over the whole",
            round.backlog,
            thousands(round.whole_per_second)
        );
        Ok(round)
    })
    .await?;
    let rows: Vec<Vec<String>> = args
        .stores
        .iter()
        .zip(&rounds)
        .map(|(store, rounds)| row(store, rounds))
        .collect();
    let title = format!(
        "{} jobs with a webhook, {} connections",
        thousands(args.jobs as f64),
        args.connections
    );
    let header = [
        &title,
        "lives/s until the load stopped",
        "backlog then",
        "it drained with deliveries/s (lowest–highest)",
        "server CPU µs/delivery",
        "tool CPU µs/delivery",
        "first to last delivery, deliveries/s",
        "delivered again",
    ];
    println!("{}", table(&header, &rows));
    Ok(())
}

fn row(store: &str, rounds: &[Round]) -> Vec<String> {
    let drained = || rounds.iter().filter_map(|round| round.drained.as_ref());
    let mut row = vec![
        store.to_owned(),
        spread(rounds.iter().map(|round| round.lives_per_second)),
        spread(rounds.iter().map(|round| round.backlog as f64)),
    ];
    if drained().next().is_none() {
        row.push(format!("none above {BACKLOG_MIN}"));
        row.extend([String::new(), String::new()]);
    } else {
        row.push(spread(drained().map(|it| it.per_second)));
        row.push(format!(
            "{:.1}",
            median(drained().map(|it| it.server_cpu_us))
        ));
        row.push(format!("{:.1}", median(drained().map(|it| it.own_cpu_us))));
    }
    row.push(spread(rounds.iter().map(|round| round.whole_per_second)));
    row.push(
        rounds
            .iter()
            .map(|round| round.repeats)
            .sum::<u64>()
            .to_string(),
    );
    row
}

async fn round(site: &Site, store: &str, args: &WebhooksArgs) -> Result<Round> {
    let receiver = Receiver::start().await?;
    let server = site.start_fresh(store, &[ENDPOINT.to_owned()]).await?;
    let lanes = open(slice::from_ref(&server), args.connections).await?;
    let lanes = warm_up(lanes, &args.plain_body()).await?;
    let load = Meter::start(&server)?;
    let lanes = drive(lanes, &args.body(&receiver.url), Extent::Jobs(args.jobs)).await?;
    let load = load.read()?;
    let rest = Meter::start(&server)?;
    let jobs = usize::try_from(args.jobs).context("more jobs than can be counted")?;
    receiver.wait_for(jobs).await?;
    let rest = rest.read()?;
    drop(lanes);
    server.kill().await?;
    evaluate(&receiver.stop()?, &load, &rest)
}

fn evaluate(deliveries: &Deliveries, load: &Spent, rest: &Spent) -> Result<Round> {
    let times = || deliveries.first_bytes.values().copied();
    let first = times().min().context("nothing was delivered")?;
    let last = times().max().context("nothing was delivered")?;
    let stopped = load.time.end;
    let backlog = times().filter(|at| *at >= stopped).count();
    let count = backlog as f64;
    let drained = (backlog >= BACKLOG_MIN).then(|| Drained {
        per_second: count / (last - stopped).as_secs_f64(),
        server_cpu_us: rest.server_cpu_s * 1e6 / count,
        own_cpu_us: rest.own_cpu_s * 1e6 / count,
    });
    let jobs = times().count() as f64;
    Ok(Round {
        lives_per_second: jobs / load.seconds(),
        backlog,
        drained,
        whole_per_second: jobs / (last - first).as_secs_f64(),
        repeats: deliveries.repeats,
    })
}
