//! Says again and again that this server is there, which is how it stays in charge of endpoints.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::charge;

/// When the database is asked again after it did not answer.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// Does so for as long as other servers may want to know. By the machine's clock and not by the server's:
/// what is waited for is an end by the clock of another machine, which no change of the date here moves.
pub async fn hold(app: Arc<App>) {
    let mut at_once = true;
    loop {
        let asked_at = Instant::now();
        let again = match charge::renew(&app, at_once).await {
            Ok(Some(again)) => again.saturating_sub(asked_at.elapsed()),
            Ok(None) => return,
            Err(e) => {
                tracing::error!(error = %e, "other servers cannot be told that this one is there");
                AFTER_ERROR
            }
        };
        tokio::select! {
            () = tokio::time::sleep(again) => at_once = false,
            () = app.wakes.charge.notified() => at_once = true,
        }
    }
}
