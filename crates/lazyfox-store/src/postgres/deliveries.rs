//! Deliveries: as rows, in lists, and the choice of what is sent next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use deadpool_postgres::{Client, Pool};
use lazyfox_core::delivery::{State, Try};
use lazyfox_core::id::{DeliveryId, EndpointId};
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Traffic;
use tokio_postgres::Row;

use super::connect::{self, Failure};
use super::row::{Id, column, endpoint_of, job_of, plain, time, unsigned};
use super::sql;
use crate::engine::{DeliveryRow, OpenDeliveries, Result};
use crate::{
    Delivery, DeliveryPage, DeliveryQuery, Due, LIST_VISITS_MAX, Loaded, Outbox, Outgoing, Parts,
    StoreError, Webhook,
};

/// How long a server may take for a try that it has claimed. Longer than any try; when the server died,
/// another one makes it after this.
const CLAIM_MS: i64 = 30_000;
/// Open deliveries of one endpoint to one host that are looked at for one choice.
const LANE_MAX: i64 = 1_000;

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a delivery's {what} cannot be read"))
}

fn small(row: &Row, at: usize) -> Result<u32> {
    column::<i32>(row, at).map(i32::cast_unsigned)
}

pub(super) fn row_of(row: &Row) -> Result<DeliveryRow> {
    let created_at = time(column(row, 7)?);
    let due_at: Option<i64> = column(row, 8)?;
    let host: &str = column(row, 2)?;
    let seq: Option<i64> = column(row, 12)?;
    Ok(DeliveryRow {
        due: Due {
            number: unsigned(row, 0)?,
            endpoint: endpoint_of(column(row, 1)?)?,
            host: Arc::from(host),
            bytes: unsigned(row, 3)?,
            due_at: due_at.map_or(created_at, time),
        },
        seq: seq.ok_or_else(|| damaged("job"))?.cast_unsigned(),
        id: DeliveryId {
            job: column::<Id>(row, 4)?.job(),
            number: small(row, 5)?,
        },
        state: State::parse(column(row, 6)?).ok_or_else(|| damaged("state"))?,
        created_at,
        tries: small(row, 9)?,
        round: small(row, 10)?,
        keep_until: time(column(row, 11)?),
    })
}

/// Chooses what is to be sent now, and claims it for this server.
pub(super) async fn outbox(
    pool: &Pool,
    server: &str,
    traffic: Traffic,
    now: Timestamp,
) -> std::result::Result<Outbox, Failure> {
    let client = connect::client(pool).await?;
    let rows = connect::rows(&client, sql::OPEN_DELIVERIES, &[&LANE_MAX, &server]).await?;
    let mut open = OpenDeliveries::default();
    let mut hosts: HashSet<Arc<str>> = HashSet::new();
    for row in &rows {
        let name: &str = column(row, 1)?;
        let host = match hosts.get(name) {
            Some(known) => Arc::clone(known),
            None => {
                let host: Arc<str> = Arc::from(name);
                hosts.insert(Arc::clone(&host));
                host
            }
        };
        open.enter(&Due {
            endpoint: endpoint_of(column(row, 0)?)?,
            host,
            number: unsigned(row, 2)?,
            bytes: unsigned(row, 3)?,
            due_at: time(column(row, 4)?),
        });
    }
    let mut outbox = open.outbox(traffic, now);
    let mut chosen: BTreeMap<EndpointId, Vec<i64>> = BTreeMap::new();
    for due in outbox.due.iter().chain(&outbox.held) {
        let numbers = chosen.entry(due.endpoint.clone()).or_default();
        numbers.push(due.number.cast_signed());
    }
    let mut claimed: HashSet<u64> = HashSet::new();
    for (endpoint, numbers) in &chosen {
        claimed.extend(claim(&client, server, endpoint, numbers).await?);
    }
    outbox.due.retain(|due| claimed.contains(&due.number));
    outbox.held.retain(|due| claimed.contains(&due.number));
    Ok(outbox)
}

async fn claim(
    client: &Client,
    server: &str,
    endpoint: &EndpointId,
    numbers: &[i64],
) -> std::result::Result<Vec<u64>, Failure> {
    let rows = connect::rows(
        client,
        sql::CLAIM,
        &[&endpoint.as_str(), &numbers, &server, &CLAIM_MS],
    )
    .await?;
    let numbers = rows.iter().map(|row| unsigned(row, 0));
    Ok(numbers.collect::<Result<_>>()?)
}

/// Reads what a delivery sends, unless another server has it.
pub(super) async fn outgoing(
    pool: &Pool,
    server: &str,
    due: &Due,
    parts: Parts,
) -> std::result::Result<Option<Outgoing>, Failure> {
    const OWN: usize = sql::JOB_COLUMNS;
    let client = connect::client(pool).await?;
    let (on, number) = (due.endpoint.as_str(), due.number.cast_signed());
    let row = connect::row(
        &client,
        sql::OUTGOING,
        &[&on, &number, &parts.output, &parts.input, &server],
    )
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let job = job_of(&row)?.job;
    let url: Option<String> = column(&row, OWN)?;
    let output: Option<Vec<u8>> = column(&row, OWN + 3)?;
    let input: Option<Vec<u8>> = column(&row, OWN + 4)?;
    if parts.input && input.is_none() {
        let what = format!("the input of {} is missing", job.id);
        return Err(StoreError::Corrupt(what).into());
    }
    Ok(Some(Outgoing {
        id: DeliveryId {
            job: job.id,
            number: small(&row, OWN + 1)?,
        },
        url: url.ok_or_else(|| damaged("URL"))?,
        round: small(&row, OWN + 2)?,
        loaded: Loaded {
            job,
            output: output.map(Bytes::from),
            input: input.map(Bytes::from),
        },
    }))
}

/// A page of deliveries, the newest first.
pub(super) async fn list(
    pool: &Pool,
    query: &DeliveryQuery,
) -> std::result::Result<DeliveryPage, Failure> {
    let client = connect::client(pool).await?;
    let on = query.endpoint.as_str();
    let before = query
        .before
        .map_or(i64::MAX, |it| i64::try_from(it).unwrap_or(i64::MAX));
    let visits = i64::try_from(LIST_VISITS_MAX).unwrap_or(i64::MAX);
    let job = query.job.map(Id::from);
    let state = query.state.map(|state| state.as_str());
    let (from, to) = (query.created.start.as_ms(), query.created.end.as_ms());
    let limit = i64::try_from(query.limit.saturating_add(1)).unwrap_or(i64::MAX);
    let rows = connect::rows(
        &client,
        sql::LIST_DELIVERIES,
        &[&on, &before, &visits, &job, &state, &from, &to, &limit],
    )
    .await?;
    let mut found = Vec::new();
    for row in rows.iter().take(query.limit) {
        let url: Option<String> = column(row, 13)?;
        found.push((row_of(row)?, url.ok_or_else(|| damaged("URL"))?));
    }
    let next = if rows.len() > query.limit {
        found.last().map(|(row, _)| row.due.number)
    } else {
        let last = visits - 1;
        let end = connect::row(
            &client,
            sql::LIST_DELIVERIES_END,
            &[&on, &before, &last, &job],
        )
        .await?;
        end.map(|row| unsigned(&row, 0)).transpose()?
    };
    let mut tries = tries(&client, on, &found).await?;
    let deliveries = found.into_iter().map(|(row, url)| Delivery {
        tries: tries.remove(&row.due.number).unwrap_or_default(),
        id: row.id,
        state: row.state,
        webhook: Webhook {
            url,
            host: row.due.host.to_string(),
        },
        bytes: row.due.bytes,
        created_at: row.created_at,
        due_at: (row.state == State::Pending).then_some(row.due.due_at),
    });
    Ok(DeliveryPage {
        deliveries: deliveries.collect(),
        next,
    })
}

async fn tries(
    client: &Client,
    on: &str,
    of: &[(DeliveryRow, String)],
) -> std::result::Result<HashMap<u64, Vec<Try>>, Failure> {
    let numbers: Vec<i64> = of
        .iter()
        .map(|(row, _)| row.due.number.cast_signed())
        .collect();
    let rows = connect::rows(client, sql::TRIES, &[&on, &numbers]).await?;
    let mut tries: HashMap<u64, Vec<Try>> = HashMap::new();
    for row in &rows {
        let status: Option<i32> = column(row, 3)?;
        tries.entry(unsigned(row, 0)?).or_default().push(Try {
            at: time(column(row, 1)?),
            duration_ms: unsigned(row, 2)?,
            status: status.and_then(|status| u16::try_from(status).ok()),
            answer: column::<Option<String>>(row, 4)?.map(plain),
            error: column::<Option<String>>(row, 5)?.map(plain),
        });
    }
    Ok(tries)
}
