//! What a server says about itself, and when: with a look, or at once.

use std::future::Future;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use lazyfox_core::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connect::Failure;
use super::pulse::Looker;
use super::{Fallible, PostgresStore, charges};
use crate::{Bid, News, Shared, Watched};

/// A look that is later than this is not waited for.
const LOOK_LATE: Duration = Duration::from_millis(250);

/// A word, and who waits for what becomes of it.
pub(super) type Said = (Bid, oneshot::Sender<Fallible<Shared>>);

impl PostgresStore {
    /// With the next look, or at once where that is wanted or there is none.
    pub(super) async fn say_that_it_is_there(&self, bid: Bid) -> Fallible<Shared> {
        if let Some(patience) = self.until_look().filter(|_| !bid.at_once) {
            let (reply, answer) = oneshot::channel();
            *self.word() = Some((bid.clone(), reply));
            if let Ok(Ok(shared)) = tokio::time::timeout(patience, answer).await {
                return shared;
            }
            *self.word() = None;
        }
        let (pool, server, spans) = (self.pool.clone(), self.server.clone(), self.spans);
        let said = self.say(async move { charges::charge(&pool, &server, spans, &bid).await });
        said.await
    }

    pub(super) fn looker(&self) -> Looker {
        Looker {
            pool: self.pool.clone(),
            knowledge: Arc::clone(&self.knowledge),
            floors: Arc::clone(&self.floors),
            lag: self.looks.lag,
        }
    }

    /// Looks, and says what there is to say.
    pub(super) async fn look(&self, watched: Watched, now: Timestamp) -> Fallible<News> {
        let looker = self.looker();
        let word = self.word().take();
        let Some((bid, reply)) = word else {
            return looker.look(&watched, now).await;
        };
        let (server, spans) = (self.server.clone(), self.spans);
        let outcome = self.say(async move {
            looker
                .look_and_say(&watched, now, (&server, spans, &bid))
                .await
        });
        let (news, shared) = match outcome.await {
            Ok((news, shared)) => (Ok(news), Ok(shared)),
            Err(failure) => {
                let why = failure.into_error();
                let same = Failure::Operation(why.clone());
                (Err(Failure::Operation(why)), Err(same))
            }
        };
        // Who does not wait any more says it again.
        let _ = reply.send(shared);
        news
    }

    /// Says something about this server, to the end.
    async fn say<T: Send + 'static>(
        &self,
        word: impl Future<Output = Fallible<T>> + Send + 'static,
    ) -> Fallible<T> {
        let saying = Arc::clone(&self.saying).lock_owned().await;
        let said = tokio::spawn(async move {
            let _saying = saying;
            word.await
        });
        let stopped = |_| Failure::NoConnection("the store is shut down".to_owned());
        said.await.map_err(stopped)?
    }

    fn word(&self) -> MutexGuard<'_, Option<Said>> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the next look, if there are looks.
    fn until_look(&self) -> Option<Duration> {
        let looked_at = *self
            .looked_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = looked_at? + self.looks.idle;
        let now = Instant::now();
        (now < next + LOOK_LATE).then(|| next.saturating_duration_since(now) + LOOK_LATE)
    }
}
