//! The store of several servers: one PostgreSQL that all of them share.
//!
//! What an operation does is decided by the same engine that runs the embedded stores, on the rows that
//! it needs: they are read and locked, changed in memory, and written back ([`group`]). The order of the
//! queue and the deadlines are indexes of the database, since no server knows what another one does.

mod charges;
mod connect;
mod deliveries;
mod floors;
mod group;
mod hosts;
mod lanes;
mod load;
mod moving;
mod partitions;
mod passes;
mod pipeline;
#[cfg(test)]
mod plans;
mod presence;
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
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::time::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

pub use self::charges::Spans;
use self::connect::Failure;
pub use self::connect::{Access, Trust};
use self::floors::Floors;
use self::group::{Groups, Plan};
use self::load::Needs;
pub use self::moving::Holdings;
use self::pulse::Knowledge;
pub use self::pulse::Looks;
use self::read::Loads;
use self::row::{column, endpoint_of};
pub use self::schema::Format;
use self::set::Set;
use self::surveys::Surveys;
use self::wire::Wire;
use crate::engine::{Engine, Result};
use crate::work::work_then;
use crate::{Answer, Ask, Drained, Leased, NewJob, Submitted};

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
    floors: Arc<Floors>,
    /// Listens and speaks to the other servers.
    wired: tokio::task::JoinHandle<()>,
    looked_at: Mutex<Option<Instant>>,
    /// This server's name among those that share the database.
    server: String,
    spans: Spans,
    looks: Looks,
    workers: Mutex<HashMap<WorkerId, KnownWorker>>,
    /// What this server has to say about itself with the next look.
    word: Mutex<Option<presence::Said>>,
    /// Held while it is said, and past the patience of whoever said it: what is on its way to the
    /// database has arrived before anything else is said.
    saying: Arc<tokio::sync::Mutex<()>>,
}

/// What is wrong where connections are no sessions.
const SESSIONS_LENT: &str = "several connections are one session there, as behind PgBouncer with \
    pool_mode = transaction or statement; set pool_mode = session";

type Fallible<T> = std::result::Result<T, Failure>;

/// A worker that polls at one server may take a job from another at the same moment, whose clock may
/// differ. A poll that knows nothing of such a job takes nothing from it; what keeps a job or ends it
/// looks further back.
const POLL_LATE_MS: i64 = 500;

/// Where a worker may hold jobs.
#[derive(Default)]
struct KnownWorker {
    on: BTreeSet<EndpointId>,
    /// What it took before this it does not hold any more, as its latest poll found. Only where it is on
    /// one endpoint.
    holds_since: Option<Timestamp>,
    /// Whether the database was asked.
    looked: bool,
}

impl PostgresStore {
    /// Opens the store; its tables are made where there are none. `server` is this server's name, unlike
    /// that of any other.
    ///
    /// # Errors [`StoreError::Open`] when the database cannot be reached, or has tables of another
    /// format. The text says what to do.
    pub async fn open(access: &Access, server: String) -> Result<Self> {
        let pool = access.pool()?;
        let place = access.place();
        let lent = connect::again(&pool, || Box::pin(connect::sessions_are_lent(&pool))).await;
        if lent.map_err(|failure| schema::explain(&place, failure))? {
            return Err(schema::open_error(&place, SESSIONS_LENT));
        }
        let format = schema::check(&pool, &place).await?;
        if format == Format::None {
            schema::migrate(&pool, &place, &[]).await?;
        }
        if let Some(refusal) = schema::refusal(format, &place) {
            return Err(refusal);
        }
        let floors = Arc::new(Floors::default());
        let wire = Arc::new(Wire::new(Arc::clone(&floors)));
        let knowledge = Arc::new(Knowledge::default());
        let wired = wire::run(Arc::clone(&wire), access.clone(), server.clone());
        let groups = Groups::new(
            pool.clone(),
            Arc::clone(&wire),
            Arc::clone(&knowledge),
            Arc::clone(&floors),
        );
        Ok(Self {
            groups: Arc::new(groups),
            loads: Arc::new(Loads::new(pool.clone())),
            surveys: Surveys::default(),
            wire,
            knowledge,
            floors,
            wired: tokio::spawn(wired),
            looked_at: Mutex::default(),
            pool,
            server,
            spans: Spans::default(),
            looks: Looks::default(),
            workers: Mutex::default(),
            word: Mutex::default(),
            saying: Arc::default(),
        })
    }

    /// The same with other lengths of charges.
    #[must_use]
    pub fn with_spans(mut self, spans: Spans) -> Self {
        self.spans = spans;
        self
    }

    /// The same with other times between looks.
    #[must_use]
    pub fn with_looks(mut self, looks: Looks) -> Self {
        self.looks = looks;
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
        Self::migrate_further(access, &[]).await
    }

    /// The same with the steps of a release that is still to come, for tests.
    #[doc(hidden)]
    pub async fn migrate_further(access: &Access, later: &[&str]) -> Result<Format> {
        schema::migrate(&access.pool()?, &access.place(), later).await
    }

    /// Whether this is the hash of the key that the servers of this database have in common. The first that
    /// asks has the right one.
    ///
    /// # Errors
    /// When the database cannot answer.
    pub async fn is_server_key(&self, hash: &[u8; 32]) -> Result<bool> {
        let known = || Box::pin(registers::is_server_key(&self.pool, hash)) as _;
        connect::answer(&self.pool, known).await
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
        let found = connect::answer(&self.pool, || {
            Box::pin(async {
                let client = connect::client(&self.pool).await?;
                let rows = connect::rows(&client, sql::HELD_ON, &[&name]).await?;
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
        known.on.extend(found);
        // Of a worker that only other servers have seen so far nothing is known for good.
        known.looked = !known.on.is_empty();
        Ok(known.on.clone())
    }

    /// Since when a worker may have taken what it holds, less so much.
    fn holds_since(&self, worker: &WorkerId, less_ms: u64) -> Timestamp {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = workers.get(worker).filter(|known| known.on.len() == 1);
        let since = known.and_then(|known| known.holds_since);
        since.map_or(Timestamp::from_ms(i64::MIN), |since| {
            Timestamp::from_ms(since.as_ms().saturating_sub(less_ms.cast_signed()))
        })
    }

    fn found_held(&self, worker: &WorkerId, since: Timestamp) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = workers.get_mut(worker) {
            known.holds_since = Some(since);
        }
    }

    /// Keeps a new job.
    fn take_in(&self, new: NewJob) -> Answer<'_, Submitted> {
        let mut needs = Needs::default();
        needs
            .keys
            .extend(new.idempotency.iter().map(|it| it.key.clone()));
        let plan = Plan {
            needs,
            again: Needs::job(new.job.id),
            bytes: new.input.len(),
            submits: true,
        };
        let (id, endpoint) = (new.job.id, new.job.endpoint.clone());
        let asked = work_then(
            move |engine: &mut Engine<Set>| {
                // A commit whose answer was lost.
                if engine.knows(new.job.id) {
                    return Ok(Submitted::Accepted { taken: false });
                }
                engine.submit(&new)
            },
            move |engine, submitted| engine.submitted(id, submitted),
        );
        self.groups.ask(&endpoint, plan, asked)
    }

    /// Gives a worker what waits, and takes from it what it does not know of.
    fn hand_out(&self, ask: Ask, now: Timestamp) -> Answer<'_, Leased> {
        self.speaks(&ask.worker, &ask.endpoint);
        let mut needs = Needs {
            heads: ask.most(),
            ..Needs::default()
        };
        let disowns = ask.disowns_before.is_some();
        if disowns {
            let since = self.holds_since(&ask.worker, 0);
            needs.held.insert(ask.worker.clone(), since);
            needs.held_on.insert(ask.endpoint.clone());
        }
        let (endpoint, worker) = (ask.endpoint.clone(), ask.worker.clone());
        let mut plan = Plan::of(needs);
        plan.again.taken.insert((ask.worker.clone(), now));
        // What the try before gave, which may have been committed although no answer came.
        let given = Mutex::new(Vec::new());
        let leased = self.groups.call(&endpoint, plan, move |engine| {
            let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
            let handouts = engine.rows.given(&ask.worker, now, &given);
            let leased = if handouts.is_empty() {
                engine.lease(&ask, now)?
            } else {
                Leased {
                    handouts,
                    lost: Vec::new(),
                }
            };
            *given = leased.handouts.iter().map(|it| it.job.id).collect();
            Ok((leased, engine.rows.held_since(&ask.worker)))
        });
        Box::pin(async move {
            let (leased, since) = leased.await?;
            if disowns {
                let none = now.as_ms().saturating_sub(POLL_LATE_MS);
                let since = since.map_or(none, |since| since.as_ms().min(none));
                self.found_held(&worker, Timestamp::from_ms(since));
            }
            Ok(leased)
        })
    }

    /// Takes chunks off a stream.
    fn take_off(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        bytes_max: usize,
    ) -> Answer<'_, Option<Drained>> {
        let mut needs = Needs::job(job);
        needs.chunks.insert(job.into(), bytes_max.max(1));
        let on = endpoint.clone();
        // What the try before took, which may have been committed although no answer came: it is gone then.
        // Should somebody else have taken it in these seconds, both have it, which is better than nobody.
        let taken = Mutex::new(None);
        self.groups.call(endpoint, Plan::of(needs), move |engine| {
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((through, drained)) = &*taken
                && engine.rows.unanswered
                && !engine.rows.has_chunks_through(job, *through)
            {
                return Ok(Some(Drained::clone(drained)));
            }
            let drained = engine.drain(&on, job, bytes_max)?;
            *taken = engine.rows.taken_through(job).zip(drained.clone());
            Ok(drained)
        })
    }

    /// Notes that a worker speaks for an endpoint.
    fn speaks(&self, worker: &WorkerId, endpoint: &EndpointId) {
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
