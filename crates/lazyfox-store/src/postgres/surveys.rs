//! Surveys read all that is alive: they are asked for at every step of every job, and answered seldom.

use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::{self, Failure};
use super::floors::Floors;
use super::pulse::Knowledge;
use super::read;
use crate::Survey;

/// A survey that took long is not made again until many times as much has passed.
const SHARE: u32 = 10;

/// One at a time; whoever asks meanwhile waits for the next, which they share.
#[derive(Default)]
pub(super) struct Surveys {
    last: Mutex<Option<Last>>,
    turn: std::sync::atomic::AtomicU64,
}

struct Last {
    /// Who asked up to this turn is answered by it.
    turn: u64,
    began_at: Instant,
    took: Duration,
    surveys: Vec<Survey>,
}

impl Surveys {
    /// A survey that begins after this call.
    pub(super) async fn next(
        &self,
        pool: &Pool,
        knowledge: &Knowledge,
        floors: &Floors,
        gap: Duration,
    ) -> Result<Vec<Survey>, Failure> {
        use std::sync::atomic::Ordering::SeqCst;
        let asked = self.turn.fetch_add(1, SeqCst) + 1;
        let mut last = self.last.lock().await;
        if let Some(last) = last.as_ref() {
            if last.turn >= asked {
                return Ok(last.surveys.clone());
            }
            if !gap.is_zero() {
                let pause = gap.max(last.took * SHARE);
                tokio::time::sleep_until(last.began_at + pause).await;
            }
        }
        let (turn, began_at) = (self.turn.load(SeqCst), Instant::now());
        let surveys = connect::again(|| Box::pin(read::survey(pool, knowledge, floors)));
        let surveys = surveys.await?;
        *last = Some(Last {
            turn,
            began_at,
            took: began_at.elapsed(),
            surveys: surveys.clone(),
        });
        Ok(surveys)
    }
}
