//! What workers do on both stores, and what happens to them.

use lazyfox_core::id::{JobId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_core::limits;
use lazyfox_store::{Ask, Extra, Heartbeat, HolderEvent};

use super::super::ops::{Busy, ENDPOINTS, Gone, Speaker, WORKERS, What};
use super::Replay;
use crate::world::*;

impl Replay {
    pub(super) fn ask(&self, on: usize, by: usize, count: usize) -> Ask {
        Ask {
            endpoint: endpoint(ENDPOINTS[on]),
            worker: worker(WORKERS[by]),
            count,
            extra: Extra::default(),
            lease_ms: limits::LEASE_MS - 10_000,
            disowns_before: None,
        }
    }

    pub(super) async fn lease(&mut self, on: usize, ask: Ask) -> Vec<(JobId, usize)> {
        let now = self.now;
        let leased = self
            .both(async |store| store.lease(ask.clone(), now).await)
            .await;
        self.ledger.leased(&ask, &leased, now);
        let handouts = leased.handouts.iter();
        handouts.map(|handout| (handout.job.id, on)).collect()
    }

    pub(super) async fn run(&mut self, on: usize, by: usize, what: What) {
        let ask = self.ask(on, by, 1);
        for (id, of) in self.lease(on, ask).await {
            self.apply(of, id, what, Speaker::Worker(by), Some(1)).await;
        }
    }

    pub(super) async fn finish(&mut self, by: Busy, what: What) {
        let by = self.worker(by);
        for id in self.ledger.begun(&worker(WORKERS[by])) {
            let (_, on) = self.ids.iter().find(|(known, _)| *known == id).unwrap();
            self.apply(*on, id, what, Speaker::Worker(by), Some(2))
                .await;
        }
    }

    /// Mostly one that has something to lose, else any.
    fn worker(&self, by: Busy) -> usize {
        let busy = |n: &usize| !self.ledger.held(&worker(WORKERS[*n])).is_empty();
        let busy: Vec<usize> = (0..WORKERS.len()).filter(busy).collect();
        match by {
            Busy::Any(n) => n,
            Busy::Holding(n) => n.checked_rem(busy.len()).map_or(0, |n| busy[n]),
        }
    }

    /// Every other one of those that the worker holds, the rest of all.
    fn named(&self, by: &WorkerId, jobs: &[usize]) -> Vec<JobId> {
        let held = self.ledger.held(by);
        let named = jobs
            .iter()
            .filter_map(|&n| match n.checked_rem(held.len()) {
                Some(place) if n % 2 == 0 => Some(held[place]),
                Some(_) | None => self.job(n).map(|(id, _)| id),
            });
        let mut named: Vec<JobId> = named.collect();
        named.sort_unstable();
        named.dedup();
        named
    }

    pub(super) async fn renew(&mut self, by: Busy, jobs: Option<&[usize]>, begins: bool) {
        let now = self.now;
        let by = self.worker(by);
        let beat = Heartbeat {
            worker: worker(WORKERS[by]),
            endpoint: endpoint("a"),
            jobs: jobs.map(|jobs| self.named(&worker(WORKERS[by]), jobs)),
            lease_ms: limits::LEASE_MS,
        };
        let renewed = self
            .both(async |store| store.renew(beat.clone(), now).await)
            .await;
        self.ledger
            .renewed(&beat.worker, beat.jobs.as_deref(), &renewed);
        for id in renewed.begun.into_iter().filter(|_| begins) {
            let (_, on) = self.ids.iter().find(|(known, _)| *known == id).unwrap();
            self.apply(*on, id, What::Begin, Speaker::Worker(by), None)
                .await;
        }
    }

    pub(super) async fn held(&mut self, by: Busy, how: Gone, begun: &[usize]) {
        let (now, by) = (self.now, worker(WORKERS[self.worker(by)]));
        let begun = self.named(&by, begun);
        let (event, same) = match how {
            Gone::Evicted => {
                let worker = by.clone();
                (HolderEvent::Evict, Event::Evict { worker })
            }
            Gone::Lost | Gone::Died => {
                let (how, died) = ("exited with code 1".to_owned(), how == Gone::Died);
                let same = Event::Lost {
                    worker: by.clone(),
                    how: how.clone(),
                    died,
                };
                let begun = begun.clone();
                (HolderEvent::Lost { how, died, begun }, same)
            }
        };
        let changes = self
            .both(async |store| store.apply_to_held(&by, event.clone(), now).await)
            .await;
        self.ledger.let_go(&by, &same, &begun, &changes);
    }

    pub(super) async fn release(&mut self, on: usize, fingerprint: u8) {
        let (on, now) = (endpoint(ENDPOINTS[on]), self.now);
        let release = self
            .both(async |store| store.release(&on, [fingerprint; 32], now).await)
            .await;
        self.ledger.released(&on, fingerprint, release, now);
    }

    pub(super) async fn set_override(&mut self, on: usize, settings: Option<u8>) {
        let on = endpoint(ENDPOINTS[on]);
        let settings = settings.map(|n| format!("{{\"n\": {n}.0}}"));
        self.both(async |store| store.set_override(&on, settings.clone()).await)
            .await;
        self.ledger.overridden(&on, settings);
        self.compare_overrides().await;
    }

    pub(super) async fn compare_overrides(&self) {
        let kept = self.both(async |store| store.overrides().await).await;
        self.ledger.check_overrides(kept);
    }
}
