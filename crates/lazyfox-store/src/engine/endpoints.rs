//! What the engine knows of endpoints beside their jobs.

use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::time::Timestamp;

use super::{Engine, Registers, Result, Rows};
use crate::{Place, Release};

impl<R: Rows> Engine<R> {
    pub(crate) fn place(&mut self, endpoint: &EndpointId, id: JobId) -> Result<Option<Place>> {
        let found = self.find(endpoint, id)?;
        Ok(found.and_then(|(seq, job)| self.index.place(seq, &job)))
    }
}

impl<R: Registers> Engine<R> {
    pub(crate) fn release(
        &mut self,
        endpoint: &EndpointId,
        fingerprint: &[u8; 32],
        now: Timestamp,
    ) -> Result<Release> {
        let latest = self.rows.release(endpoint)?;
        let release = next_release(latest, fingerprint, now);
        if latest.is_none_or(|(before, _)| before != release) {
            self.rows.set_release(endpoint, release, fingerprint)?;
        }
        Ok(release)
    }
}

/// The latest release if it is known by this fingerprint, else the next.
pub(crate) fn next_release(
    latest: Option<(Release, [u8; 32])>,
    fingerprint: &[u8; 32],
    now: Timestamp,
) -> Release {
    match latest {
        Some((release, known_by)) if known_by == *fingerprint => release,
        Some(_) | None => Release {
            number: latest.map_or(1, |(before, _)| before.number.saturating_add(1)),
            since: now,
        },
    }
}
