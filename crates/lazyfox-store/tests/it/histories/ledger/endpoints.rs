//! Places in line, releases, and settings that were changed.

use std::collections::BTreeMap;

use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::Status;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Place, Release};

use super::Ledger;

#[derive(Default)]
pub(super) struct Endpoints {
    /// Every release and what it was known by, the oldest first.
    releases: BTreeMap<EndpointId, Vec<(u8, Timestamp)>>,
    overrides: BTreeMap<EndpointId, String>,
}

impl Ledger {
    pub(crate) fn check_place(&self, id: JobId, place: Option<Place>) {
        let Some(entry) = self.kept(id) else {
            assert_eq!(place, None);
            return;
        };
        let waits = entry.job.status() == Status::InQueue;
        let low = entry.job.terms.low_priority;
        let queue = self.entries.iter().filter(|it| {
            it.job.endpoint == entry.job.endpoint && it.job.status() == Status::InQueue
        });
        let queue: Vec<_> = queue
            .map(|it| (it.job.terms.low_priority, it.job.id))
            .collect();
        let before = queue.iter().take_while(|(_, other)| *other != id);
        let ahead = before.filter(|(other_low, _)| *other_low == low).count();
        let normal = queue.iter().filter(|(other_low, _)| !other_low).count();
        let expected = Place {
            ahead: (ahead + if low { normal } else { 0 }) as u64,
            at_least: false,
            low,
        };
        assert_eq!(place, waits.then_some(expected));
    }

    pub(crate) fn released(
        &mut self,
        on: &EndpointId,
        fingerprint: u8,
        release: Release,
        now: Timestamp,
    ) {
        let all = self.endpoints.releases.entry(on.clone()).or_default();
        if all.last().is_none_or(|(latest, _)| *latest != fingerprint) {
            all.push((fingerprint, now));
        }
        let since = all.last().unwrap().1;
        assert_eq!((release.number as usize, release.since), (all.len(), since));
    }

    pub(crate) fn overridden(&mut self, on: &EndpointId, settings: Option<String>) {
        match settings {
            Some(text) => self.endpoints.overrides.insert(on.clone(), text),
            None => self.endpoints.overrides.remove(on),
        };
    }

    pub(crate) fn check_overrides(&self, kept: Vec<(EndpointId, String)>) {
        assert_eq!(
            kept,
            self.endpoints
                .overrides
                .clone()
                .into_iter()
                .collect::<Vec<_>>()
        );
    }
}
