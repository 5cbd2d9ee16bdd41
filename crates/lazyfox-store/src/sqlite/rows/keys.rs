//! Keys and counters as rows.

use lazyfox_core::id::EndpointId;
use lazyfox_core::job::Counter;
use lazyfox_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::{SqlRows, unavailable};
use crate::engine::Result;
use crate::texts::{self, endpoint_of};
use crate::{Access, Key, StoreError};

const COUNTERS: [(Counter, &str); 5] = [
    (Counter::Completed, "completed"),
    (Counter::Failed, "failed"),
    (Counter::Cancelled, "cancelled"),
    (Counter::TimedOut, "timed_out"),
    (Counter::Retried, "retried"),
];

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

impl SqlRows {
    pub(super) fn insert_key(&mut self, new: &Key) -> Result<()> {
        let endpoints = new.endpoints.as_deref().map(texts::endpoint_names);
        self.write(
            "INSERT INTO keys (id, label, hash, access, endpoints, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                new.id,
                new.label,
                new.hash,
                texts::access_name(new.access),
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
        key.access = texts::access_of(&access)?;
        let endpoints = endpoints.as_deref().map(texts::endpoints_of);
        key.endpoints = endpoints.transpose()?;
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
