//! The store that forgets everything at the end of the process: for tests, and as the ceiling that
//! durable stores are measured against. The same engine over maps.

mod rows;

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use lazyfox_core::id::{DeliveryId, EndpointId, JobId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Traffic;

use self::rows::MapRows;
use crate::engine::{Engine, Registers as _, Result};
use crate::{
    Answer, Applied, Ask, Bid, Change, Charges, ChunksKept, DeliveryPage, DeliveryQuery, Drained,
    Due, Expired, Heartbeat, HolderEvent, Key, Leased, Loaded, NewJob, Outbox, Outgoing, Page,
    Parts, Place, Purged, Query, Redelivery, Release, Renewed, Settlement, Store, Submitted,
    Survey, WebhookSecret,
};

/// Keeps everything in memory.
pub struct MemoryStore {
    engine: Mutex<Engine<MapRows>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let engine = Engine::open(MapRows::default(), now, crate::default_lease())
            .expect("maps cannot fail");
        Self {
            engine: Mutex::new(engine),
        }
    }

    fn call<'a, T: Send + 'a>(
        &self,
        run: impl FnOnce(&mut Engine<MapRows>) -> Result<T>,
    ) -> Answer<'a, T> {
        // A panic in the engine leaves maps that are whole, if behind by one operation.
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let result = run(&mut engine);
        Box::pin(std::future::ready(result))
    }
}

impl Store for MemoryStore {
    fn submit(&self, new: NewJob, _now: Timestamp) -> Answer<'_, Submitted> {
        self.call(|engine| engine.submit(&new))
    }

    fn lease(&self, ask: Ask, now: Timestamp) -> Answer<'_, Leased> {
        self.call(|engine| engine.lease(&ask, now))
    }

    fn apply(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        event: Event,
        output: Option<Bytes>,
        now: Timestamp,
    ) -> Answer<'_, Applied> {
        self.call(|engine| engine.apply(endpoint, job, event, output.as_ref(), now))
    }

    fn expire(&self, now: Timestamp, limit: usize) -> Answer<'_, Expired> {
        self.call(|engine| engine.expire(now, limit))
    }

    fn renew(&self, beat: Heartbeat, now: Timestamp) -> Answer<'_, Renewed> {
        self.call(|engine| Ok(engine.renew(&beat, now)))
    }

    fn apply_to_held(
        &self,
        worker: &WorkerId,
        event: HolderEvent,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>> {
        self.call(|engine| engine.apply_to_held(worker, &event, now))
    }

    fn append_chunks(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        worker: &WorkerId,
        chunks: Vec<Bytes>,
    ) -> Answer<'_, ChunksKept> {
        self.call(|engine| engine.append_chunks(endpoint, job, worker, &chunks))
    }

    fn drain(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        bytes_max: usize,
    ) -> Answer<'_, Option<Drained>> {
        self.call(|engine| engine.drain(endpoint, job, bytes_max))
    }

    fn load(&self, endpoint: &EndpointId, job: JobId, parts: Parts) -> Answer<'_, Option<Loaded>> {
        self.call(|engine| Ok(engine.rows.load(endpoint, job, parts)))
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        self.call(|engine| Ok(engine.rows.list(&query)))
    }

    fn sweep(
        &self,
        endpoint: &EndpointId,
        event: Event,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>> {
        self.call(|engine| engine.sweep(endpoint, &event, limit, now))
    }

    fn purge(
        &self,
        endpoint: &EndpointId,
        through: Option<u64>,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Purged> {
        self.call(|engine| engine.purge(endpoint, through, limit, now))
    }

    fn survey(&self) -> Answer<'_, Vec<Survey>> {
        self.call(|engine| Ok(engine.survey()))
    }

    fn place(&self, endpoint: &EndpointId, job: JobId) -> Answer<'_, Option<Place>> {
        self.call(|engine| engine.place(endpoint, job))
    }

    fn prune(&self, now: Timestamp, limit: usize) -> Answer<'_, usize> {
        self.call(|engine| engine.prune(now, limit))
    }

    fn outbox(&self, traffic: Traffic, now: Timestamp) -> Answer<'_, Outbox> {
        self.call(|engine| Ok(engine.outbox(traffic, now)))
    }

    fn outgoing<'a>(&'a self, due: &'a Due, parts: Parts) -> Answer<'a, Option<Outgoing>> {
        self.call(|engine| Ok(engine.rows.outgoing(due.number, parts)))
    }

    fn settle(&self, settlements: Vec<Settlement>) -> Answer<'_, Vec<u64>> {
        self.call(|engine| engine.settle(&settlements))
    }

    fn deliveries(&self, query: DeliveryQuery) -> Answer<'_, DeliveryPage> {
        self.call(|engine| Ok(engine.rows.list_deliveries(&query)))
    }

    fn redeliver(
        &self,
        endpoint: &EndpointId,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Answer<'_, Vec<Redelivery>> {
        self.call(|engine| engine.redeliver(endpoint, &deliveries, now))
    }

    fn webhook_secrets(&self, endpoint: &EndpointId) -> Answer<'_, Vec<WebhookSecret>> {
        self.call(|engine| Ok(engine.rows.secrets(endpoint)))
    }

    fn add_webhook_secret(
        &self,
        endpoint: &EndpointId,
        secret: WebhookSecret,
        previous_until: Timestamp,
    ) -> Answer<'_, ()> {
        self.call(|engine| {
            engine
                .rows
                .add_webhook_secret(endpoint, &secret, previous_until)
        })
    }

    fn release(
        &self,
        endpoint: &EndpointId,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Answer<'_, Release> {
        self.call(|engine| engine.release(endpoint, &fingerprint, now))
    }

    fn set_override(&self, endpoint: &EndpointId, settings: Option<String>) -> Answer<'_, ()> {
        self.call(|engine| engine.rows.set_override(endpoint, settings.as_deref()))
    }

    fn overrides(&self) -> Answer<'_, Vec<(EndpointId, String)>> {
        self.call(|engine| Ok(engine.rows.overrides()))
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
        self.call(|engine| engine.rows.keys())
    }

    fn add_key(&self, key: Key) -> Answer<'_, ()> {
        self.call(|engine| engine.rows.add_key(&key))
    }

    fn revoke_key(&self, id: &str, now: Timestamp) -> Answer<'_, bool> {
        self.call(|engine| engine.rows.revoke_key(id, now))
    }
}
