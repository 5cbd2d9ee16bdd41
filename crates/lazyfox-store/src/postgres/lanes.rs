//! What waits for each endpoint, and how many are at work on it: whoever asks at the same time is served
//! together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazyfox_core::id::EndpointId;

/// A lane for each endpoint that has something waiting or under way.
pub(super) struct Lanes<T> {
    /// How many are at work on one endpoint at the most.
    at_once: usize,
    /// With so much waiting, a further one begins beside those at work.
    further_from: usize,
    lanes: Mutex<HashMap<EndpointId, Lane<T>>>,
}

struct Lane<T> {
    waiting: VecDeque<T>,
    under_way: usize,
}

impl<T> Lanes<T> {
    pub(super) fn new(at_once: usize, further_from: usize) -> Self {
        Self {
            at_once,
            further_from,
            lanes: Mutex::default(),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<EndpointId, Lane<T>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one. True when the caller is to see that somebody begins to work, and calls
    /// [`Lanes::next`] until it gives nothing.
    pub(super) fn enter(&self, endpoint: &EndpointId, item: T) -> bool {
        let mut lanes = self.lanes();
        if !lanes.contains_key(endpoint) {
            let lane = Lane {
                waiting: VecDeque::new(),
                under_way: 0,
            };
            lanes.insert(endpoint.clone(), lane);
        }
        let Some(lane) = lanes.get_mut(endpoint) else {
            return false;
        };
        lane.waiting.push_back(item);
        let begins = lane.under_way == 0
            || (lane.under_way < self.at_once && lane.waiting.len() >= self.further_from);
        if begins {
            lane.under_way += 1;
        }
        begins
    }

    /// What `choose` takes of those that wait. When that is nothing, whoever asked has ended its work.
    pub(super) fn next(
        &self,
        endpoint: &EndpointId,
        choose: impl FnOnce(&mut VecDeque<T>) -> Vec<T>,
    ) -> Option<Vec<T>> {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(endpoint)?;
        let chosen = choose(&mut lane.waiting);
        if !chosen.is_empty() {
            return Some(chosen);
        }
        lane.under_way -= 1;
        if lane.under_way == 0 {
            lanes.remove(endpoint);
        }
        None
    }
}
