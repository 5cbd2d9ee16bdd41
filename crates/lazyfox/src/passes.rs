//! The background duties. Each pass compares what is with what should be and takes no input, so that the
//! path after a crash is the normal path; its loop here only calls it, on a wake-up and on a timer.

pub mod charge;
pub mod deliver;
pub mod ends;
pub mod expire;
pub mod prune;
pub mod scale;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lazyfox_core::time::Timestamp;
use lazyfox_store::StoreError;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::app::App;
use crate::elsewhere;
use crate::providers::{Ended, Provider};
use crate::webhooks::Sender;

/// A pass under load is woken by every job; it looks at all of them at once, so seldom is enough.
const GAP: Duration = Duration::from_millis(25);
/// Every delivery wakes its pass twice, and what came of tries is kept once a round: rounds that are
/// shorter make more commits of the same work, which jobs wait for (docs/performance.md).
const DELIVERY_GAP: Duration = Duration::from_millis(5);
/// When a pass is tried again after the store could not answer.
const AFTER_ERROR_MS: u64 = 1_000;

/// Starts the loops. They end when their set is dropped.
pub fn start(
    app: &Arc<App>,
    provider: &Arc<dyn Provider>,
    ended: UnboundedReceiver<Ended>,
    sender: Sender,
) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    let (a, p) = (Arc::clone(app), Arc::clone(provider));
    loops.spawn(async move {
        repeat(&a, &a.wakes.scale, "scale", GAP, || {
            scale::scale_once(&a, &*p)
        })
        .await;
    });
    let a = Arc::clone(app);
    loops.spawn(async move {
        let expiry = expire::Expiry::default();
        repeat(&a, &a.wakes.deadlines, "expire", GAP, || {
            expire::expire_once(&a, &expiry)
        })
        .await;
    });
    let a = Arc::clone(app);
    loops.spawn(async move {
        let never = Notify::new();
        repeat(&a, &never, "prune", GAP, || prune::prune_once(&a)).await;
    });
    let a = Arc::clone(app);
    let deliveries = deliver::Deliveries::new(sender);
    loops.spawn(async move {
        repeat(&a, &a.wakes.outbox, "deliver", DELIVERY_GAP, || {
            deliver::deliver_once(&a, &deliveries)
        })
        .await;
    });
    loops.spawn(charge::hold(Arc::clone(app)));
    loops.spawn(ends::ends(Arc::clone(app), ended));
    let a = Arc::clone(app);
    loops.spawn(async move { elsewhere::listen(&a).await });
    loops
}

/// Calls a pass for ever: when it is woken, and at the time that it asked for.
async fn repeat<F, R>(app: &App, woken: &Notify, name: &'static str, gap: Duration, pass: F)
where
    F: Fn() -> R,
    R: Future<Output = Result<Timestamp, StoreError>>,
{
    loop {
        let again_at = match pass().await {
            Ok(again_at) => again_at,
            Err(e) => {
                tracing::error!(pass = name, error = %e, "a pass failed and is tried again");
                app.now().plus_ms(AFTER_ERROR_MS)
            }
        };
        tokio::time::sleep(gap).await;
        tokio::select! {
            () = woken.notified() => {}
            () = app.clock.sleep_until(again_at) => {}
        }
    }
}

#[cfg(test)]
mod tests;
