//! The only place that reads the time and rolls the dice.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lazyfox_core::time::Timestamp;
use tokio::sync::watch;

/// Tells the time and waits for it. In tests it stands still until it is moved.
///
/// The time may step back, when somebody sets the machine's clock. A wait that has begun does not see
/// that: it takes as long as it was to take when it began.
#[derive(Clone)]
pub struct Clock(Arc<Kind>);

enum Kind {
    System,
    Manual(watch::Sender<Manual>),
}

/// A clock that a test moves.
struct Manual {
    now: Timestamp,
    /// How far it was ever moved forward, in milliseconds: what waits go by.
    passed_ms: u64,
    /// Where the last jump led to.
    jumped_to: Option<Timestamp>,
}

/// A pass that comes this much later than it wanted to did not run meanwhile: the process or the
/// machine stood still, or the clock was set.
const JUMP_MS: u64 = 5_000;

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Kind::System))
    }

    /// A clock that stands still at this time until [`Clock::advance`].
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let manual = Manual {
            now: start,
            passed_ms: 0,
            jumped_to: None,
        };
        Self(Arc::new(Kind::Manual(watch::Sender::new(manual))))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Kind::System => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Kind::Manual(manual) => manual.borrow().now,
        }
    }

    /// Returns at this time, or at once when it is over.
    pub async fn sleep_until(&self, at: Timestamp) {
        match &*self.0 {
            Kind::System => {
                let ms = at.ms_since(self.now());
                if ms > 0 {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
            }
            Kind::Manual(manual) => {
                let mut moves = manual.subscribe();
                let end_ms = {
                    let begun = moves.borrow();
                    begun.passed_ms.saturating_add(at.ms_since(begun.now))
                };
                // The sender is in self, so the wait can only end with the time.
                let _ = moves.wait_for(|it| it.passed_ms >= end_ms).await;
            }
        }
    }

    /// Moves a manual clock as if the machine had slept meanwhile.
    pub fn jump(&self, ms: u64) {
        if let Kind::Manual(manual) = &*self.0 {
            manual.send_modify(|manual| manual.jumped_to = Some(manual.now.plus_ms(ms)));
        }
        self.advance(ms);
    }

    /// Whether time went by in which nothing could run, seen from a pass that was due then.
    #[must_use]
    pub fn has_jumped(&self, due: Timestamp) -> bool {
        match &*self.0 {
            Kind::System => self.now().ms_since(due) >= JUMP_MS,
            Kind::Manual(manual) => {
                let manual = manual.borrow();
                manual.jumped_to == Some(manual.now)
            }
        }
    }

    /// Moves a manual clock; the machine's cannot be moved.
    pub fn advance(&self, ms: u64) {
        if let Kind::Manual(manual) = &*self.0 {
            manual.send_modify(|it| {
                it.now = it.now.plus_ms(ms);
                it.passed_ms = it.passed_ms.saturating_add(ms);
            });
        }
    }

    /// Sets a manual clock back, as somebody may do with the machine's.
    pub fn set_back(&self, ms: u64) {
        if let Kind::Manual(manual) = &*self.0 {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            manual.send_modify(|it| {
                it.now = Timestamp::from_ms(it.now.as_ms().saturating_sub(ms));
            });
        }
    }
}

/// Random bytes from the operating system.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// A random number below `end`, good enough for jitter.
#[must_use]
pub fn roll(end: u64) -> u64 {
    u64::from_le_bytes(random()) % end.max(1)
}

/// A random name of lower-case letters and digits.
#[must_use]
pub fn random_name<const N: usize>() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    random::<N>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect()
}
