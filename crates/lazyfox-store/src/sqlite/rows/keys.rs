//! Keys and counters as rows.

use lazyfox_core::id::EndpointId;
use lazyfox_core::job::Counter;
use lazyfox_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::{SqlRows, unavailable};
use crate::engine::Result;
use crate::{Access, Key, StoreError};

const ACCESS: [(Access, &str); 3] = [
    (Access::Admin, "admin"),
    (Access::ReadWrite, "read-write"),
    (Access::ReadOnly, "read-only"),
];

const COUNTERS: [(Counter, &str); 5] = [
    (Counter::Completed, "completed"),
    (Counter::Failed, "failed"),
    (Counter::Cancelled, "cancelled"),
    (Counter::TimedOut, "timed_out"),
    (Counter::Retried, "retried"),
];

fn access_name(access: Access) -> &'static str {
    match access {
        Access::Admin => "admin",
        Access::ReadWrite => "read-write",
        Access::ReadOnly => "read-only",
    }
}

pub(super) fn counter_name(counter: Counter) -> &'static str {
    match counter {
        Counter::Completed => "completed",
        Counter::Failed => "failed",
        Counter::Cancelled => "cancelled",
        Counter::TimedOut => "timed_out",
        Counter::Retried => "retried",
    }
}

fn named<T: Copy>(table: &[(T, &str)], name: &str) -> Result<T> {
    let found = table.iter().find(|(_, text)| *text == name);
    found
        .map(|(value, _)| *value)
        .ok_or_else(|| StoreError::Corrupt(format!("unknown name {name}")))
}

pub(super) fn endpoint_of(name: &str) -> Result<EndpointId> {
    name.parse()
        .map_err(|_| StoreError::Corrupt(format!("{name} is not an endpoint's name")))
}

impl SqlRows {
    pub(super) fn insert_key(&mut self, new: &Key) -> Result<()> {
        let endpoints = new.endpoints.as_ref().map(|all| {
            all.iter()
                .map(EndpointId::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        });
        self.write(
            "INSERT INTO keys (id, label, hash, access, endpoints, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                new.id,
                new.label,
                new.hash,
                access_name(new.access),
                endpoints,
                new.created_at.as_ms()
            ],
        )?;
        Ok(())
    }

    pub(super) fn write_revocation(&mut self, id: &str, now: Timestamp) -> Result<bool> {
        let changed = self.write(
            "UPDATE keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
            params![id, now.as_ms()],
        )?;
        Ok(changed > 0)
    }
}

pub(in crate::sqlite) fn keys(connection: &Connection) -> Result<Vec<Key>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT id, label, hash, access, endpoints, created_at, revoked_at FROM keys
             ORDER BY created_at, id",
        )
        .map_err(unavailable)?;
    let mut rows = statement.query([]).map_err(unavailable)?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().map_err(unavailable)? {
        let read = || -> rusqlite::Result<_> {
            let access: String = row.get(3)?;
            let endpoints: Option<String> = row.get(4)?;
            let key = Key {
                id: row.get(0)?,
                label: row.get(1)?,
                hash: row.get(2)?,
                access: Access::ReadOnly,
                endpoints: None,
                created_at: Timestamp::from_ms(row.get(5)?),
                revoked_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_ms),
            };
            Ok((key, access, endpoints))
        };
        let (mut key, access, endpoints) = read().map_err(unavailable)?;
        key.access = named(&ACCESS, &access)?;
        key.endpoints = endpoints
            .map(|names| {
                names
                    .split_whitespace()
                    .map(endpoint_of)
                    .collect::<Result<_>>()
            })
            .transpose()?;
        keys.push(key);
    }
    Ok(keys)
}

pub(super) fn counters(connection: &Connection) -> Result<Vec<(EndpointId, Counter, u64)>> {
    let mut statement = connection
        .prepare_cached("SELECT endpoint, counter, value FROM counters")
        .map_err(unavailable)?;
    let mut rows = statement.query([]).map_err(unavailable)?;
    let mut counters = Vec::new();
    while let Some(row) = rows.next().map_err(unavailable)? {
        let read = || -> rusqlite::Result<(String, String, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        };
        let (name, counter, value) = read().map_err(unavailable)?;
        counters.push((
            endpoint_of(&name)?,
            named(&COUNTERS, &counter)?,
            value.cast_unsigned(),
        ));
    }
    Ok(counters)
}
