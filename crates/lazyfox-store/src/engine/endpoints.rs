//! What the engine knows of endpoints beside their jobs.

use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::time::Timestamp;

use super::{Engine, Result, Rows};
use crate::{Place, Release};

impl<R: Rows> Engine<R> {
    pub(crate) fn place(&mut self, endpoint: &EndpointId, id: JobId) -> Result<Option<Place>> {
        let found = self.find(endpoint, id)?;
        Ok(found.and_then(|(seq, job)| self.index.place(seq, &job)))
    }

    pub(crate) fn release(
        &mut self,
        endpoint: &EndpointId,
        fingerprint: &[u8; 32],
        now: Timestamp,
    ) -> Result<Release> {
        let latest = self.rows.release(endpoint)?;
        if let Some((release, known_by)) = latest
            && known_by == *fingerprint
        {
            return Ok(release);
        }
        let release = Release {
            number: latest.map_or(1, |(before, _)| before.number.saturating_add(1)),
            since: now,
        };
        self.rows.set_release(endpoint, release, fingerprint)?;
        Ok(release)
    }
}
