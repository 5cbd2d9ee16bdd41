//! What is kept beside jobs and deliveries: secrets, releases, changed settings, keys.

use deadpool_postgres::Pool;
use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use tokio_postgres::Row;

use super::connect::{self, Failure, failed};
use super::row::{column, endpoint_of, plain, text, time};
use crate::engine::next_release;
use crate::texts;
use crate::{Key, Release, StoreError, WebhookSecret};

type Fallible<T> = Result<T, Failure>;

/// Whether the servers of this database know a key by this hash. The first that comes says by which.
pub(super) async fn is_server_key(pool: &Pool, hash: &[u8; 32]) -> Fallible<bool> {
    const FIRST: &str = "INSERT INTO lazyfox.server_key (hash) VALUES ($1) ON CONFLICT DO NOTHING";
    const KNOWN: &str = "SELECT hash = $1 FROM lazyfox.server_key";
    let client = connect::client(pool).await?;
    connect::rows(&client, FIRST, &[&hash.as_slice()]).await?;
    let rows = connect::rows(&client, KNOWN, &[&hash.as_slice()]).await?;
    Ok(rows.first().map_or(Ok(false), |row| column(row, 0))?)
}

/// The newest first.
pub(super) async fn secrets(pool: &Pool, endpoint: &EndpointId) -> Fallible<Vec<WebhookSecret>> {
    const SQL: &str = "SELECT id, secret, created_at, valid_until FROM lazyfox.webhook_secrets
        WHERE endpoint = $1 ORDER BY valid_until IS NULL DESC, created_at DESC";
    let client = connect::client(pool).await?;
    let rows = connect::rows(&client, SQL, &[&endpoint.as_str()]).await?;
    let secret = |row: &Row| -> Result<WebhookSecret, StoreError> {
        Ok(WebhookSecret {
            id: column(row, 0)?,
            sealed: column(row, 1)?,
            created_at: time(column(row, 2)?),
            valid_until: column::<Option<i64>>(row, 3)?.map(time),
        })
    };
    Ok(rows.iter().map(secret).collect::<Result<_, _>>()?)
}

pub(super) async fn add_secret(
    pool: &Pool,
    endpoint: &EndpointId,
    secret: &WebhookSecret,
    previous_until: Timestamp,
) -> Fallible<()> {
    let on = endpoint.as_str();
    let mut client = connect::client(pool).await?;
    let transaction = client.transaction().await.map_err(failed)?;
    // When the answer to the commit was lost, it is there already.
    let there = "SELECT 1 FROM lazyfox.webhook_secrets WHERE endpoint = $1 AND id = $2";
    let there = transaction
        .query_opt(there, &[&on, &secret.id])
        .await
        .map_err(failed)?;
    if there.is_some() {
        return Ok(());
    }
    let forget = "DELETE FROM lazyfox.webhook_secrets
        WHERE endpoint = $1 AND valid_until IS NOT NULL";
    transaction.execute(forget, &[&on]).await.map_err(failed)?;
    let end = "UPDATE lazyfox.webhook_secrets SET valid_until = $2 WHERE endpoint = $1";
    transaction
        .execute(end, &[&on, &previous_until.as_ms()])
        .await
        .map_err(failed)?;
    let add = "INSERT INTO lazyfox.webhook_secrets (endpoint, id, secret, created_at)
        VALUES ($1, $2, $3, $4)";
    transaction
        .execute(
            add,
            &[&on, &secret.id, &secret.sealed, &secret.created_at.as_ms()],
        )
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

pub(super) async fn release(
    pool: &Pool,
    endpoint: &EndpointId,
    fingerprint: &[u8; 32],
    now: Timestamp,
) -> Fallible<Release> {
    let on = endpoint.as_str();
    let mut client = connect::client(pool).await?;
    let transaction = client.transaction().await.map_err(failed)?;
    let row = "INSERT INTO lazyfox.endpoints (endpoint) VALUES ($1) ON CONFLICT DO NOTHING";
    transaction.execute(row, &[&on]).await.map_err(failed)?;
    let latest = "SELECT number, fingerprint, released_at FROM lazyfox.endpoints
        WHERE endpoint = $1 FOR UPDATE";
    let row = transaction
        .query_one(latest, &[&on])
        .await
        .map_err(failed)?;
    let latest = match column::<Option<i64>>(&row, 0)? {
        None => None,
        Some(number) => {
            let damaged = || StoreError::Corrupt("a release cannot be read".to_owned());
            let known_by: Vec<u8> = column(&row, 1)?;
            let release = Release {
                number: u32::try_from(number).map_err(|_| damaged())?,
                since: time(column(&row, 2)?),
            };
            Some((release, known_by.try_into().map_err(|_| damaged())?))
        }
    };
    let release = next_release(latest, fingerprint, now);
    if latest.is_none_or(|(before, _)| before != release) {
        let set = "UPDATE lazyfox.endpoints SET number = $2, fingerprint = $3, released_at = $4
            WHERE endpoint = $1";
        let (number, since) = (i64::from(release.number), release.since.as_ms());
        transaction
            .execute(set, &[&on, &number, &&fingerprint[..], &since])
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(release)
}

pub(super) async fn set_override(
    pool: &Pool,
    endpoint: &EndpointId,
    settings: Option<&str>,
) -> Fallible<()> {
    const SQL: &str = "INSERT INTO lazyfox.endpoints (endpoint, settings) VALUES ($1, $2)
        ON CONFLICT (endpoint) DO UPDATE SET settings = excluded.settings";
    let client = connect::client(pool).await?;
    let settings = settings.map(text);
    client
        .execute(SQL, &[&endpoint.as_str(), &settings])
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn overrides(pool: &Pool) -> Fallible<Vec<(EndpointId, String)>> {
    const SQL: &str = "SELECT endpoint, settings FROM lazyfox.endpoints
        WHERE settings IS NOT NULL ORDER BY endpoint";
    let client = connect::client(pool).await?;
    let rows = connect::rows(&client, SQL, &[]).await?;
    let of = |row: &Row| -> Result<(EndpointId, String), StoreError> {
        Ok((endpoint_of(column(row, 0)?)?, plain(column(row, 1)?)))
    };
    Ok(rows.iter().map(of).collect::<Result<_, _>>()?)
}

/// The oldest first.
pub(super) async fn keys(pool: &Pool) -> Fallible<Vec<Key>> {
    const SQL: &str = "SELECT id, label, hash, access, endpoints, created_at, revoked_at
        FROM lazyfox.keys ORDER BY created_at, id";
    let client = connect::client(pool).await?;
    let rows = connect::rows(&client, SQL, &[]).await?;
    Ok(rows.iter().map(key_of).collect::<Result<_, _>>()?)
}

pub(super) fn key_of(row: &Row) -> Result<Key, StoreError> {
    let damaged = || StoreError::Corrupt("a key cannot be read".to_owned());
    let hash: Vec<u8> = column(row, 2)?;
    let access: &str = column(row, 3)?;
    let endpoints: Option<String> = column(row, 4)?;
    let endpoints = endpoints.as_deref().map(texts::endpoints_of);
    Ok(Key {
        id: column(row, 0)?,
        label: plain(column(row, 1)?),
        hash: hash.try_into().map_err(|_| damaged())?,
        access: texts::access_of(access)?,
        endpoints: endpoints.transpose()?,
        created_at: time(column(row, 5)?),
        revoked_at: column::<Option<i64>>(row, 6)?.map(time),
    })
}

pub(super) async fn add_key(pool: &Pool, key: &Key) -> Fallible<()> {
    // When the answer to the commit was lost, it is there already.
    const SQL: &str = "INSERT INTO lazyfox.keys (id, label, hash, access, endpoints, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
    let names = key.endpoints.as_deref().map(texts::endpoint_names);
    let client = connect::client(pool).await?;
    client
        .execute(
            SQL,
            &[
                &key.id,
                &text(&key.label),
                &&key.hash[..],
                &texts::access_name(key.access),
                &names,
                &key.created_at.as_ms(),
            ],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) async fn revoke_key(pool: &Pool, id: &str, now: Timestamp) -> Fallible<bool> {
    const SQL: &str = "UPDATE lazyfox.keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1";
    let client = connect::client(pool).await?;
    let changed = client
        .execute(SQL, &[&id, &now.as_ms()])
        .await
        .map_err(failed)?;
    Ok(changed > 0)
}
