//! Who listens to an endpoint's deliveries as they happen.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use lazyfox_core::id::EndpointId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Those who may listen to an endpoint at once.
pub const LISTENERS_MAX: usize = 64;

/// Bytes that wait for a listener. One that is slower loses events and is told how many.
const WAITING_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that wait for all of them together.
const WAITING_BYTES_ALL: usize = 4 * WAITING_BYTES;

/// All of them.
#[derive(Default)]
pub struct Listeners {
    endpoints: Mutex<HashMap<EndpointId, Vec<Ear>>>,
    waiting: Arc<AtomicUsize>,
}

/// The sending side of a listener.
struct Ear {
    events: UnboundedSender<Heard>,
    backlog: Arc<Backlog>,
}

struct Backlog {
    bytes: AtomicUsize,
    /// Of all listeners.
    total: Arc<AtomicUsize>,
    /// Events lost since the last one that was queued.
    missed: AtomicUsize,
}

/// Events of an endpoint, from now on.
pub struct Listener {
    events: UnboundedReceiver<Heard>,
    backlog: Arc<Backlog>,
}

/// What a listener gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(Bytes),
    /// So many events were lost here.
    Missed(usize),
}

impl Listeners {
    /// Begins to listen; `None` where [`LISTENERS_MAX`] do.
    pub fn listen(&self, endpoint: &EndpointId) -> Option<Listener> {
        let (events, receiver) = unbounded_channel();
        let backlog = Arc::new(Backlog {
            bytes: AtomicUsize::new(0),
            total: Arc::clone(&self.waiting),
            missed: AtomicUsize::new(0),
        });
        let mut endpoints = self.lock();
        let ears = endpoints.entry(endpoint.clone()).or_default();
        ears.retain(|ear| !ear.events.is_closed());
        if ears.len() >= LISTENERS_MAX {
            return None;
        }
        ears.push(Ear {
            events,
            backlog: Arc::clone(&backlog),
        });
        Some(Listener {
            events: receiver,
            backlog,
        })
    }

    /// Tells an event, which is only made when somebody listens: it may be large.
    pub fn tell(&self, endpoint: &EndpointId, event: impl FnOnce() -> Bytes) {
        if !self.is_heard(endpoint) {
            return;
        }
        let event = event();
        for ear in self.lock().get(endpoint).into_iter().flatten() {
            ear.tell(event.clone());
        }
    }

    /// Whether anybody listens. Those who went away are forgotten here.
    fn is_heard(&self, endpoint: &EndpointId) -> bool {
        let mut endpoints = self.lock();
        let Some(ears) = endpoints.get_mut(endpoint) else {
            return false;
        };
        ears.retain(|ear| !ear.events.is_closed());
        let heard = !ears.is_empty();
        if !heard {
            endpoints.remove(endpoint);
        }
        heard
    }

    /// Ends all listening: the server is being stopped.
    pub fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Vec<Ear>>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ear {
    fn tell(&self, event: Bytes) {
        if !self.backlog.take(event.len()) {
            self.backlog.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // What was lost is said where it is missing: after the events that wait already.
        let missed = self.backlog.missed.swap(0, Ordering::Relaxed);
        let bytes = event.len();
        let marker = (missed > 0).then_some(Heard::Missed(missed));
        for heard in marker.into_iter().chain([Heard::Event(event)]) {
            if self.events.send(heard).is_err() {
                // It went a moment ago; nobody is owed anything.
                self.backlog.give_back(bytes);
                return;
            }
        }
    }
}

impl Backlog {
    /// Takes room for an event. Alone anything gets through, however large.
    fn take(&self, bytes: usize) -> bool {
        let fits = |counter: &AtomicUsize, max| {
            let waiting = counter.load(Ordering::Relaxed);
            waiting == 0 || waiting + bytes <= max
        };
        let fits = fits(&self.bytes, WAITING_BYTES) && fits(&self.total, WAITING_BYTES_ALL);
        if fits {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.total.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Listener {
    /// The next event; `None` when there will be no more.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Heard>> {
        let next = Pin::new(&mut self.events).poll_recv(context);
        match &next {
            Poll::Ready(Some(Heard::Event(event))) => self.backlog.give_back(event.len()),
            Poll::Ready(_) => {}
            // What came before has been heard, so nothing needs to wait for the next event.
            Poll::Pending => {
                let missed = self.backlog.missed.swap(0, Ordering::Relaxed);
                if missed > 0 {
                    return Poll::Ready(Some(Heard::Missed(missed)));
                }
            }
        }
        next
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.events.close();
        while let Ok(heard) = self.events.try_recv() {
            if let Heard::Event(event) = heard {
                self.backlog.give_back(event.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn heard(listener: &mut Listener) -> Vec<Heard> {
        let mut context = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match listener.poll(&mut context) {
            Poll::Ready(heard) => heard,
            Poll::Pending => None,
        })
        .collect()
    }

    fn event(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    #[test]
    fn each_listener_hears_its_endpoint_from_now_on() {
        let listeners = Listeners::default();
        let [a, b]: [EndpointId; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        listeners.tell(&a, || panic!("nobody listens yet"));
        let [mut first, mut second] = [(); 2].map(|()| listeners.listen(&a).unwrap());
        listeners.tell(&b, || panic!("nobody listens there"));
        listeners.tell(&a, || event(1));
        assert_eq!(heard(&mut first), [Heard::Event(event(1))]);
        drop(first);
        listeners.tell(&a, || event(2));
        assert_eq!(
            heard(&mut second),
            [Heard::Event(event(1)), Heard::Event(event(2))]
        );
        drop(second);
        listeners.tell(&a, || panic!("nobody listens any more"));
        assert!(listeners.lock().is_empty());
    }

    #[test]
    fn a_slow_listener_is_told_what_it_missed_and_where() {
        let listeners = Listeners::default();
        let a: EndpointId = "a".parse().unwrap();
        let mut listener = listeners.listen(&a).unwrap();
        let huge = event(WAITING_BYTES + 1);
        // Alone anything gets through.
        listeners.tell(&a, || huge.clone());
        listeners.tell(&a, || event(1));
        listeners.tell(&a, || event(2));
        assert_eq!(heard(&mut listener), [Heard::Event(huge), Heard::Missed(2)]);
        let half = event(WAITING_BYTES / 2);
        listeners.tell(&a, || half.clone());
        listeners.tell(&a, || half.clone());
        listeners.tell(&a, || event(1));
        listeners.tell(&a, || event(0));
        let half = || Heard::Event(half.clone());
        let last = Heard::Event(event(0));
        assert_eq!(
            heard(&mut listener),
            [half(), half(), Heard::Missed(1), last]
        );
    }

    #[test]
    fn all_that_waits_is_bounded_and_goes_with_its_listener() {
        let listeners = Listeners::default();
        let a: EndpointId = "a".parse().unwrap();
        let mut slow: Vec<_> = (0..LISTENERS_MAX)
            .map(|_| listeners.listen(&a).unwrap())
            .collect();
        assert!(listeners.listen(&a).is_none(), "one too many");
        listeners.tell(&a, || event(WAITING_BYTES));
        assert_eq!(listeners.waiting.load(Ordering::Relaxed), WAITING_BYTES_ALL);
        assert_eq!(heard(&mut slow[LISTENERS_MAX - 1]), [Heard::Missed(1)]);
        slow.clear();
        assert_eq!(listeners.waiting.load(Ordering::Relaxed), 0);
        assert!(listeners.listen(&a).is_some(), "they went away");
    }
}
