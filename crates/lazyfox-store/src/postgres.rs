//! The store of several servers: one PostgreSQL that all of them share.
//!
//! What an operation does is decided by the same engine that runs the embedded stores, on the rows that it
//! needs: they are read and locked, changed in memory, and written back ([`group`]). The order of the queue
//! and the deadlines are indexes of the database, since no server knows what another one does.

mod charges;
mod connect;
mod deliveries;
mod group;
mod lanes;
mod load;
mod moving;
mod partitions;
mod passes;
mod pipeline;
#[cfg(test)]
mod plans;
mod pulse;
mod read;
mod registers;
mod row;
mod schema;
mod set;
mod sql;
mod store;
mod surveys;
mod wire;
mod write;

use deadpool_postgres::Pool;
use lazyfox_core::id::{EndpointId, WorkerId};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

pub use self::charges::Spans;
use self::connect::failed;
pub use self::connect::{Access, Trust};
use self::group::Groups;
pub use self::moving::Holdings;
use self::pulse::Knowledge;
use self::read::Loads;
use self::row::{column, endpoint_of};
pub use self::schema::Format;
use self::surveys::Surveys;
use self::wire::Wire;
use crate::engine::Result;

/// Workers whose endpoints are remembered.
const WORKERS_KNOWN: usize = 50_000;

/// Keeps everything in a PostgreSQL database.
pub struct PostgresStore {
    pool: Pool,
    groups: Arc<Groups>,
    loads: Arc<Loads>,
    surveys: Surveys,
    wire: Arc<Wire>,
    knowledge: Arc<Knowledge>,
    /// Listens and speaks to the other servers.
    wired: tokio::task::JoinHandle<()>,
    looked_at: Mutex<Option<Instant>>,
    /// This server's name among those that share the database.
    server: String,
    spans: Spans,
    workers: Mutex<HashMap<WorkerId, KnownWorker>>,
}

/// Where a worker may hold jobs.
#[derive(Default)]
struct KnownWorker {
    on: BTreeSet<EndpointId>,
    /// Whether the database was asked.
    looked: bool,
}

impl PostgresStore {
    /// Opens the store; its tables are made where there are none. `server` is this server's name, unlike that
    /// of any other.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the database cannot be reached, or has tables of another format. The text
    /// says what to do.
    pub async fn open(access: &Access, server: String) -> Result<Self> {
        let pool = access.pool()?;
        let place = access.place();
        let format = schema::check(&pool, &place).await?;
        if format == Format::None {
            schema::migrate(&pool, &place).await?;
        }
        if let Some(refusal) = schema::refusal(format, &place) {
            return Err(refusal);
        }
        let (wire, knowledge) = (Arc::new(Wire::new()), Arc::new(Knowledge::default()));
        let wired = wire::run(Arc::clone(&wire), access.clone(), server.clone());
        let groups = Groups::new(pool.clone(), Arc::clone(&wire), Arc::clone(&knowledge));
        Ok(Self {
            groups: Arc::new(groups),
            loads: Arc::new(Loads::new(pool.clone())),
            surveys: Surveys::default(),
            wire,
            knowledge,
            wired: tokio::spawn(wired),
            looked_at: Mutex::default(),
            pool,
            server,
            spans: Spans::default(),
            workers: Mutex::default(),
        })
    }

    /// The same with other lengths of charges.
    #[must_use]
    pub fn with_spans(mut self, spans: Spans) -> Self {
        self.spans = spans;
        self
    }

    /// What the tables of a database are.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn check(access: &Access) -> Result<Format> {
        schema::check(&access.pool()?, &access.place()).await
    }

    /// Makes the tables of a database what this program knows.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub async fn migrate(access: &Access) -> Result<Format> {
        schema::migrate(&access.pool()?, &access.place()).await
    }

    /// The endpoints on which a worker may hold jobs.
    async fn endpoints_of(&self, worker: &WorkerId) -> Result<BTreeSet<EndpointId>> {
        {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = workers.get(worker)
                && known.looked
            {
                return Ok(known.on.clone());
            }
        }
        let name = worker.as_str();
        let found = connect::answer(|| {
            Box::pin(async {
                let client = connect::client(&self.pool).await?;
                let statement = client.prepare_cached(sql::HELD_ON).await.map_err(failed)?;
                let rows = client.query(&statement, &[&name]).await.map_err(failed)?;
                let endpoints = rows.iter().map(|row| endpoint_of(column(row, 0)?));
                Ok(endpoints.collect::<Result<BTreeSet<_>>>()?)
            })
        })
        .await?;
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if workers.len() >= WORKERS_KNOWN {
            workers.clear();
        }
        let known = workers.entry(worker.clone()).or_default();
        known.looked = true;
        known.on.extend(found);
        Ok(known.on.clone())
    }

    fn polls(&self, worker: &WorkerId, endpoint: &EndpointId) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = workers.get_mut(worker) {
            if !known.on.contains(endpoint) {
                known.on.insert(endpoint.clone());
            }
        } else {
            let known = workers.entry(worker.clone()).or_default();
            known.on.insert(endpoint.clone());
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.wired.abort();
    }
}
