//! Retention: records of ended jobs go when their time is over.

use lazyfox_core::time::Timestamp;
use lazyfox_store::StoreError;

use crate::app::App;

/// Jobs in one commit: small, because callers wait behind it.
const AT_ONCE: usize = 200;
/// Time between two looks. Until then a job past its retention is still answered; nobody minds.
const TICK_MS: u64 = 2_000;

/// Deletes what is over. Returns when to look again.
///
/// # Errors
/// When the store cannot answer.
pub async fn prune_once(app: &App) -> Result<Timestamp, StoreError> {
    while app.store.prune(app.now(), AT_ONCE).await? == AT_ONCE {}
    Ok(app.now().plus_ms(TICK_MS))
}
