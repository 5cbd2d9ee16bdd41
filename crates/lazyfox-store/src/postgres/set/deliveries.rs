//! Deliveries of a set.

use lazyfox_core::delivery::{Next, State, Try};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::job::Job;
use lazyfox_core::time::Timestamp;

use super::Set;
use crate::engine::{DeliveryRow, Seq};
use crate::{Due, Settlement};

/// A delivery.
pub(in crate::postgres) struct Sent {
    /// As it was read; `None` when its job ended in this group.
    pub(in crate::postgres) kept: Option<DeliveryRow>,
    /// As it is now. Of a new one, what is not known here (its size, its host, its count) is found out
    /// where it is written.
    pub(in crate::postgres) row: DeliveryRow,
}

/// A try to be kept, with its count.
pub(in crate::postgres) struct SentTry {
    pub(in crate::postgres) number: u64,
    pub(in crate::postgres) count: u32,
    pub(in crate::postgres) made: Try,
}

impl Set {
    /// A delivery that was read.
    pub(in crate::postgres) fn add_kept(&mut self, row: DeliveryRow) {
        let sent = Sent {
            kept: Some(row.clone()),
            row,
        };
        self.deliveries.entry(sent.row.due.number).or_insert(sent);
    }

    pub(super) fn add_sent(&mut self, number: u64, seq: Seq, job: &Job, now: Timestamp) -> Due {
        let due = Due {
            number,
            endpoint: job.endpoint.clone(),
            host: "".into(),
            bytes: 0,
            due_at: now,
        };
        let row = DeliveryRow {
            due: due.clone(),
            seq,
            id: DeliveryId {
                job: job.id,
                // Behind all that are kept, whose count is not known.
                number: u32::MAX,
            },
            state: State::Pending,
            created_at: now,
            tries: 0,
            round: 0,
            keep_until: Timestamp::NEVER,
        };
        self.deliveries.insert(number, Sent { kept: None, row });
        due
    }

    pub(super) fn sent(&self, number: u64) -> Option<DeliveryRow> {
        self.deliveries.get(&number).map(|sent| sent.row.clone())
    }

    pub(super) fn sent_of(&self, seq: Seq) -> Vec<DeliveryRow> {
        let of_job = self.deliveries.values().filter(|sent| sent.row.seq == seq);
        of_job.map(|sent| sent.row.clone()).collect()
    }

    pub(super) fn update_sent(&mut self, row: &DeliveryRow) {
        if let Some(sent) = self.deliveries.get_mut(&row.due.number) {
            sent.row = row.clone();
        }
    }

    pub(super) fn settle_sent(&mut self, settlement: &Settlement) -> bool {
        let Settlement { due, .. } = settlement;
        let Some(Sent { row, .. }) = self.deliveries.get_mut(&due.number) else {
            return false;
        };
        let is_as_it_was = row.state == State::Pending
            && row.due.due_at == due.due_at
            && row.round == settlement.round;
        if is_as_it_was {
            row.state = settlement.next.state();
            row.tries += 1;
            row.round += 1;
            row.keep_until = settlement.keep_until;
            if let Next::Again(at) = settlement.next {
                row.due.due_at = at;
            }
        }
        is_as_it_was
    }

    pub(super) fn add_sent_try(&mut self, number: u64, made: &Try) {
        if let Some(Sent { row, .. }) = self.deliveries.get(&number) {
            self.tries.push(SentTry {
                number,
                count: row.tries,
                made: made.clone(),
            });
        }
    }
}
