//! What the engine does for workers: jobs go out, signs of life come in, and what a worker leaves is lost.

use lazyfox_core::id::{JobId, WorkerId};
use lazyfox_core::job::{self, Event, Job, Step};
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;

use super::index::Cursor;
use super::{Engine, Result, Rows, Seq};
use crate::{Ask, Change, Handout, Heartbeat, HolderEvent, Leased, Renewed, StoreError};

/// Inputs handed out at once, in bytes: a batch of the largest jobs must not fill the memory.
const HANDOUT_BYTES: usize = 32 * limits::MIB;
/// Waiting jobs that one poll passes over: not for this worker, about to expire, or damaged.
/// When a million expire at once, polls must not each look at all of them.
const SKIPPED_MAX: usize = 1000;

/// What becomes of the next job in line.
enum Turn {
    /// It goes out, by this step.
    Goes(Box<(Step, Handout)>),
    /// It is not for this worker, or its end is due.
    PassedOver,
    /// It must not wait inside a worker, and none goes out before it.
    Stays,
}

impl<R: Rows> Engine<R> {
    pub(crate) fn lease(&mut self, ask: &Ask, now: Timestamp) -> Result<Leased> {
        let mut leased = Leased {
            lost: self.disowned(ask, now)?,
            ..Leased::default()
        };
        let mut from = None;
        let (mut bytes, mut skipped) = (0, 0);
        let mut damage = None;
        while leased.handouts.len() < ask.most() && bytes < HANDOUT_BYTES && skipped < SKIPPED_MAX {
            let waits = leased.handouts.len() >= ask.count;
            let Some((cursor, seq)) = self.index.next_waiting(&ask.endpoint, from) else {
                self.rows.ran_dry();
                break;
            };
            // Those of the low lane would wait behind others each time, and the one that ends its worker
            // before it is known to have begun would never be the first.
            if waits && from.is_some_and(|from: Cursor| from.is_of_other_lane(cursor)) {
                break;
            }
            from = Some(cursor);
            match self.turn(seq, ask, waits, now) {
                Ok(Turn::Goes(out)) => {
                    let (step, mut handout) = *out;
                    let change = self.carry_out(seq, &handout.job, step, None, now)?;
                    handout.job = change.job;
                    bytes += handout.input.len();
                    leased.handouts.push(handout);
                }
                Ok(Turn::PassedOver) => skipped += 1,
                Ok(Turn::Stays) => break,
                // It stays where it is and can be cancelled, and those behind it go out.
                Err(StoreError::Corrupt(what)) => {
                    skipped += 1;
                    damage = Some(StoreError::Corrupt(what));
                }
                Err(error) => return Err(error),
            }
        }
        match damage {
            // Nothing is lost by the error, and somebody gets to know.
            Some(error) if leased.handouts.is_empty() && leased.lost.is_empty() => Err(error),
            Some(_) | None => Ok(leased),
        }
    }

    /// Lets go of what the worker had before it said that it works on nothing.
    fn disowned(&mut self, ask: &Ask, now: Timestamp) -> Result<Vec<Change>> {
        let Some(before) = ask.disowns_before else {
            return Ok(Vec::new());
        };
        let mut held = self.index.held_by(&ask.worker);
        held.retain(|(_, job)| {
            let attempt = job.state.last_attempt();
            // It speaks for the endpoint that it polls.
            job.endpoint == ask.endpoint
                && attempt.is_some_and(|(_, started_at)| started_at < before)
        });
        let event = Event::Lost {
            worker: ask.worker.clone(),
            how: "asked for work without the job that it held".to_owned(),
            died: false,
        };
        self.lose(held, &event, &[], now)
    }

    /// A waiting job as it is, and what makes it the asking worker's, unless core refuses. Only reads: what
    /// turns out to be damaged here has had no effect.
    fn turn(&mut self, seq: Seq, ask: &Ask, waits: bool, now: Timestamp) -> Result<Turn> {
        let job = self.row(seq)?;
        let event = Event::Take {
            worker: ask.worker.clone(),
            lease_ms: ask.lease_ms,
            waits,
        };
        let Ok(step) = job::apply(&job, event, now) else {
            return Ok(Turn::PassedOver);
        };
        if waits && job.expiry_is_hard && job.expires_at < ask.extra.not_expiring_before {
            return Ok(Turn::Stays);
        }
        let (input, secrets) = self.rows.input(seq)?;
        let handout = Handout {
            job,
            input,
            secrets,
        };
        Ok(Turn::Goes(Box::new((step, handout))))
    }

    pub(crate) fn renew(&mut self, beat: &Heartbeat, now: Timestamp) -> Renewed {
        let held = self.index.held_by(&beat.worker);
        let mut renewed = Renewed {
            not_held: beat.jobs.clone().unwrap_or_default(),
            begun: Vec::new(),
            holds: !held.is_empty(),
        };
        for (seq, job) in held {
            renewed.not_held.retain(|id| *id != job.id);
            let waits = job.waits_in_worker();
            let is_meant = match &beat.jobs {
                None => true,
                Some(named) if named.contains(&job.id) => {
                    if waits {
                        renewed.begun.push(job.id);
                    }
                    true
                }
                // It waits behind what is named; a worker that names nothing would have begun with it.
                Some(named) => waits && !named.is_empty(),
            };
            let event = Event::Renew {
                worker: beat.worker.clone(),
                lease_ms: beat.lease_ms,
            };
            if is_meant && let Ok(step) = job::apply(&job, event, now) {
                self.rows.renewed(seq, &step.job);
                self.index.update(seq, &job, &step.job);
            }
        }
        renewed
    }

    pub(crate) fn apply_to_held(
        &mut self,
        worker: &WorkerId,
        event: &HolderEvent,
        now: Timestamp,
    ) -> Result<Vec<Change>> {
        let held = self.index.held_by(worker);
        let worker = worker.clone();
        match event {
            HolderEvent::Lost { how, died, begun } => {
                let (how, died) = (how.clone(), *died);
                let event = Event::Lost { worker, how, died };
                self.lose(held, &event, begun, now)
            }
            HolderEvent::Evict => {
                let event = Event::Evict { worker };
                let mut changes = Vec::new();
                for (seq, job) in held {
                    changes.extend(self.change(seq, &job, event.clone(), None, now)?.changed());
                }
                Ok(changes)
            }
        }
    }

    /// Lets a loss happen to jobs of one worker. Those that had begun are to blame for it, written or not;
    /// where that is known of none, the one that the worker had first is.
    fn lose(
        &mut self,
        held: Vec<(Seq, Job)>,
        event: &Event,
        known_to_have_begun: &[JobId],
        now: Timestamp,
    ) -> Result<Vec<Change>> {
        let had_begun = |job: &Job| !job.waits_in_worker() || known_to_have_begun.contains(&job.id);
        let first = held.iter().min_by_key(|(seq, job)| {
            let attempt = job.state.last_attempt();
            let had_since = attempt.map(|(_, started_at)| started_at);
            (had_since, job.terms.low_priority, *seq)
        });
        let to_blame = first
            .filter(|_| !held.iter().any(|(_, job)| had_begun(job)))
            .map(|(seq, _)| *seq);
        let mut changes = Vec::new();
        for (seq, job) in held {
            let blamed = match job.state.last_attempt() {
                Some((_, since)) if had_begun(&job) || to_blame == Some(seq) => {
                    job::begun_since(&job, since)
                }
                Some(_) | None => job.clone(),
            };
            if let Ok(step) = job::apply(&blamed, event.clone(), now) {
                changes.push(self.carry_out(seq, &job, step, None, now)?);
            }
        }
        Ok(changes)
    }
}
