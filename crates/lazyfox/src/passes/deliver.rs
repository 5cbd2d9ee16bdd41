//! Webhooks: what is due goes out, several at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use lazyfox_core::delivery;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Delivery, Parts, StoreError};

use crate::app::App;
use crate::views;
use crate::webhooks::Sender;

/// Deliveries under way at once.
const AT_ONCE: usize = 64;

/// When a delivery that the store could not note is tried again.
const AFTER_ERROR_MS: u64 = 1_000;

/// What is under way.
pub struct Deliveries {
    sender: Sender,
    under_way: Mutex<HashSet<u64>>,
}

impl Deliveries {
    /// Nothing yet.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            under_way: Mutex::default(),
        }
    }

    /// Claims a delivery; false when it is under way or there is no room.
    fn claim(&self, id: u64) -> bool {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.len() < AT_ONCE && under_way.insert(id)
    }

    fn done(&self, id: u64) {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }
}

/// Sends what is due. Returns when the next one is.
///
/// # Errors
/// When the store cannot answer.
pub async fn deliver_once(
    app: &Arc<App>,
    deliveries: &Arc<Deliveries>,
) -> Result<Timestamp, StoreError> {
    // Those under way are still due on disk.
    let outbox = app.store.outbox(app.now(), 2 * AT_ONCE).await?;
    for delivery in outbox.deliveries {
        if deliveries.claim(delivery.id) {
            tokio::spawn(deliver(Arc::clone(app), Arc::clone(deliveries), delivery));
        }
    }
    // What found no room is looked at again when one that is under way is done.
    Ok(if outbox.next > app.now() {
        outbox.next
    } else {
        Timestamp::NEVER
    })
}

async fn deliver(app: Arc<App>, deliveries: Arc<Deliveries>, delivery: Delivery) {
    if let Err(e) = try_once(&app, &deliveries.sender, &delivery).await {
        // It is still due, so it is sent again: twice is better than never.
        tracing::error!(job.id = %delivery.job.id, error = %e, "cannot read or note a delivery");
        app.clock
            .sleep_until(app.now().plus_ms(AFTER_ERROR_MS))
            .await;
    }
    deliveries.done(delivery.id);
    app.wakes.outbox.notify_one();
}

async fn try_once(app: &App, sender: &Sender, delivery: &Delivery) -> Result<(), StoreError> {
    let job = &delivery.job;
    let parts = Parts {
        output: true,
        input: true,
    };
    let loaded = app.store.load(&job.endpoint, job.id, parts).await?;
    // A /retry takes its delivery back.
    let Some(loaded) = loaded.filter(|loaded| loaded.job.status().is_terminal()) else {
        return Ok(());
    };
    let body = views::webhook(&loaded, &delivery.url);
    let outcome = sender.post(&delivery.url, body).await;
    let next = delivery::after_try(delivery.tries + 1, &outcome, app.now());
    match next {
        delivery::Next::Delivered => tracing::debug!(job.id = %job.id, "webhook delivered"),
        delivery::Next::Again(_) => {
            tracing::info!(job.id = %job.id, ?outcome, "webhook not delivered, trying again");
        }
        delivery::Next::GaveUp => {
            tracing::warn!(job.id = %job.id, ?outcome, "webhook not delivered, giving up");
        }
    }
    app.store.settle(delivery.id, outcome, next).await
}
