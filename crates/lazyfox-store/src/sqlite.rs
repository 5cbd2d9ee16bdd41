//! The embedded store: one SQLite database that one server owns.
//!
//! WAL with `synchronous=FULL`: a commit is on disk before its callers are answered. One writer thread
//! commits groups ([`writer`]); reads go beside it over connections of their own ([`readers`]).

mod files;
mod moving;
mod readers;
mod rows;
mod writer;

use std::path::Path;

use bytes::Bytes;
use lazyfox_core::id::{DeliveryId, EndpointId, JobId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Traffic;

use self::files::Held;
pub use self::moving::Holdings;
use self::readers::Readers;
use self::rows::SqlRows;
use self::writer::Writer;
use crate::engine::Registers as _;
use crate::work::work_then;
use crate::{
    Answer, Applied, Ask, Bid, Change, Charges, ChunksKept, DeliveryPage, DeliveryQuery, Drained,
    Due, Expired, Heartbeat, HolderEvent, Key, LeaseMs, Leased, Loaded, NewJob, Outbox, Outgoing,
    Page, Parts, Place, Purged, Query, Redelivery, Release, Renewed, Settlement, Store, StoreError,
    Submitted, Survey, WebhookSecret,
};

/// The database's name within the data directory.
pub const DATABASE: &str = "lazyfox.db";

/// Keeps everything in a SQLite database.
pub struct SqliteStore {
    /// Before the writer: the last connection to close removes the WAL, and these cannot write.
    readers: Readers,
    writer: Writer,
    /// Last: the lock is let go when nothing of this store touches the files any more.
    _held: Held,
}

impl SqliteStore {
    /// Opens the store of a data directory, making both when they are missing.
    ///
    /// # Errors
    /// [`StoreError::Open`] when another server has it, when it cannot be read or written, when
    /// it is damaged or of a newer format. The text says what to do.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, StoreError> {
        Self::open_with_leases(dir, now, crate::default_lease())
    }

    /// The same, where endpoints grant leases of their own length.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_with_leases(
        dir: &Path,
        now: Timestamp,
        lease_ms: LeaseMs,
    ) -> Result<Self, StoreError> {
        let held = files::hold(dir)?;
        let path = dir.join(DATABASE);
        let mut rows = SqlRows::new(files::connect(dir)?);
        let waits_ended = rows.end_waits();
        let writer = waits_ended.and_then(|()| Writer::start(rows, now, lease_ms));
        let writer = writer.map_err(|e| files::explain_start(&path, e))?;
        let readers = Readers::open(&path)?;
        Ok(Self {
            readers,
            writer,
            _held: held,
        })
    }
}

/// The API keys of a data directory, read and written beside a server that may be running:
/// `lazyfox key` works without asking it.
pub struct KeyFile {
    rows: SqlRows,
}

impl KeyFile {
    /// Opens the store's database, making it when it is missing.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], but another server is no hindrance.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        files::make_dir(dir)?;
        Ok(Self {
            rows: SqlRows::new(files::connect_for_keys(dir)?),
        })
    }

    /// All keys, revoked ones too.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn keys(&mut self) -> Result<Vec<Key>, StoreError> {
        self.rows.keys()
    }

    /// Keeps a new key.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add(&mut self, key: &Key) -> Result<(), StoreError> {
        self.write(|rows| rows.add_key(key))
    }

    /// Revokes a key; false when there is none of that id.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn revoke(&mut self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.write(|rows| rows.revoke_key(id, now))
    }

    fn write<T>(
        &mut self,
        run: impl FnOnce(&mut SqlRows) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = run(&mut self.rows).and_then(|done| {
            self.rows.commit()?;
            Ok(done)
        });
        if result.is_err() {
            // The server beside this would wait for a lock that nobody needs.
            self.rows.rollback();
        }
        result
    }
}

impl Store for SqliteStore {
    fn submit(&self, new: NewJob, now: Timestamp) -> Answer<'_, Submitted> {
        let (id, bytes) = (new.job.id, new.input.len());
        let asked = work_then(
            move |engine| engine.submit(&new),
            move |engine, submitted| engine.submitted(id, submitted),
        );
        self.writer.ask(Some(now), bytes, asked)
    }

    fn lease(&self, ask: Ask, now: Timestamp) -> Answer<'_, Leased> {
        self.writer
            .call(Some(now), 0, move |engine| engine.lease(&ask, now))
    }

    fn apply(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        event: Event,
        output: Option<Bytes>,
        now: Timestamp,
    ) -> Answer<'_, Applied> {
        let endpoint = endpoint.clone();
        let bytes = output.as_ref().map_or(0, Bytes::len);
        self.writer.call(Some(now), bytes, move |engine| {
            engine.apply(&endpoint, job, event.clone(), output.as_ref(), now)
        })
    }

    fn expire(&self, now: Timestamp, limit: usize) -> Answer<'_, Expired> {
        self.writer
            .call(Some(now), 0, move |engine| engine.expire(now, limit))
    }

    fn renew(&self, beat: Heartbeat, now: Timestamp) -> Answer<'_, Renewed> {
        self.writer
            .call(Some(now), 0, move |engine| Ok(engine.renew(&beat, now)))
    }

    fn apply_to_held(
        &self,
        worker: &WorkerId,
        event: HolderEvent,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>> {
        let worker = worker.clone();
        self.writer.call(Some(now), 0, move |engine| {
            engine.apply_to_held(&worker, &event, now)
        })
    }

    fn append_chunks(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        worker: &WorkerId,
        chunks: Vec<Bytes>,
    ) -> Answer<'_, ChunksKept> {
        let (endpoint, worker) = (endpoint.clone(), worker.clone());
        let bytes = chunks.iter().map(Bytes::len).sum();
        self.writer.call(None, bytes, move |engine| {
            engine.append_chunks(&endpoint, job, &worker, &chunks)
        })
    }

    fn drain(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        bytes_max: usize,
    ) -> Answer<'_, Option<Drained>> {
        let endpoint = endpoint.clone();
        self.writer.call(None, 0, move |engine| {
            engine.drain(&endpoint, job, bytes_max)
        })
    }

    fn load(&self, endpoint: &EndpointId, job: JobId, parts: Parts) -> Answer<'_, Option<Loaded>> {
        let endpoint = endpoint.clone();
        Box::pin(async move { self.readers.load(endpoint, job, parts).await })
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        Box::pin(self.readers.list(query))
    }

    fn sweep(
        &self,
        endpoint: &EndpointId,
        event: Event,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>> {
        let endpoint = endpoint.clone();
        self.writer.call(Some(now), 0, move |engine| {
            engine.sweep(&endpoint, &event, limit, now)
        })
    }

    fn purge(
        &self,
        endpoint: &EndpointId,
        through: Option<u64>,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Purged> {
        let endpoint = endpoint.clone();
        self.writer.call(Some(now), 0, move |engine| {
            engine.purge(&endpoint, through, limit, now)
        })
    }

    fn survey(&self) -> Answer<'_, Vec<Survey>> {
        self.writer.call(None, 0, |engine| Ok(engine.survey()))
    }

    fn place(&self, endpoint: &EndpointId, job: JobId) -> Answer<'_, Option<Place>> {
        let endpoint = endpoint.clone();
        self.writer
            .call(None, 0, move |engine| engine.place(&endpoint, job))
    }

    fn prune(&self, now: Timestamp, limit: usize) -> Answer<'_, usize> {
        self.writer
            .call(Some(now), 0, move |engine| engine.prune(now, limit))
    }

    fn outbox(&self, traffic: Traffic, now: Timestamp) -> Answer<'_, Outbox> {
        self.writer.call(Some(now), 0, move |engine| {
            Ok(engine.outbox(traffic.clone(), now))
        })
    }

    fn outgoing<'a>(&'a self, due: &'a Due, parts: Parts) -> Answer<'a, Option<Outgoing>> {
        Box::pin(self.readers.outgoing(due, parts))
    }

    fn settle(&self, settlements: Vec<Settlement>) -> Answer<'_, Vec<u64>> {
        self.writer
            .call(None, 0, move |engine| engine.settle(&settlements))
    }

    fn deliveries(&self, query: DeliveryQuery) -> Answer<'_, DeliveryPage> {
        Box::pin(self.readers.deliveries(query))
    }

    fn redeliver(
        &self,
        endpoint: &EndpointId,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Answer<'_, Vec<Redelivery>> {
        let endpoint = endpoint.clone();
        self.writer.call(Some(now), 0, move |engine| {
            engine.redeliver(&endpoint, &deliveries, now)
        })
    }

    fn webhook_secrets(&self, endpoint: &EndpointId) -> Answer<'_, Vec<WebhookSecret>> {
        Box::pin(self.readers.webhook_secrets(endpoint.clone()))
    }

    fn add_webhook_secret(
        &self,
        endpoint: &EndpointId,
        secret: WebhookSecret,
        previous_until: Timestamp,
    ) -> Answer<'_, ()> {
        let endpoint = endpoint.clone();
        self.writer.call(None, 0, move |engine| {
            engine
                .rows
                .add_webhook_secret(&endpoint, &secret, previous_until)
        })
    }

    fn release(
        &self,
        endpoint: &EndpointId,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Answer<'_, Release> {
        let endpoint = endpoint.clone();
        self.writer.call(Some(now), 0, move |engine| {
            engine.release(&endpoint, &fingerprint, now)
        })
    }

    fn set_override(&self, endpoint: &EndpointId, settings: Option<String>) -> Answer<'_, ()> {
        let endpoint = endpoint.clone();
        self.writer.call(None, 0, move |engine| {
            engine.rows.set_override(&endpoint, settings.as_deref())
        })
    }

    fn overrides(&self) -> Answer<'_, Vec<(EndpointId, String)>> {
        Box::pin(self.readers.overrides())
    }

    fn charge(&self, _: Bid) -> Answer<'_, Charges> {
        Box::pin(std::future::ready(Ok(Charges::Alone)))
    }

    fn enlist(&self, _: &EndpointId, _: &WorkerId, _: Option<u64>) -> Answer<'_, bool> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn unlist(&self, _: &EndpointId, _: &WorkerId) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn leave(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn keys(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(self.readers.keys())
    }

    fn add_key(&self, key: Key) -> Answer<'_, ()> {
        self.writer
            .call(None, 0, move |engine| engine.rows.add_key(&key))
    }

    fn revoke_key(&self, id: &str, now: Timestamp) -> Answer<'_, bool> {
        let id = id.to_owned();
        self.writer
            .call(Some(now), 0, move |engine| engine.rows.revoke_key(&id, now))
    }
}
