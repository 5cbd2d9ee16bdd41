//! Where the queue of each endpoint begins.
//!
//! A job that was taken leaves a dead entry in the index of those that wait, and as long as some
//! transaction anywhere may still see it, every search for the next job would walk over it: after a
//! minute of load over a hundred thousand. So a search begins where the last one found the first job that
//! waits. Whoever puts a job in front of that (one submitted a moment earlier but committed later, or one
//! that comes back) says so with the notice that wakes others, and lowers it at home before anybody is
//! answered. What nobody said, since a server died or a transaction was undone, is found by the look once
//! a second, which begins at a place of its own that follows later. Only a job that came back while the
//! server that saw to it died before it could say so may be in front of that too: a look at everything
//! finds it, every 15 s.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lazyfox_core::id::EndpointId;
use tokio::time::Instant;

use crate::engine::Seq;

/// Time between two looks from the very beginning.
const ALL_EVERY: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct Floors {
    endpoints: Mutex<HashMap<EndpointId, Floor>>,
}

#[derive(Default)]
struct Floor {
    /// Searches for the next jobs begin here.
    search: Seq,
    /// Searches under way, each with the lowest place that was told since it began.
    open: BTreeMap<u64, Seq>,
    opened: u64,
    /// Looks begin here.
    look: Seq,
    /// Where the next ones may begin, once this was so for long enough.
    candidate: Option<(Instant, Seq)>,
    all_at: Option<Instant>,
}

/// A search that has begun.
pub(super) struct Search {
    pub(super) from: Seq,
    number: u64,
}

impl Floors {
    fn endpoints(&self) -> MutexGuard<'_, HashMap<EndpointId, Floor>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, endpoint: &EndpointId) -> Search {
        let mut endpoints = self.endpoints();
        let floor = endpoints.entry(endpoint.clone()).or_default();
        floor.opened += 1;
        floor.open.insert(floor.opened, Seq::MAX);
        Search {
            from: floor.search,
            number: floor.opened,
        }
    }

    /// The search found this job as the first that waits in the normal lane, and what it did is
    /// committed.
    pub(super) fn found(&self, endpoint: &EndpointId, search: &Search, first: Option<Seq>) {
        let mut endpoints = self.endpoints();
        let Some(floor) = endpoints.get_mut(endpoint) else {
            return;
        };
        let told = floor.open.remove(&search.number);
        if let (Some(first), Some(told)) = (first, told) {
            floor.search = floor.search.max(first.min(told));
        }
    }

    /// What the search did is undone, perhaps.
    pub(super) fn undone(&self, endpoint: &EndpointId, search: &Search) {
        if let Some(floor) = self.endpoints().get_mut(endpoint) {
            floor.open.remove(&search.number);
            floor.lower(floor.look);
        }
    }

    /// There is a job at this place.
    pub(super) fn told(&self, endpoint: &EndpointId, seq: Seq) {
        if let Some(floor) = self.endpoints().get_mut(endpoint) {
            floor.lower(seq);
        }
    }

    /// Something may not have been heard.
    pub(super) fn missed(&self) {
        for floor in self.endpoints().values_mut() {
            floor.lower(floor.look);
        }
    }

    /// Where a look at this endpoint begins.
    pub(super) fn look_from(&self, endpoint: &EndpointId, now: Instant) -> Seq {
        let mut endpoints = self.endpoints();
        let floor = endpoints.entry(endpoint.clone()).or_default();
        if floor.all_at.is_none_or(|at| now >= at + ALL_EVERY) {
            floor.all_at = Some(now);
            floor.look = 0;
            floor.candidate = None;
        }
        floor.look
    }

    /// A look that began at `began_at` found this job as the first that waits in the normal lane; where
    /// there is none, the next place that would be given.
    pub(super) fn looked(
        &self,
        endpoint: &EndpointId,
        (began_at, lag): (Instant, Duration),
        first: Seq,
    ) {
        let mut endpoints = self.endpoints();
        let Some(floor) = endpoints.get_mut(endpoint) else {
            return;
        };
        match floor.candidate {
            Some((since, seq)) if began_at >= since + lag => {
                floor.look = floor.look.max(seq.min(first));
                floor.candidate = Some((began_at, first));
            }
            Some((since, seq)) => floor.candidate = Some((since, seq.min(first))),
            None => floor.candidate = Some((began_at, first)),
        }
        floor.lower(first);
    }

    /// Where looks at each endpoint begin, as far as is known.
    pub(super) fn all(&self) -> Vec<(EndpointId, Seq)> {
        let endpoints = self.endpoints();
        let all = endpoints.iter();
        all.map(|(endpoint, floor)| (endpoint.clone(), floor.look))
            .collect()
    }

    pub(super) fn look_of(&self, endpoint: &EndpointId) -> Seq {
        self.endpoints().get(endpoint).map_or(0, |floor| floor.look)
    }
}

impl Floor {
    fn lower(&mut self, seq: Seq) {
        self.search = self.search.min(seq);
        self.look = self.look.min(seq);
        if let Some((_, candidate)) = &mut self.candidate {
            *candidate = (*candidate).min(seq);
        }
        for told in self.open.values_mut() {
            *told = (*told).min(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floors() -> (Floors, EndpointId) {
        (Floors::default(), "a".parse().unwrap())
    }

    fn found(floors: &Floors, on: &EndpointId, first: Seq) {
        let search = floors.begin(on);
        floors.found(on, &search, Some(first));
    }

    const LAG: Duration = Duration::from_secs(2);

    fn from(floors: &Floors, on: &EndpointId) -> Seq {
        let search = floors.begin(on);
        let from = search.from;
        floors.undone(on, &search);
        from
    }

    #[test]
    fn a_search_begins_where_the_last_one_found_something() {
        let (floors, on) = floors();
        found(&floors, &on, 10);
        let search = floors.begin(&on);
        assert_eq!(search.from, 10);
        // There was nothing, and there may be something at the same place.
        floors.found(&on, &search, None);
        assert_eq!(floors.begin(&on).from, 10);
    }

    #[test]
    fn what_is_told_is_not_passed_over() {
        let (floors, on) = floors();
        found(&floors, &on, 10);
        floors.told(&on, 7);
        assert_eq!(floors.begin(&on).from, 7);
    }

    #[test]
    fn what_is_told_while_a_search_is_under_way_is_not_passed_over() {
        let (floors, on) = floors();
        let search = floors.begin(&on);
        floors.told(&on, 7);
        floors.found(&on, &search, Some(20));
        assert_eq!(floors.begin(&on).from, 7);
    }

    #[test]
    fn after_something_was_undone_a_search_begins_where_looks_do() {
        let (floors, on) = floors();
        found(&floors, &on, 10);
        let search = floors.begin(&on);
        floors.undone(&on, &search);
        assert_eq!(from(&floors, &on), 0);
        found(&floors, &on, 10);
        floors.missed();
        assert_eq!(from(&floors, &on), 0);
    }

    #[test]
    fn looks_follow_what_was_so_for_long_enough() {
        let (floors, on) = floors();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(floors.look_from(&on, at(0)), 0);
        floors.looked(&on, (at(0), LAG), 10);
        floors.looked(&on, (at(1_000), LAG), 30);
        assert_eq!(floors.look_from(&on, at(1_000)), 0);
        floors.looked(&on, (at(2_000), LAG), 50);
        assert_eq!(floors.look_from(&on, at(2_000)), 10);
        // One comes into sight in front of what was seen meanwhile.
        floors.looked(&on, (at(3_000), LAG), 12);
        floors.looked(&on, (at(4_000), LAG), 70);
        assert_eq!(floors.look_from(&on, at(4_000)), 12);
        // One comes back.
        floors.told(&on, 5);
        assert_eq!(floors.look_from(&on, at(4_000)), 5);
        floors.looked(&on, (at(5_000), LAG), 80);
        assert_eq!(floors.look_from(&on, at(5_000)), 5);
        assert_eq!(floors.look_from(&on, at(15_000)), 0);
    }

    #[test]
    fn what_a_look_finds_lowers_where_searches_begin() {
        let (floors, on) = floors();
        found(&floors, &on, 10);
        floors.looked(&on, (Instant::now(), LAG), 4);
        assert_eq!(floors.begin(&on).from, 4);
    }
}
