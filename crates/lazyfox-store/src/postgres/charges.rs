//! Which server starts the workers of which endpoint.
//!
//! A charge is a row with a holder and an end by the database's clock. The holder moves the end before it
//! comes, with everything else that a server has to say, in one statement ([`beat`]); another server takes
//! what is over and raises the term. A worker is noted before it is started, by a statement that holds the
//! charge's row while it looks whether server, term and end are still right ([`enlist`]): a server that
//! stood still finds itself refused, however late it comes.

mod sql;

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::{Client, Pool};
use lazyfox_core::id::{EndpointId, WorkerId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::{self, Failure, failed};
use super::row::{column, endpoint_of, text, time, unsigned};
use crate::{Bid, Charge, Elsewhere, Holder, Peer, Shared, StoreError};

type Fallible<T> = Result<T, Failure>;

/// How long servers are in charge without a word, and how often they say one. All servers of a database
/// should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Length of a charge.
    pub lease_ms: u64,
    /// A server believes in its charges for so much less: its clock may be slower than the database's.
    pub margin_ms: u64,
    /// Time between two words.
    pub beat_ms: u64,
    /// What nobody is in charge of for so long is anybody's, beyond the fair share.
    pub free_ms: u64,
}

impl Default for Spans {
    /// A server that dies is followed by another within 10 s, and an idle one asks less than once in two
    /// seconds.
    fn default() -> Self {
        Self {
            lease_ms: 8_000,
            margin_ms: 1_000,
            beat_ms: 2_500,
            free_ms: 2_000,
        }
    }
}

impl Spans {
    /// How long an answer may take, so that there is time for some more tries.
    pub(super) fn patience(self) -> Duration {
        Duration::from_millis(self.lease_ms / 4)
    }
}

/// Shortest time between two words, however near the end of another server's charge is.
const AGAIN_MS_MIN: u64 = 100;

/// The rows of a server that is gone count for as long as its workers may go on, and so much longer: they
/// take some time to end.
const ENDING_MS: u64 = 10_000;
/// What counts as that time where workers go on for ever.
const FOR_EVER_MS: u64 = 3_600_000;

/// Says that the server is there, keeps what it is in charge of, takes what is free, and tells how things
/// stand: in one statement, but for one more when something was taken.
async fn beat(client: &Client, server: &str, spans: Spans, bid: &Bid) -> Fallible<Shared> {
    let word = Word::new(server, spans, bid);
    let rows = connect::rows(client, super::sql::BEAT, &word.params()).await?;
    understood(client, server, spans, bid, &rows).await
}

/// What a server says about itself.
pub(super) struct Word<'a> {
    server: &'a str,
    endpoints: Vec<&'a str>,
    succeeds: &'a Option<String>,
    lease_ms: i64,
    free_ms: i64,
    machine: String,
    url: String,
    version: &'a str,
    goes_on_ms: i64,
}

impl<'a> Word<'a> {
    pub(super) fn new(server: &'a str, spans: Spans, bid: &'a Bid) -> Self {
        let endpoints: BTreeSet<&str> = bid.endpoints.iter().map(EndpointId::as_str).collect();
        let abandoned_ms = match bid.abandoned_ms {
            0 => FOR_EVER_MS,
            ms => ms,
        };
        Self {
            server,
            endpoints: endpoints.into_iter().collect(),
            succeeds: &bid.succeeds,
            lease_ms: signed(spans.lease_ms),
            free_ms: signed(spans.free_ms),
            machine: text(&bid.machine),
            url: text(&bid.url),
            version: &bid.version,
            goes_on_ms: signed(abandoned_ms.saturating_add(ENDING_MS)),
        }
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.server,
            &self.endpoints,
            self.succeeds,
            &self.lease_ms,
            &self.free_ms,
            &self.machine,
            &self.url,
            &self.version,
            &self.goes_on_ms,
        ]
    }
}

/// What the answer to such a word says, of which these are the rows.
pub(super) async fn understood(
    client: &Client,
    server: &str,
    spans: Spans,
    bid: &Bid,
    rows: &[Row],
) -> Fallible<Shared> {
    let mut heard = Heard {
        shared: Shared::default(),
        taken: Vec::new(),
        ends_in_ms: u64::MAX,
    };
    for row in rows {
        heard.take_in(row)?;
    }
    if !heard.taken.is_empty() {
        // What its last holder noted before the charge passed on may have been too late for the statement
        // above.
        let rows = connect::rows(client, sql::WORKERS, &[&server, &heard.taken]).await?;
        for row in &rows {
            heard.take_in(row)?;
        }
    }
    Ok(heard.shared(bid, spans))
}

/// What the rows of an answer say.
struct Heard {
    shared: Shared,
    taken: Vec<String>,
    /// When the first charge of another server ends.
    ends_in_ms: u64,
}

impl Heard {
    fn take_in(&mut self, row: &Row) -> Result<(), StoreError> {
        let kind: &str = column(row, 0)?;
        if kind == "clock" {
            self.shared.at = time(column(row, 6)?);
            return Ok(());
        }
        let endpoint = endpoint_of(column(row, 1)?)?;
        if kind == "own" {
            self.shared.own.insert((endpoint, worker_of(row)?));
            return Ok(());
        }
        if kind == "taken" {
            self.taken.push(endpoint.as_str().to_owned());
        }
        let charge = self.shared.of.entry(endpoint).or_insert(Charge {
            holder: Holder::Nobody,
            elsewhere: Vec::new(),
        });
        match kind {
            "kept" | "taken" => {
                charge.holder = Holder::Here {
                    term: unsigned(row, 6)?,
                };
            }
            "there" => {
                let ends_in_ms: i64 = column(row, 6)?;
                // The statement saw this before it took what was over.
                if charge.holder == Holder::Nobody && ends_in_ms > 0 {
                    charge.holder = Holder::There(peer_of(row)?);
                    let ends_in_ms = ends_in_ms.unsigned_abs();
                    self.ends_in_ms = self.ends_in_ms.min(ends_in_ms);
                }
            }
            "worker" => {
                let worker = worker_of(row)?;
                if !charge.elsewhere.iter().any(|it| it.worker == worker) {
                    charge.elsewhere.push(Elsewhere {
                        worker,
                        server: peer_of(row)?,
                        since: time(column(row, 6)?),
                    });
                }
            }
            other => {
                let what = format!("an answer about charges says {other}");
                return Err(StoreError::Corrupt(what));
            }
        }
        Ok(())
    }

    fn shared(self, bid: &Bid, spans: Spans) -> Shared {
        let mut shared = self.shared;
        for endpoint in &bid.endpoints {
            shared.of.entry(endpoint.clone()).or_insert(Charge {
                holder: Holder::Nobody,
                elsewhere: Vec::new(),
            });
        }
        for charge in shared.of.values_mut() {
            charge.elsewhere.sort_by(|a, b| a.worker.cmp(&b.worker));
        }
        // What ends soon is taken at its end, if it does.
        shared.again_ms = self
            .ends_in_ms
            .saturating_add(1)
            .clamp(AGAIN_MS_MIN.min(spans.beat_ms), spans.beat_ms);
        shared.for_ms = spans.lease_ms.saturating_sub(spans.margin_ms);
        shared
    }
}

fn worker_of(row: &Row) -> Result<WorkerId, StoreError> {
    let name: &str = column(row, 2)?;
    name.parse()
        .map_err(|_| StoreError::Corrupt(format!("{name} is not a worker's name")))
}

fn peer_of(row: &Row) -> Result<Peer, StoreError> {
    Ok(Peer {
        name: column(row, 3)?,
        machine: column(row, 4)?,
        url: column(row, 5)?,
    })
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX / 4)
}

/// Shares out who is in charge of what.
pub(super) async fn charge(pool: &Pool, server: &str, spans: Spans, bid: &Bid) -> Fallible<Shared> {
    connect::in_time(pool, spans.patience(), async |client| {
        beat(client, server, spans, bid).await
    })
    .await
}

/// Notes a worker; false when this server is not in charge in that term.
pub(super) async fn enlist(
    pool: &Pool,
    server: &str,
    endpoint: &EndpointId,
    worker: &WorkerId,
    term: Option<u64>,
) -> Fallible<bool> {
    let (endpoint, worker) = (endpoint.as_str(), worker.as_str());
    let client = connect::client(pool).await?;
    let Some(term) = term else {
        let note = client.prepare_cached(sql::NOTE).await.map_err(failed)?;
        client
            .execute(&note, &[&endpoint, &worker, &server])
            .await
            .map_err(failed)?;
        return Ok(true);
    };
    let term = term.cast_signed();
    let enlist = client.prepare_cached(sql::ENLIST).await.map_err(failed)?;
    let enlisted = client
        .execute(&enlist, &[&endpoint, &worker, &server, &term])
        .await
        .map_err(failed)?;
    Ok(enlisted > 0)
}

/// Forgets a worker of this server.
pub(super) async fn unlist(
    pool: &Pool,
    server: &str,
    endpoint: &EndpointId,
    worker: &WorkerId,
) -> Fallible<()> {
    let client = connect::client(pool).await?;
    let forget = client.prepare_cached(sql::UNLIST).await.map_err(failed)?;
    let (endpoint, worker) = (endpoint.as_str(), worker.as_str());
    client
        .execute(&forget, &[&endpoint, &worker, &server])
        .await
        .map_err(failed)?;
    Ok(())
}

/// Gives everything back. A server whose workers are not all gone stays known for as long as they may go on.
pub(super) async fn leave(pool: &Pool, server: &str) -> Fallible<()> {
    let client = connect::client(pool).await?;
    let leave = client.prepare_cached(sql::LEAVE).await.map_err(failed)?;
    client.execute(&leave, &[&server]).await.map_err(failed)?;
    Ok(())
}
