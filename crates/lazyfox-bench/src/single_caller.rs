//! What one durable submit costs a caller who is alone, beside what the disk alone takes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, timeout};

use crate::http::Connection;
use crate::job::ENDPOINT;
use crate::report::{Summary, Times, median_summary, table};
use crate::server::{Server, Site};

/// Size of the record whose sync is the yardstick for a durable submit: about what a commit of one
/// job appends.
const SYNC_BYTES: usize = 600;
const SYNCS: usize = 1000;
const SUBMITS: usize = 1000;

/// Calls of a single caller that are left out: connections, caches and the first growth of files.
const SUBMITS_WARM_UP: usize = 100;

/// A server that needs longer for these few calls hangs.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn measure(
    site: &Site,
    stores: &[String],
    rounds: u16,
    body: &[u8],
) -> Result<()> {
    let mut syncs = Vec::new();
    let mut submits: Vec<Vec<Summary>> = stores.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        syncs.push(time_syncs(site)?);
        for (store, submits) in stores.iter().zip(&mut submits) {
            let server = site.start_fresh(store, &[ENDPOINT.to_owned()]).await?;
            submits.push(timeout(LIMIT, time_submits(&server, body)).await??);
            server.kill().await?;
        }
    }
    let sync = median_summary(syncs.iter().copied());
    let mut rows = vec![vec![
        format!("fdatasync of {SYNC_BYTES} B"),
        sync.to_string(),
        String::new(),
    ]];
    let submits: Vec<Summary> = submits
        .iter()
        .map(|rounds| median_summary(rounds.iter().copied()))
        .collect();
    let memory = stores
        .iter()
        .position(|store| store == "memory")
        .map(|at| submits[at]);
    for (store, submit) in stores.iter().zip(&submits) {
        let ratio = match memory {
            Some(memory) if store != "memory" => {
                format!("{:.2}", submit.p50_us / (sync.p50_us + memory.p50_us))
            }
            Some(_) | None => String::new(),
        };
        rows.push(vec![format!("submit, {store}"), submit.to_string(), ratio]);
    }
    let header = [
        "one caller",
        "p50 / p99 µs",
        "ratio of p50 to fdatasync + submit, memory",
    ];
    println!("{}", table(&header, &rows));
    Ok(())
}

fn time_syncs(site: &Site) -> Result<Summary> {
    let path = site.folder.join("sync");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .context("cannot create a file to sync")?;
    let mut times = Times::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[b'x'; SYNC_BYTES])?;
        file.sync_data()?;
        times.add(started.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(times.summary())
}

async fn time_submits(server: &Server, body: &[u8]) -> Result<Summary> {
    let mut http = Connection::open(server.address).await?;
    let mut times = Times::with_capacity(SUBMITS);
    for number in 0..SUBMITS + SUBMITS_WARM_UP {
        let started = Instant::now();
        http.post(format_args!("/v2/{ENDPOINT}/run"), body);
        http.expect_ok().await?;
        if number >= SUBMITS_WARM_UP {
            times.add(started.elapsed());
        }
    }
    Ok(times.summary())
}
