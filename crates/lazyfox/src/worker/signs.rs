//! What goes on beside the jobs: heartbeats, and hearing which jobs are over.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::held::Held;
use super::pause::{Pause, wait};
use super::server::Server;
use crate::clock::Clock;

/// Pause after there was nothing to hear, as the public SDK keeps it: a server that is about to end this
/// worker answers at once.
const NOTHING_HEARD: Duration = Duration::from_secs(1);

/// Names all jobs at hand to the server, every so often, and at once when one that was to be stopped is
/// gone: a worker that does not say so in time is ended.
pub(super) async fn heartbeats(server: &Server, held: &Held) {
    let mut ticks = tokio::time::interval(server.settings.ping_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = held.let_go.notified() => {}
        }
        match server.ping(&held.names()).await {
            Ok(()) => heard = true,
            // Said once; the calls for work say the rest.
            Err(trouble) if heard => {
                heard = false;
                tracing::warn!(why = %trouble.text, "the server does not hear our heartbeat");
            }
            Err(_) => {}
        }
    }
}

/// Stops jobs as the server says.
pub(super) async fn stops(server: &Server, held: &Held, clock: &Clock) {
    let mut pause = Pause::new();
    loop {
        match server.stops().await {
            Ok(jobs) => {
                pause.reset();
                let heard = jobs.unwrap_or_default();
                for job in &heard {
                    held.stop(job);
                }
                if heard.is_empty() {
                    wait(clock, NOTHING_HEARD).await;
                }
            }
            Err(trouble) => pause.wait(clock, &trouble).await,
        }
    }
}
