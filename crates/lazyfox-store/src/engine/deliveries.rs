//! What the engine does with deliveries.

use lazyfox_core::delivery::{Next, State};
use lazyfox_core::id::{DeliveryId, EndpointId};
use lazyfox_core::job::Job;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Traffic;

use super::{Engine, Result, Rows, Seq};
use crate::{Due, Outbox, Redelivery, Settlement, StoreError};

/// A job's record that is due to go waits this long for a delivery that is still open, and is then looked
/// at again.
const OPEN_MS: u64 = 10 * 60_000;
/// Jobs that are looked at in one pruning: callers wait behind it, and the next one goes on.
const LOOKED_MAX: usize = 1_000;

/// A delivery as it is kept, without its tries. When it is due means something only while it is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryRow {
    pub(crate) due: Due,
    pub(crate) seq: Seq,
    pub(crate) id: DeliveryId,
    pub(crate) state: State,
    pub(crate) created_at: Timestamp,
    /// All tries so far.
    pub(crate) tries: u32,
    /// Those of the present round.
    pub(crate) round: u32,
    pub(crate) keep_until: Timestamp,
}

/// An ended job whose retention is over.
#[derive(Clone, Copy)]
pub(crate) struct Forgettable {
    pub(crate) seq: Seq,
    /// Without one there are no deliveries to look for.
    pub(crate) has_webhook: bool,
}

impl<R: Rows> Engine<R> {
    pub(crate) fn outbox(&self, traffic: Traffic, now: Timestamp) -> Outbox {
        self.index.open.outbox(traffic, now)
    }

    pub(super) fn deliver(&mut self, seq: Seq, job: &Job, now: Timestamp) -> Result<()> {
        let number = self.index.open.next_number();
        let due = self.rows.add_delivery(number, seq, job, now)?;
        self.index.open.enter(&due);
        Ok(())
    }

    /// Settles a job's open delivery, if it has one, without a try.
    pub(super) fn withdraw(&mut self, rows: &[DeliveryRow]) -> Result<()> {
        for row in rows {
            if row.state == State::Pending {
                self.update_delivery(row, |after| {
                    after.state = State::Withdrawn;
                    after.keep_until = after.created_at;
                })?;
            }
        }
        Ok(())
    }

    pub(crate) fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<u64>> {
        let mut damaged = Vec::new();
        for settlement in settlements {
            match self.settle_one(settlement) {
                // What is found to be damaged is found before anything is changed.
                Err(StoreError::Corrupt(_)) => damaged.push(settlement.due.number),
                settled => settled?,
            }
        }
        Ok(damaged)
    }

    fn settle_one(&mut self, settlement: &Settlement) -> Result<()> {
        let due = &settlement.due;
        if self.rows.settle(settlement)? {
            self.index.open.leave(due);
            if let Next::Again(due_at) = settlement.next {
                self.index.open.enter(&Due {
                    due_at,
                    ..due.clone()
                });
            }
            return self.rows.add_try(due.number, &settlement.made);
        }
        let Some(row) = self.rows.delivery(due.number)? else {
            return Ok(());
        };
        // A late answer must neither open again what is settled, nor end a round that began after it. It
        // is kept all the same.
        let is_current = row.state == State::Pending && row.round == settlement.round;
        self.update_delivery(&row, |after| {
            after.tries += 1;
            if is_current {
                after.state = settlement.next.state();
                after.round += 1;
                after.keep_until = settlement.keep_until;
                if let Next::Again(due_at) = settlement.next {
                    after.due.due_at = due_at;
                }
            }
        })?;
        self.rows.add_try(due.number, &settlement.made)
    }

    pub(crate) fn redeliver(
        &mut self,
        endpoint: &EndpointId,
        ids: &[DeliveryId],
        now: Timestamp,
    ) -> Result<Vec<Redelivery>> {
        // All are read before one is changed: where one is damaged, there is no commit that fails.
        let found = ids.iter().map(|id| self.redeliverable(endpoint, *id));
        let found = found.collect::<Result<Vec<_>>>()?;
        for row in found.iter().filter_map(|(_, row)| row.as_ref()) {
            self.update_delivery(row, |after| {
                after.state = State::Pending;
                after.due.due_at = now;
                after.round = 0;
                after.keep_until = Timestamp::NEVER;
            })?;
        }
        Ok(found.into_iter().map(|(became, _)| became).collect())
    }

    /// What becomes of the wish to send a delivery again, and the delivery if it is granted.
    fn redeliverable(
        &mut self,
        endpoint: &EndpointId,
        id: DeliveryId,
    ) -> Result<(Redelivery, Option<DeliveryRow>)> {
        let Some((seq, job)) = self.find(endpoint, id.job)? else {
            return Ok((Redelivery::Unknown, None));
        };
        let rows = self.rows.deliveries_of(seq)?;
        let Some(row) = rows.iter().find(|row| row.id == id) else {
            return Ok((Redelivery::Unknown, None));
        };
        // It reports one end of the job. Each end that is reported has its own, so the present one's is the
        // latest; times would not tell ends of the same millisecond apart.
        let is_latest = rows.last() == Some(row);
        let is_reported = job.terms.reports(job.status());
        if row.state == State::Withdrawn || !is_latest || !is_reported {
            return Ok((Redelivery::Outdated, None));
        }
        Ok((Redelivery::Due, Some(row.clone())))
    }

    fn update_delivery(
        &mut self,
        before: &DeliveryRow,
        change: impl FnOnce(&mut DeliveryRow),
    ) -> Result<()> {
        let mut after = before.clone();
        change(&mut after);
        self.rows.update_delivery(&after)?;
        if before.state == State::Pending {
            self.index.open.leave(&before.due);
        }
        if after.state == State::Pending {
            self.index.open.enter(&after.due);
        }
        Ok(())
    }

    /// Deletes ended jobs whose time is over. One with a delivery that is still wanted gets more time
    /// instead, so that it is not in the way of others when the next ones are looked for.
    pub(crate) fn prune(&mut self, now: Timestamp, limit: usize) -> Result<usize> {
        let (mut pruned, mut looked) = (0, 0);
        while pruned < limit && looked < LOOKED_MAX {
            let over = self.rows.forgettable(now, limit - pruned)?;
            if over.is_empty() {
                break;
            }
            looked += over.len();
            for job in over {
                match self.wanted_until(job)?.filter(|until| *until > now) {
                    Some(until) => {
                        // An open one may be settled any time.
                        let again = if until == Timestamp::NEVER {
                            now.plus_ms(OPEN_MS)
                        } else {
                            until
                        };
                        self.rows.postpone(job.seq, again)?;
                    }
                    None => {
                        self.rows.delete(job)?;
                        self.index.forget(job.seq);
                        pruned += 1;
                    }
                }
            }
        }
        Ok(pruned)
    }

    /// Until when a job's deliveries are kept, if it has any. Where that cannot be read, it may be wanted:
    /// it stays, and does not keep the others from going.
    fn wanted_until(&mut self, job: Forgettable) -> Result<Option<Timestamp>> {
        if !job.has_webhook {
            return Ok(None);
        }
        let rows = match self.rows.deliveries_of(job.seq) {
            Err(StoreError::Corrupt(_)) => return Ok(Some(Timestamp::NEVER)),
            rows => rows?.into_iter(),
        };
        let until = rows.map(|row| match row.state {
            // Whatever its tries say: without the record it could not be sent.
            State::Pending => Timestamp::NEVER,
            State::Delivered | State::Failed | State::Withdrawn => row.keep_until,
        });
        Ok(until.max())
    }
}
