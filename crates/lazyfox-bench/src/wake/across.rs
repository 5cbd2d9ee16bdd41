//! The same over two servers that share a PostgreSQL.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;

use super::{INPUT_BYTES, WakeArgs};
use crate::database::Cluster;
use crate::job::{ENDPOINT, submit_body};
use crate::lanes::in_turn;
use crate::paced::{Delays, Pace, play_between};
use crate::report::table;
use crate::server::{Server, Site, tables};

/// Where the polls are parked.
#[derive(Clone, Copy)]
enum Parked {
    /// Where the jobs are submitted.
    Same,
    Other,
}

impl fmt::Display for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "polls parked at the same server",
            Self::Other => "at the other server",
        })
    }
}

pub(super) async fn measure(site: &Site, args: &WakeArgs, pace: &Pace) -> Result<()> {
    let cluster = Cluster::open(site, &args.database).await?;
    let database = cluster.fresh().await?;
    let endpoints = tables(&[ENDPOINT.to_owned()]);
    let servers = site.start_over(&database.url, 2, &endpoints).await?;
    let body: Arc<[u8]> = submit_body(INPUT_BYTES).into();
    let places = [Parked::Same, Parked::Other];
    let played = in_turn(&places, args.rounds, async |place, number| {
        eprintln!("round {number}, {place}");
        let workers_at = match place {
            Parked::Same => &servers[0],
            Parked::Other => &servers[1],
        };
        play_between(&servers[0], workers_at, pace, Arc::clone(&body)).await
    })
    .await?;
    Server::kill_all(servers).await?;
    cluster.drop(database).await?;

    let mut rows = Vec::new();
    for (place, rounds) in places.iter().zip(&played) {
        let mut delays = Delays::default();
        for played in rounds {
            played.add_wakes(&mut delays)?;
        }
        for row in delays.rows("submit", "worker has the job") {
            rows.push([vec![place.to_string()], row].concat());
        }
    }
    let title = format!("{} times {pace}, 2 servers, postgres", args.rounds);
    println!("{}", table(&[&title, "", "p50 / p99 µs"], &rows));
    Ok(())
}
