//! What memory a server needs for webhooks to a receiver that is not there.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::WebhooksArgs;
use crate::job::ENDPOINT;
use crate::lanes::{Extent, drive, open};
use crate::meter::Meter;
use crate::receiver::DeadPort;
use crate::report::{megabytes, table, thousands};
use crate::server::{Memory, Server, Site};

/// First tries need a moment; the second ones begin 10 s after the first, and are not waited for.
const SETTLE_MIN: Duration = Duration::from_secs(3);
const SETTLE_MAX: Duration = Duration::from_secs(8);

/// A server that uses less than this share of a core for this long has nothing under way.
const QUIET: f64 = 0.03;
const QUIET_FOR: Duration = Duration::from_millis(500);

struct Run {
    before: Memory,
    after: Memory,
    /// From the last job's end to `after`.
    settled: Duration,
}

pub(super) async fn measure(site: &Site, args: &WebhooksArgs) -> Result<()> {
    let dead = DeadPort::bind()?;
    for store in &args.stores {
        eprintln!("dead, {store}: {} jobs without a webhook", args.dead);
        let plain = run(site, store, args, &args.plain_body()).await?;
        eprintln!("dead, {store}: {} jobs with one", args.dead);
        let hooked = run(site, store, args, &args.body(&dead.url()?)).await?;
        print(store, args.dead as f64, &plain, &hooked);
    }
    Ok(())
}

fn print(store: &str, jobs: f64, plain: &Run, hooked: &Run) {
    let grown = |run: &Run| {
        let bytes = run.after.anonymous as f64 - run.before.anonymous as f64;
        bytes / jobs
    };
    let row = |name: &str, figure: fn(&Run) -> String| {
        vec![name.to_owned(), figure(plain), figure(hooked)]
    };
    let rows = [
        row("resident before, MB (anonymous)", |run| {
            run.before.to_string()
        }),
        row("resident after, MB (anonymous)", |run| {
            run.after.to_string()
        }),
        row("resident at its highest, MB", |run| {
            megabytes(run.after.highest)
        }),
        row("seconds from the last job's end to that", |run| {
            format!("{:.1}", run.settled.as_secs_f64())
        }),
        vec![
            "anonymous growth per job, B".to_owned(),
            format!("{:.0}", grown(plain)),
            format!("{:.0}", grown(hooked)),
        ],
        vec![
            "of it for the delivery, B".to_owned(),
            String::new(),
            format!("{:.0}", grown(hooked) - grown(plain)),
        ],
    ];
    let title = format!("{} jobs, {store}", thousands(jobs));
    let header = [&title, "without webhooks", "webhooks to a dead port"];
    println!("{}", table(&header, &rows));
}

async fn run(site: &Site, store: &str, args: &WebhooksArgs, body: &Arc<[u8]>) -> Result<Run> {
    let server = site.start_fresh(store, &[ENDPOINT.to_owned()]).await?;
    let lanes = open(slice::from_ref(&server), args.connections).await?;
    // As many jobs before: connections, caches and the allocator grow once.
    let lanes = drive(lanes, &args.plain_body(), Extent::Jobs(args.dead)).await?;
    let before = server.memory()?;
    let lanes = drive(lanes, body, Extent::Jobs(args.dead)).await?;
    let ended = Instant::now();
    settle(&server, ended).await?;
    let (after, settled) = (server.memory()?, ended.elapsed());
    drop(lanes);
    server.kill().await?;
    Ok(Run {
        before,
        after,
        settled,
    })
}

/// Waits until the server has nothing under way.
async fn settle(server: &Server, since: Instant) -> Result<()> {
    sleep(SETTLE_MIN).await;
    while since.elapsed() < SETTLE_MAX {
        let meter = Meter::start(server)?;
        sleep(QUIET_FOR).await;
        let spent = meter.read()?;
        if spent.server_cpu_s < QUIET * spent.seconds() {
            break;
        }
    }
    Ok(())
}
