//! What is known of endpoints beside their jobs, as rows.

use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{SqlRows, unavailable};
use crate::Release;
use crate::engine::Result;
use crate::texts::endpoint_of;

impl SqlRows {
    pub(super) fn select_release(
        &mut self,
        endpoint: &EndpointId,
    ) -> Result<Option<(Release, [u8; 32])>> {
        let read = |row: &Row<'_>| {
            let release = Release {
                number: row.get(0)?,
                since: Timestamp::from_ms(row.get(2)?),
            };
            Ok((release, row.get(1)?))
        };
        self.connection
            .prepare_cached(
                "SELECT number, fingerprint, released_at FROM endpoints
                 WHERE endpoint = ?1 AND number IS NOT NULL",
            )
            .and_then(|mut statement| statement.query_row([endpoint.as_str()], read).optional())
            .map_err(unavailable)
    }

    pub(super) fn write_release(
        &mut self,
        endpoint: &EndpointId,
        release: Release,
        fingerprint: &[u8; 32],
    ) -> Result<()> {
        let Release { number, since } = release;
        self.write(
            "INSERT INTO endpoints (endpoint, number, fingerprint, released_at)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (endpoint) DO UPDATE SET number = excluded.number,
                 fingerprint = excluded.fingerprint, released_at = excluded.released_at",
            params![endpoint.as_str(), number, &fingerprint[..], since.as_ms()],
        )?;
        Ok(())
    }

    pub(super) fn write_override(
        &mut self,
        endpoint: &EndpointId,
        settings: Option<&str>,
    ) -> Result<()> {
        self.write(
            "INSERT INTO endpoints (endpoint, settings) VALUES (?1, ?2)
             ON CONFLICT (endpoint) DO UPDATE SET settings = excluded.settings",
            params![endpoint.as_str(), settings],
        )?;
        Ok(())
    }
}

pub(in crate::sqlite) fn overrides(connection: &Connection) -> Result<Vec<(EndpointId, String)>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT endpoint, settings FROM endpoints WHERE settings IS NOT NULL ORDER BY endpoint",
        )
        .map_err(unavailable)?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .map_err(unavailable)?;
    rows.map(|row| {
        let (name, settings) = row.map_err(unavailable)?;
        Ok((endpoint_of(&name)?, settings))
    })
    .collect()
}
