//! Jobs on their way to a worker. A worker never says that it got one, so what provably did not leave
//! the server goes back to the queue at once; everything else is the lease's to find out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use lazyfox_core::job::{Event, State};
use lazyfox_store::{Ask, Handout, Leased, StoreError};
use tokio::sync::oneshot;

use crate::app::App;

/// Jobs that go back when this is dropped before they were written.
pub(super) struct Handouts {
    app: Arc<App>,
    handouts: Vec<Handout>,
}

impl Handouts {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Handout> {
        self.handouts.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.handouts.is_empty()
    }

    /// A response body that takes the jobs along.
    pub(super) fn into_body(self, text: Bytes) -> Body {
        Body::new(Guarded {
            text: Some(text),
            handouts: Some(self),
        })
    }
}

impl Drop for Handouts {
    fn drop(&mut self) {
        if self.handouts.is_empty() {
            return;
        }
        let (app, handouts) = (Arc::clone(&self.app), std::mem::take(&mut self.handouts));
        tokio::spawn(async move {
            for Handout { job, .. } in handouts {
                let Some((worker, since)) = job.state.last_attempt() else {
                    continue;
                };
                tracing::info!(job.id = %job.id, worker.id = %worker, "the poll is gone, taking the job back");
                app.fleet.handed_back(worker, job.id);
                let event = Event::HandBack {
                    worker: worker.clone(),
                    since,
                };
                if let Err(e) = app.apply(&job.endpoint, job.id, event, None).await {
                    tracing::warn!(job.id = %job.id, error = %e, "the job waits for its lease to run out");
                }
            }
        });
    }
}

/// Asks the store for jobs. The caller may go away at any await; the jobs then go back.
pub(super) async fn lease(app: &Arc<App>, ask: Ask) -> Result<Handouts, StoreError> {
    let (send, receive) = oneshot::channel();
    let owner = Arc::clone(app);
    tokio::spawn(async move {
        let now = owner.now();
        let leased = owner.store.lease(ask, now).await;
        let handouts = leased.map(|Leased { handouts, lost }| {
            for change in &lost {
                tracing::warn!(
                    job.id = %change.job.id, status = %change.job.status(),
                    "a job was lost: its worker asks for work without it"
                );
            }
            owner.note(&lost);
            for handout in &handouts {
                if let State::Running(attempt) = &handout.job.state {
                    let (job, waits) = (handout.job.id, !attempt.begun);
                    owner.fleet.took(&attempt.worker, job, waits, now);
                }
            }
            Handouts {
                app: owner,
                handouts,
            }
        });
        // Dropped on failure, and with that the jobs go back.
        let _ = send.send(handouts);
    });
    let stopped = || StoreError::Unavailable("the server is stopping".to_owned());
    receive.await.map_err(|_| stopped())?
}

/// A body that is one piece. Once the piece is taken for writing, the jobs may be with the worker.
struct Guarded {
    text: Option<Bytes>,
    handouts: Option<Handouts>,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(mut handouts) = self.handouts.take() {
            handouts.handouts.clear();
        }
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}

#[cfg(test)]
mod tests;
