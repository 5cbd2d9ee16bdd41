//! How long to wait before the server is asked again.

use std::time::Duration;

use crate::clock::{Clock, roll};

/// First pause after something went wrong, in milliseconds.
const FIRST_MS: u64 = 500;
/// Longest pause: a server that is back is found by then.
const LONGEST_MS: u64 = 10_000;
/// Pause when the server says that it does not want to be asked now, as the public SDK keeps it.
const REFUSED_MS: u64 = 5_000;

/// Pauses that grow while nothing goes right.
#[derive(Debug)]
pub(super) struct Pause {
    next_ms: u64,
}

impl Pause {
    pub(super) fn new() -> Self {
        Self { next_ms: FIRST_MS }
    }

    /// Something went right.
    pub(super) fn reset(&mut self) {
        self.next_ms = FIRST_MS;
    }

    /// The next one: somewhere in its upper half, so that the workers of a server that comes back do
    /// not all ask in the same moment.
    fn next_ms(&mut self) -> u64 {
        let ms = self.next_ms;
        self.next_ms = (ms * 2).min(LONGEST_MS);
        ms / 2 + roll(ms / 2 + 1)
    }

    /// Waits as long as this answer asks for.
    pub(super) async fn wait(&mut self, clock: &Clock, trouble: &Trouble) {
        let ms = match trouble.status {
            Some(429) => REFUSED_MS,
            Some(_) | None => self.next_ms(),
        };
        wait(clock, Duration::from_millis(ms)).await;
    }
}

/// Waits.
pub(super) async fn wait(clock: &Clock, time: Duration) {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    clock.sleep_until(clock.now().plus_ms(ms)).await;
}

/// A call that did not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What the server answered; `None` when there was no answer.
    pub(super) status: Option<u16>,
    /// For a person.
    pub(super) text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut pause = Pause::new();
        for (low, high) in [(250, 500), (500, 1_000), (1_000, 2_000), (2_000, 4_000)] {
            let ms = pause.next_ms();
            assert!((low..=high).contains(&ms), "{ms}");
        }
        for _ in 0..3 {
            pause.next_ms();
        }
        let ms = pause.next_ms();
        assert!((5_000..=10_000).contains(&ms), "{ms}");
        pause.reset();
        assert!(pause.next_ms() <= 500);
    }
}
