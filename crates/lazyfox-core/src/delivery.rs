//! The life of a webhook delivery: due, tried, tried again, settled.

use crate::time::Timestamp;

/// Pause before each further try, in milliseconds: up to 2 more tries, 10 s apart, as the public
/// contract says.
pub const PAUSES_MS: [u64; 2] = [10_000, 10_000];
/// How long one try may take, from connecting to the answer's status.
pub const TRY_TIMEOUT_MS: u64 = 10_000;

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered with this status.
    Answered(u16),
    /// No answer came, for this reason.
    Failed(String),
}

/// What happens to the delivery after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The receiver has it: any 2xx.
    Delivered,
    /// Another try is due then.
    Again(Timestamp),
    /// All tries are used up.
    GaveUp,
}

/// Decides after try number `tries` (counted from 1).
#[must_use]
pub fn after_try(tries: u32, outcome: &Outcome, now: Timestamp) -> Next {
    match outcome {
        Outcome::Answered(200..=299) => Next::Delivered,
        Outcome::Answered(_) | Outcome::Failed(_) => {
            let pause = usize::try_from(tries)
                .ok()
                .and_then(|n| PAUSES_MS.get(n.checked_sub(1)?));
            match pause {
                Some(&pause_ms) => Next::Again(now.plus_ms(pause_ms)),
                None => Next::GaveUp,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tries_ten_seconds_apart() {
        let now = Timestamp::from_ms(1_000);
        let down = Outcome::Failed("connection refused".to_owned());
        assert_eq!(
            after_try(1, &down, now),
            Next::Again(Timestamp::from_ms(11_000))
        );
        assert_eq!(
            after_try(2, &Outcome::Answered(500), now),
            Next::Again(now.plus_ms(10_000))
        );
        assert_eq!(after_try(3, &down, now), Next::GaveUp);
    }

    #[test]
    fn any_2xx_is_success_and_nothing_else() {
        let now = Timestamp::from_ms(0);
        for status in [200, 201, 204, 299] {
            assert_eq!(
                after_try(1, &Outcome::Answered(status), now),
                Next::Delivered
            );
        }
        for status in [199, 300, 302, 404, 500] {
            assert_eq!(after_try(3, &Outcome::Answered(status), now), Next::GaveUp);
        }
    }
}
