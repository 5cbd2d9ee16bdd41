//! Webhooks: what is due goes out, several at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use lazyfox_core::delivery;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Delivery, StoreError};

use crate::app::App;
use crate::views;
use crate::webhooks::Sender;

/// Deliveries under way at once.
const AT_ONCE: usize = 64;

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
    let job = delivery.loaded.job.id;
    let body = views::webhook(&delivery.loaded, &delivery.url);
    let outcome = deliveries.sender.post(&delivery.url, body).await;
    let next = delivery::after_try(delivery.tries + 1, &outcome, app.now());
    match next {
        delivery::Next::Delivered => tracing::debug!(job.id = %job, "webhook delivered"),
        delivery::Next::Again(_) => {
            tracing::info!(job.id = %job, ?outcome, "webhook not delivered, trying again");
        }
        delivery::Next::GaveUp => {
            tracing::warn!(job.id = %job, ?outcome, "webhook not delivered, giving up");
        }
    }
    if let Err(e) = app.store.settle(delivery.id, outcome, next).await {
        // It is still due, so it is sent again: twice is better than never.
        tracing::error!(job.id = %job, error = %e, "cannot note a delivery");
        app.clock.sleep_until(app.now().plus_ms(1_000)).await;
    }
    deliveries.done(delivery.id);
    app.wakes.outbox.notify_one();
}
