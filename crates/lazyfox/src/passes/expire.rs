//! Deadlines: leases, execution timeouts, ttl.

use std::sync::{Mutex, PoisonError};

use lazyfox_core::time::Timestamp;
use lazyfox_store::{Heartbeat, StoreError};

use crate::app::App;

/// Jobs in one commit.
const AT_ONCE: usize = 1000;
/// Longest time between two looks. A deadline that is set meanwhile is at least a second away.
const TICK_MS: u64 = 1_000;

/// When the pass wanted to look again.
pub struct Expiry {
    due: Mutex<Timestamp>,
}

impl Default for Expiry {
    fn default() -> Self {
        Self {
            due: Mutex::new(Timestamp::NEVER),
        }
    }
}

/// Lets what is due take effect. Returns when to look again.
///
/// # Errors
/// When the store cannot answer.
pub async fn expire_once(app: &App, expiry: &Expiry) -> Result<Timestamp, StoreError> {
    let due = *expiry.due.lock().unwrap_or_else(PoisonError::into_inner);
    if app.clock.has_jumped(due) {
        renew_all(app).await?;
    }
    let again_at = expire_due(app).await?;
    *expiry.due.lock().unwrap_or_else(PoisonError::into_inner) = again_at;
    Ok(again_at)
}

/// The server or its machine stood still. Signs of life that came meanwhile are not read yet, so every
/// lease begins anew: a laptop that slept must not cost each running job its worker.
async fn renew_all(app: &App) -> Result<(), StoreError> {
    tracing::warn!("time has passed in which nothing ran; all leases begin anew");
    for survey in app.store.survey().await? {
        let lease_ms = app.lease_ms(&survey.endpoint);
        for (worker, _) in survey.holders {
            let beat = Heartbeat {
                worker,
                endpoint: survey.endpoint.clone(),
                jobs: None,
                lease_ms,
            };
            app.store.renew(beat, app.now()).await?;
        }
    }
    Ok(())
}

async fn expire_due(app: &App) -> Result<Timestamp, StoreError> {
    loop {
        let now = app.now();
        let expired = app.store.expire(now, AT_ONCE).await?;
        for change in &expired.changes {
            let error = change.job.state.end().and_then(|end| end.error.as_deref());
            tracing::info!(
                job.id = %change.job.id, endpoint.id = %change.job.endpoint,
                status = %change.job.status(), retries = change.job.retries,
                error = error.unwrap_or("its worker gave no sign of life"),
                "a job's time ran out"
            );
        }
        app.note(&expired.changes);
        if expired.next > now {
            // With nothing alive there is nothing to look at until a job comes.
            let tick = now.plus_ms(TICK_MS);
            return Ok(if expired.next == Timestamp::NEVER {
                Timestamp::NEVER
            } else {
                expired.next.min(tick)
            });
        }
    }
}
