//! The only place that reads the time and rolls the dice.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lazyfox_core::time::Timestamp;
use tokio::sync::watch;

/// Tells the time and waits for it. In tests it stands still until it is moved.
#[derive(Clone)]
pub struct Clock(Arc<Kind>);

enum Kind {
    System,
    Manual {
        now: watch::Sender<Timestamp>,
        /// Where the last jump led to.
        jumped_to: AtomicI64,
    },
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
        Self(Arc::new(Kind::Manual {
            now: watch::Sender::new(start),
            jumped_to: AtomicI64::new(i64::MIN),
        }))
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
            Kind::Manual { now, .. } => *now.borrow(),
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
            Kind::Manual { now, .. } => {
                // The sender is in self, so the wait can only end with the time.
                let _ = now.subscribe().wait_for(|now| *now >= at).await;
            }
        }
    }

    /// Moves a manual clock; the machine's cannot be moved.
    pub fn advance(&self, ms: u64) {
        if let Kind::Manual { now, .. } = &*self.0 {
            now.send_modify(|now| *now = now.plus_ms(ms));
        }
    }

    /// Moves a manual clock as if the machine had slept meanwhile.
    pub fn jump(&self, ms: u64) {
        if let Kind::Manual { now, jumped_to } = &*self.0 {
            let there = now.borrow().plus_ms(ms);
            jumped_to.store(there.as_ms(), Ordering::SeqCst);
        }
        self.advance(ms);
    }

    /// Whether time went by in which nothing could run, seen from a pass that was due then.
    #[must_use]
    pub fn has_jumped(&self, due: Timestamp) -> bool {
        match &*self.0 {
            Kind::System => self.now().ms_since(due) >= JUMP_MS,
            Kind::Manual { now, jumped_to } => {
                now.borrow().as_ms() == jumped_to.load(Ordering::SeqCst)
            }
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
