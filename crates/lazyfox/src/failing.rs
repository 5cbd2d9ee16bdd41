//! A store in memory for tests that can be told not to answer.

use std::future::ready;
use std::sync::Mutex;

use bytes::Bytes;
use lazyfox_core::id::{DeliveryId, EndpointId, JobId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Traffic;
use lazyfox_store::memory::MemoryStore;
use lazyfox_store::{
    Answer, Applied, Ask, Bid, Change, Charges, ChunksKept, DeliveryPage, DeliveryQuery, Drained,
    Due, Expired, Heartbeat, HolderEvent, Key, Leased, Loaded, NewJob, Outbox, Outgoing, Page,
    Parts, Place, Purged, Query, Redelivery, Release, Renewed, Settlement, Store, StoreError,
    Submitted, Survey, WebhookSecret,
};

/// The store, and the operations that fail the next time.
pub(crate) struct FailingStore {
    store: MemoryStore,
    failing: Mutex<Vec<&'static str>>,
    called: Mutex<Vec<&'static str>>,
}

impl FailingStore {
    /// An empty one that answers.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            store: MemoryStore::new(now),
            failing: Mutex::new(Vec::new()),
            called: Mutex::new(Vec::new()),
        }
    }

    /// This operation fails once, when it is called next.
    pub(crate) fn fail_next(&self, operation: &'static str) {
        self.failing.lock().unwrap().push(operation);
    }

    /// Whether all that was to fail has.
    pub(crate) fn has_failed(&self) -> bool {
        self.failing.lock().unwrap().is_empty()
    }

    /// How often an operation was called.
    pub(crate) fn called(&self, operation: &str) -> usize {
        let called = self.called.lock().unwrap();
        called.iter().filter(|it| **it == operation).count()
    }

    fn fails(&self, operation: &'static str) -> bool {
        self.called.lock().unwrap().push(operation);
        let mut failing = self.failing.lock().unwrap();
        let at = failing.iter().position(|it| *it == operation);
        at.map(|at| failing.swap_remove(at)).is_some()
    }
}

fn no_answer<'a, T: Send + 'a>() -> Answer<'a, T> {
    let why = "it was told not to answer".to_owned();
    Box::pin(ready(Err(StoreError::Unavailable(why))))
}

macro_rules! through {
    ($(fn $name:ident(&self $(, $argument:ident: $kind:ty)*) -> $answer:ty;)*) => {
        $(
            fn $name(&self $(, $argument: $kind)*) -> Answer<'_, $answer> {
                if self.fails(stringify!($name)) {
                    return no_answer();
                }
                self.store.$name($($argument),*)
            }
        )*
    };
}

impl Store for FailingStore {
    through! {
        fn submit(&self, new: NewJob, now: Timestamp) -> Submitted;
        fn lease(&self, ask: Ask, now: Timestamp) -> Leased;
        fn apply(
            &self, endpoint: &EndpointId, job: JobId, event: Event, output: Option<Bytes>,
            now: Timestamp
        ) -> Applied;
        fn expire(&self, now: Timestamp, limit: usize) -> Expired;
        fn renew(&self, beat: Heartbeat, now: Timestamp) -> Renewed;
        fn apply_to_held(
            &self, worker: &WorkerId, event: HolderEvent, now: Timestamp
        ) -> Vec<Change>;
        fn append_chunks(
            &self, endpoint: &EndpointId, job: JobId, worker: &WorkerId, chunks: Vec<Bytes>
        ) -> ChunksKept;
        fn drain(&self, endpoint: &EndpointId, job: JobId, bytes_max: usize) -> Option<Drained>;
        fn load(&self, endpoint: &EndpointId, job: JobId, parts: Parts) -> Option<Loaded>;
        fn list(&self, query: Query) -> Page;
        fn sweep(
            &self, endpoint: &EndpointId, event: Event, limit: usize, now: Timestamp
        ) -> Vec<Change>;
        fn purge(
            &self, endpoint: &EndpointId, through: Option<u64>, limit: usize, now: Timestamp
        ) -> Purged;
        fn survey(&self) -> Vec<Survey>;
        fn place(&self, endpoint: &EndpointId, job: JobId) -> Option<Place>;
        fn prune(&self, now: Timestamp, limit: usize) -> usize;
        fn outbox(&self, traffic: Traffic, now: Timestamp) -> Outbox;
        fn settle(&self, settlements: Vec<Settlement>) -> Vec<u64>;
        fn deliveries(&self, query: DeliveryQuery) -> DeliveryPage;
        fn redeliver(
            &self, endpoint: &EndpointId, deliveries: Vec<DeliveryId>, now: Timestamp
        ) -> Vec<Redelivery>;
        fn webhook_secrets(&self, endpoint: &EndpointId) -> Vec<WebhookSecret>;
        fn add_webhook_secret(
            &self, endpoint: &EndpointId, secret: WebhookSecret, previous_until: Timestamp
        ) -> ();
        fn release(&self, endpoint: &EndpointId, fingerprint: [u8; 32], now: Timestamp) -> Release;
        fn set_override(&self, endpoint: &EndpointId, settings: Option<String>) -> ();
        fn overrides(&self) -> Vec<(EndpointId, String)>;
        fn charge(&self, bid: Bid) -> Charges;
        fn enlist(&self, endpoint: &EndpointId, worker: &WorkerId, term: Option<u64>) -> bool;
        fn unlist(&self, endpoint: &EndpointId, worker: &WorkerId) -> ();
        fn leave(&self) -> ();
        fn keys(&self) -> Vec<Key>;
        fn add_key(&self, key: Key) -> ();
        fn revoke_key(&self, id: &str, now: Timestamp) -> bool;
    }

    fn outgoing<'a>(&'a self, due: &'a Due, parts: Parts) -> Answer<'a, Option<Outgoing>> {
        self.store.outgoing(due, parts)
    }
}
