//! Deadlines: leases, execution timeouts, ttl.

use lazyfox_core::time::Timestamp;
use lazyfox_store::StoreError;

use crate::app::App;

/// Jobs in one commit.
const AT_ONCE: usize = 1000;
/// Longest time between two looks. A deadline that is set meanwhile is at least a second away.
const TICK_MS: u64 = 1_000;

/// Lets what is due take effect. Returns when to look again.
///
/// # Errors
/// When the store cannot answer.
pub async fn expire_once(app: &App) -> Result<Timestamp, StoreError> {
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
