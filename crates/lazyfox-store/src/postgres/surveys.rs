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

/// A survey that took long is not made again until many times as much has passed: it is a small part of
/// what the database does. But for so long at the most, because who starts workers waits for it.
const SHARE: u32 = 10;
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// From the beginning of a survey that took so long to that of the next one.
fn pause(gap: Duration, took: Duration) -> Duration {
    gap.max((took * SHARE).min(PAUSE_MAX))
}

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
                tokio::time::sleep_until(last.began_at + pause(gap, last.took)).await;
            }
        }
        let turn = self.turn.load(SeqCst);
        // Tries that came to nothing, while the database was away, cost it nothing.
        let surveyed = connect::again(pool, || {
            Box::pin(async {
                let began_at = Instant::now();
                let surveys = read::survey(pool, knowledge, floors).await?;
                Ok((began_at, surveys))
            })
        });
        let (began_at, surveys) = surveyed.await?;
        *last = Some(Last {
            turn,
            began_at,
            took: began_at.elapsed(),
            surveys: surveys.clone(),
        });
        Ok(surveys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_waits_for_many_times_what_the_last_one_took_and_never_for_long() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(80), ms(2)), ms(80));
        assert_eq!(pause(ms(80), ms(20)), ms(200));
        assert_eq!(pause(ms(80), ms(4_000)), ms(5_000));
        assert_eq!(pause(ms(10_000), ms(4_000)), ms(10_000));
    }
}
