//! Which hosts do not answer, as each endpoint sees it: what one endpoint's webhooks do to a host is no
//! reason to keep another's from it. Without this, one that swallows connections would keep its places
//! busy for the length of the time-out, try after try, and use up the tries of deliveries that it cannot
//! get.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::EndpointId;
use crate::time::Timestamp;

/// Unanswered tries in a row after which a host is left alone for a while.
const MISSES_MAX: u32 = 5;
/// How long it is left alone first; doubled with each further miss.
const PAUSE_MS: u64 = 1_000;
/// The longest that it is left alone.
const PAUSE_MS_MAX: u64 = 60_000;
/// Hosts of endpoints that are remembered. When more than that do not answer, it is an attack or a lost
/// network, and the one that was heard of longest ago is forgotten.
const HOSTS_MAX: usize = 1_000;

/// An endpoint and a host that it calls.
pub(super) type Route = (EndpointId, Arc<str>);

/// Hosts that missed a try since they answered last.
#[derive(Clone, Debug, Default)]
pub(super) struct Breakers {
    routes: BTreeMap<Route, Breaker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Breaker {
    missed_at: Timestamp,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is called as usual; so many tries in a row were missed.
    Closed { misses: u32 },
    /// It is left alone until then, after which a single try finds out whether it answers again.
    Open {
        times: u32,
        since: Timestamp,
        until: Timestamp,
    },
}

impl Breakers {
    /// Since when and until when a host is or was left alone, if it has not answered since. When the clock
    /// was set back, the end may lie too far ahead: no host is left alone for longer than the longest pause.
    pub(super) fn open(&self, route: &Route, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        match self.routes.get(route)?.state {
            State::Closed { .. } => None,
            State::Open { since, until, .. } if until.ms_since(now) > PAUSE_MS_MAX => {
                Some((since.min(now), now))
            }
            State::Open { since, until, .. } => Some((since, until)),
        }
    }

    /// How many tries in a row a host that is left alone has missed.
    pub(super) fn misses_of_open(&self, route: &Route) -> Option<u32> {
        match self.routes.get(route)?.state {
            State::Closed { .. } => None,
            State::Open { times, .. } => Some((MISSES_MAX - 1).saturating_add(times)),
        }
    }

    pub(super) fn answered(&mut self, route: &Route) {
        self.routes.remove(route);
    }

    /// Notes that a try that began at `started_at` was not answered.
    pub(super) fn missed(&mut self, route: &Route, started_at: Timestamp, now: Timestamp) {
        let state = match self.routes.get(route).map(|breaker| breaker.state) {
            None => State::Closed { misses: 1 },
            Some(State::Closed { misses }) if misses + 1 < MISSES_MAX => {
                State::Closed { misses: misses + 1 }
            }
            Some(State::Closed { .. }) => opened(1, now, now),
            // It was under way when the host was given up, and says nothing new.
            Some(State::Open { until, .. }) if started_at < until => return,
            Some(State::Open { times, since, .. }) => opened(times.saturating_add(1), since, now),
        };
        let breaker = Breaker {
            missed_at: now,
            state,
        };
        self.routes.insert(route.clone(), breaker);
        if self.routes.len() > HOSTS_MAX {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        let oldest = self.routes.iter().min_by_key(|(_, it)| it.missed_at);
        if let Some(route) = oldest.map(|(route, _)| route.clone()) {
            self.routes.remove(&route);
        }
    }
}

fn opened(times: u32, since: Timestamp, now: Timestamp) -> State {
    let doublings = times.saturating_sub(1).min(16);
    let pause_ms = (PAUSE_MS << doublings).min(PAUSE_MS_MAX);
    State::Open {
        times,
        since,
        until: now.plus_ms(pause_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn route(host: &str) -> Route {
        ("a".parse().unwrap(), host.into())
    }

    fn until(breakers: &Breakers, now: Timestamp) -> Option<Timestamp> {
        breakers.open(&route("h"), now).map(|(_, until)| until)
    }

    #[test]
    fn a_host_is_left_alone_after_five_misses_and_longer_each_time() {
        let mut breakers = Breakers::default();
        let host = route("h");
        for _ in 0..4 {
            breakers.missed(&host, at(0), at(0));
            assert_eq!(until(&breakers, at(0)), None);
        }
        breakers.missed(&host, at(0), at(0));
        assert_eq!(until(&breakers, at(0)), Some(at(1_000)));
        // Those that were under way at the same time.
        breakers.missed(&host, at(999), at(5_000));
        assert_eq!(until(&breakers, at(0)), Some(at(1_000)));
        let mut now = at(1_000);
        for pause_ms in [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            breakers.missed(&host, now, now);
            let end = now.plus_ms(pause_ms);
            assert_eq!(breakers.open(&host, now), Some((at(0), end)));
            now = end;
        }
        assert_eq!(breakers.misses_of_open(&host), Some(12));
        breakers.answered(&host);
        assert_eq!(until(&breakers, now), None);
        // One miss afterwards is the first of five again.
        breakers.missed(&host, now, now);
        assert_eq!(until(&breakers, now), None);
    }

    #[test]
    fn another_endpoint_sees_for_itself() {
        let mut breakers = Breakers::default();
        for _ in 0..5 {
            breakers.missed(&route("h"), at(0), at(0));
        }
        let others = ("b".parse().unwrap(), "h".into());
        assert_eq!(breakers.open(&others, at(0)), None);
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_no_host_alone_for_longer() {
        let mut breakers = Breakers::default();
        for _ in 0..5 {
            breakers.missed(&route("h"), at(9_000_000), at(9_000_000));
        }
        assert_eq!(until(&breakers, at(8_999_000)), Some(at(9_001_000)));
        assert_eq!(until(&breakers, at(0)), Some(at(0)), "it is over");
    }

    #[test]
    fn the_table_has_an_end() {
        let mut breakers = Breakers::default();
        let count = i64::try_from(HOSTS_MAX).unwrap() + 10;
        for n in 0..count {
            for _ in 0..MISSES_MAX {
                breakers.missed(&route(&format!("h{n}")), at(n), at(n));
            }
        }
        assert_eq!(breakers.routes.len(), HOSTS_MAX);
        assert_eq!(breakers.open(&route("h9"), at(9)), None);
        assert!(breakers.open(&route("h10"), at(10)).is_some());
    }
}
