//! Reads beside the writer, each over a connection of its own, which sees all that is committed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use lazyfox_core::id::{EndpointId, JobId};
use rusqlite::Connection;

use super::{files, rows};
use crate::engine::Result;
use crate::{
    DeliveryPage, DeliveryQuery, Due, Key, Loaded, Outgoing, Page, Parts, Query, StoreError,
    WebhookSecret,
};

/// Two for the cores of a small machine, and as many again for long lists.
const CONNECTIONS: usize = 4;

/// Lists at once. A list may read for a while, and a connection must be left for who waits for one job.
const LISTS: usize = 2;
const _: () = assert!(LISTS < CONNECTIONS);

/// Payloads up to this size are read on the caller's thread: with the page in memory that takes less
/// than handing the work to another thread and back.
const IN_PLACE_BYTES: usize = 64 * 1024;

pub(super) struct Readers {
    pool: Arc<Pool>,
    lists: tokio::sync::Semaphore,
}

struct Pool {
    idle: Mutex<Vec<Connection>>,
    returned: tokio::sync::Semaphore,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let idle = (0..CONNECTIONS)
            .map(|_| files::connect_reader(path))
            .collect::<Result<Vec<_>>>()?;
        let returned = tokio::sync::Semaphore::new(CONNECTIONS);
        Ok(Self {
            pool: Arc::new(Pool {
                idle: Mutex::new(idle),
                returned,
            }),
            lists: tokio::sync::Semaphore::new(LISTS),
        })
    }

    pub(super) async fn load(
        &self,
        endpoint: EndpointId,
        job: JobId,
        parts: Parts,
    ) -> Result<Option<Loaded>> {
        if !parts.input {
            let small = self
                .pool
                .with(|connection| rows::load(connection, &endpoint, job, parts, IN_PLACE_BYTES))
                .await?;
            if let rows::Load::Done(loaded) = small {
                return Ok(loaded.map(|loaded| *loaded));
            }
        }
        self.elsewhere(move |connection| {
            match rows::load(connection, &endpoint, job, parts, usize::MAX)? {
                rows::Load::Done(loaded) => Ok(loaded.map(|loaded| *loaded)),
                rows::Load::TooLarge => {
                    Err(StoreError::Corrupt("an output has no size".to_owned()))
                }
            }
        })
        .await
    }

    pub(super) async fn list(&self, query: Query) -> Result<Page> {
        let closed = |_| StoreError::Unavailable("the store is shut down".to_owned());
        let _turn = self.lists.acquire().await.map_err(closed)?;
        self.elsewhere(move |connection| rows::list(connection, &query))
            .await
    }

    pub(super) async fn outgoing(&self, due: &Due, parts: Parts) -> Result<Option<Outgoing>> {
        let number = due.number;
        if due.bytes <= IN_PLACE_BYTES as u64 {
            return self
                .pool
                .with(|connection| rows::outgoing(connection, number, parts))
                .await;
        }
        self.elsewhere(move |connection| rows::outgoing(connection, number, parts))
            .await
    }

    pub(super) async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage> {
        let closed = |_| StoreError::Unavailable("the store is shut down".to_owned());
        let _turn = self.lists.acquire().await.map_err(closed)?;
        self.elsewhere(move |connection| rows::deliveries(connection, &query))
            .await
    }

    pub(super) async fn webhook_secrets(&self, endpoint: EndpointId) -> Result<Vec<WebhookSecret>> {
        self.pool
            .with(|connection| rows::webhook_secrets(connection, &endpoint))
            .await
    }

    pub(super) async fn overrides(&self) -> Result<Vec<(EndpointId, String)>> {
        self.pool.with(rows::overrides).await
    }

    pub(super) async fn keys(&self) -> Result<Vec<Key>> {
        self.pool.with(rows::keys).await
    }

    async fn elsewhere<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pool = Arc::clone(&self.pool);
        let handle = tokio::runtime::Handle::current();
        let joined = tokio::task::spawn_blocking(move || handle.block_on(pool.with(read))).await;
        joined.map_err(|e| StoreError::Unavailable(format!("a read was cut off: {e}")))?
    }
}

impl Pool {
    async fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let closed = || StoreError::Unavailable("the store is shut down".to_owned());
        let _permit = self.returned.acquire().await.map_err(|_| closed())?;
        let connection = self.idle().pop().ok_or_else(closed)?;
        let result = read(&connection);
        self.idle().push(connection);
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
