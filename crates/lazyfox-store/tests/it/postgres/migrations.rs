//! Tables that are changed while others use them.

use lazyfox_store::StoreError;
use lazyfox_store::postgres::{Access, Format, PostgresStore, Trust};
use tokio::task::JoinHandle;

use crate::world::*;

const LATER: &str = "
    ALTER TABLE lazyfox.jobs ADD COLUMN later text;
    ALTER TABLE lazyfox.inputs ADD COLUMN later text;";

/// Begins to migrate, and waits until a lock on this table is waited for.
async fn migrating(url: &str, held: &str) -> JoinHandle<Result<Format, StoreError>> {
    let access = Access::parse(url, None, Trust::System, 4).unwrap();
    let migrating =
        tokio::spawn(async move { PostgresStore::migrate_further(&access, &[LATER]).await });
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND relation = 'lazyfox.{held}'::regclass"
    );
    while lazyfox_testing::shared().psql(url, &waits) == "0" {
        tokio::task::yield_now().await;
    }
    migrating
}

/// A dump that takes long holds such a lock.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_behind_a_migration_that_waits() {
    let url = lazyfox_testing::shared().database();
    let store = postgres_at(&url).await;
    let dump = session(&url, "BEGIN; LOCK TABLE lazyfox.jobs IN ACCESS SHARE MODE").await;
    let migrating = migrating(&url, "jobs").await;
    submit(&store, job(1)).await;
    assert!(!migrating.is_finished());
    dump.batch_execute("COMMIT").await.unwrap();
    let format = migrating.await.unwrap();
    assert_eq!(format, Ok(Format::NewerUsable(Format::KNOWN + 1)));
    assert_eq!(take(&store, "w", 1, 1).await, [id(1)]);
}

/// As a server does whose operation has begun with a table that the migration changes later.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_each_others_way_with_a_migration_goes_first() {
    let url = lazyfox_testing::shared().database();
    drop(postgres_at(&url).await);
    let other = session(&url, "BEGIN; LOCK TABLE lazyfox.inputs IN ROW SHARE MODE").await;
    let migrating = migrating(&url, "inputs").await;
    let locked = other.batch_execute("LOCK TABLE lazyfox.jobs IN ROW SHARE MODE; COMMIT");
    locked.await.unwrap();
    let format = migrating.await.unwrap();
    assert_eq!(format, Ok(Format::NewerUsable(Format::KNOWN + 1)));
}
