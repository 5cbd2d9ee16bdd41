//! What a set knows of chunks.

use bytes::Bytes;
use lazyfox_core::id::JobId;

use super::{Entry, Set};
use crate::engine::Seq;

impl Set {
    pub(in crate::postgres) fn add_chunks(
        &mut self,
        job: JobId,
        waiting: usize,
        bodies: Vec<(i64, Bytes)>,
    ) {
        let entry = self.ids.get(&job).and_then(|seq| self.entries.get_mut(seq));
        if let Some(entry) = entry {
            let read: usize = bodies.iter().map(|(_, body)| body.len()).sum();
            entry.chunks.more = read < waiting;
            entry.chunks.bytes = Some(waiting);
            entry.chunks.bodies = bodies;
        }
    }

    /// Bytes of chunks of each job, as an index needs them. Where nobody looked there may be some, and to
    /// delete none does no harm.
    pub(in crate::postgres) fn chunk_bytes(&self) -> impl Iterator<Item = (Seq, usize)> + '_ {
        let of = |entry: &Entry| match entry.kept {
            Some(_) => entry.chunks.bytes.unwrap_or(1),
            None => 0,
        };
        self.entries
            .iter()
            .map(move |(&seq, entry)| (seq, of(entry)))
    }

    /// Up to which number chunks of a job were taken so far.
    pub(in crate::postgres) fn taken_through(&self, job: JobId) -> Option<i64> {
        self.of(job)?.chunks.taken_through
    }

    /// Whether some up to this number are there, of those that were read.
    pub(in crate::postgres) fn has_chunks_through(&self, job: JobId, through: i64) -> bool {
        let first = self.of(job).and_then(|entry| entry.chunks.bodies.first());
        first.is_some_and(|(n, _)| *n <= through)
    }

    fn of(&self, job: JobId) -> Option<&Entry> {
        self.ids.get(&job).and_then(|seq| self.entries.get(seq))
    }
}
