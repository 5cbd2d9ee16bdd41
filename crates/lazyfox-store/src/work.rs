//! One caller's operation in a group: run before the commit, answered after it.

use tokio::sync::oneshot;

use crate::StoreError;
use crate::engine::Engine;

/// An operation over rows. It may be run once more when what was run came to nothing.
pub(crate) trait Work<R>: Send {
    fn run(&mut self, engine: &mut Engine<R>) -> Result<(), StoreError>;
    /// Called when all of the group have run.
    fn look(&mut self, engine: &Engine<R>);
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// An operation, and where its answer goes.
pub(crate) type Asked<R, T> = (Box<dyn Work<R>>, oneshot::Receiver<Result<T, StoreError>>);

pub(crate) fn work<R, T: Send + 'static>(
    run: impl Fn(&mut Engine<R>) -> Result<T, StoreError> + Send + 'static,
) -> Asked<R, T> {
    work_then(run, |_, _| {})
}

/// `look` puts the answer right after what the others of the group did.
pub(crate) fn work_then<R, T: Send + 'static>(
    run: impl Fn(&mut Engine<R>) -> Result<T, StoreError> + Send + 'static,
    look: impl Fn(&Engine<R>, &mut T) + Send + 'static,
) -> Asked<R, T> {
    let (reply, answer) = oneshot::channel();
    let work = Pending {
        run,
        look,
        result: None,
        reply,
    };
    (Box::new(work), answer)
}

struct Pending<F, L, T> {
    run: F,
    look: L,
    /// What the last run came to.
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<R, F, L, T> Work<R> for Pending<F, L, T>
where
    F: Fn(&mut Engine<R>) -> Result<T, StoreError> + Send,
    L: Fn(&Engine<R>, &mut T) + Send,
    T: Send,
{
    fn run(&mut self, engine: &mut Engine<R>) -> Result<(), StoreError> {
        let result = (self.run)(engine);
        let outcome = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        outcome
    }

    fn look(&mut self, engine: &Engine<R>) {
        if let Some(Ok(answer)) = &mut self.result {
            (self.look)(engine, answer);
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let unanswered = || StoreError::Unavailable("the operation was not run".to_owned());
        let Self { result, reply, .. } = *self;
        let answer = committed.and_then(|()| result.unwrap_or_else(|| Err(unanswered())));
        // A caller that went away took its own precautions.
        let _ = reply.send(answer);
    }
}
