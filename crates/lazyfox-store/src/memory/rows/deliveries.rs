//! Deliveries in maps.

use std::collections::BTreeMap;

use lazyfox_core::delivery::{Next, State, Try};
use lazyfox_core::id::{DeliveryId, EndpointId};
use lazyfox_core::job::Job;
use lazyfox_core::time::Timestamp;

use super::{MapRows, Record};
use crate::engine::{DeliveryRow, Result, Seq};
use crate::{
    Delivery, DeliveryPage, DeliveryQuery, Due, LIST_VISITS_MAX, Outgoing, Parts, Settlement,
    WebhookSecret,
};

type Kept = (DeliveryRow, Vec<Try>);

#[derive(Default)]
pub(super) struct Deliveries {
    pub(super) rows: BTreeMap<u64, Kept>,
    /// Numbers of each job's, in order.
    jobs: BTreeMap<Seq, Vec<u64>>,
    /// The newest first.
    secrets: BTreeMap<EndpointId, Vec<WebhookSecret>>,
}

impl Deliveries {
    pub(super) fn of(&self, seq: Seq) -> Vec<DeliveryRow> {
        let rows = self.numbers_of(seq).iter().map(|it| self.rows.get(it));
        rows.flatten().map(|(row, _)| row.clone()).collect()
    }

    pub(super) fn settle(&mut self, settlement: &Settlement) -> bool {
        let Settlement { due, .. } = settlement;
        let Some((row, _)) = self.rows.get_mut(&due.number) else {
            return false;
        };
        let is_as_it_was =
            row.state == State::Pending && row.due == *due && row.round == settlement.round;
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

    fn numbers_of(&self, seq: Seq) -> &[u64] {
        self.jobs.get(&seq).map_or(&[], |numbers| numbers)
    }

    pub(super) fn add(&mut self, row: DeliveryRow) {
        self.jobs.entry(row.seq).or_default().push(row.due.number);
        self.rows.insert(row.due.number, (row, Vec::new()));
    }

    pub(super) fn forget(&mut self, seq: Seq) {
        for number in self.jobs.remove(&seq).unwrap_or_default() {
            self.rows.remove(&number);
        }
    }

    /// Those before this number, the newest first: of one job, or all.
    fn before(&self, number: u64, of: Option<Seq>) -> Box<dyn Iterator<Item = &Kept> + '_> {
        match of {
            None => Box::new(self.rows.range(..number).rev().map(|(_, kept)| kept)),
            Some(seq) => {
                let numbers = self.numbers_of(seq).iter().rev();
                let before = numbers.filter(move |it| **it < number);
                Box::new(before.filter_map(|it| self.rows.get(it)))
            }
        }
    }

    pub(super) fn secrets(&self, endpoint: &EndpointId) -> Vec<WebhookSecret> {
        self.secrets.get(endpoint).cloned().unwrap_or_default()
    }

    pub(super) fn add_secret(
        &mut self,
        endpoint: &EndpointId,
        secret: &WebhookSecret,
        previous_until: Timestamp,
    ) {
        let secrets = self.secrets.entry(endpoint.clone()).or_default();
        secrets.truncate(1);
        if let Some(previous) = secrets.first_mut() {
            previous.valid_until = Some(previous_until);
        }
        secrets.insert(0, secret.clone());
    }
}

impl Record {
    /// What a delivery of this job carries, in bytes.
    fn bytes(&self) -> u64 {
        let output = self.output.as_ref().map_or(0, bytes::Bytes::len);
        (self.input.len() + output) as u64
    }
}

impl MapRows {
    pub(super) fn new_delivery(
        &mut self,
        number: u64,
        seq: Seq,
        job: &Job,
        now: Timestamp,
    ) -> Result<DeliveryRow> {
        let before = self.deliveries.numbers_of(seq).len();
        let record = self.record(seq)?;
        let host = record.webhook.as_ref().map(|webhook| webhook.host.as_str());
        let due = Due {
            number,
            endpoint: job.endpoint.clone(),
            host: host.unwrap_or_default().into(),
            bytes: record.bytes(),
            due_at: now,
        };
        Ok(DeliveryRow {
            due,
            seq,
            id: DeliveryId {
                job: job.id,
                number: u32::try_from(before + 1).unwrap_or(u32::MAX),
            },
            state: State::Pending,
            created_at: now,
            tries: 0,
            round: 0,
            keep_until: Timestamp::NEVER,
        })
    }

    pub(in crate::memory) fn outgoing(&self, number: u64, parts: Parts) -> Option<Outgoing> {
        let (row, _) = self.deliveries.rows.get(&number)?;
        if row.state != State::Pending {
            return None;
        }
        let record = self.records.get(&row.seq)?;
        Some(Outgoing {
            id: row.id,
            url: record.webhook.clone()?.url,
            round: row.round,
            loaded: record.loaded(parts),
        })
    }

    pub(in crate::memory) fn list_deliveries(&self, query: &DeliveryQuery) -> DeliveryPage {
        let mut page = DeliveryPage::default();
        let mut next = None;
        // No job has the number 0.
        let of = query
            .job
            .map(|job| self.ids.get(&job).copied().unwrap_or(0));
        let rows = self.deliveries.before(query.before.unwrap_or(u64::MAX), of);
        for (visits, (row, tries)) in rows.enumerate() {
            let matches = row.due.endpoint == query.endpoint
                && query.state.is_none_or(|state| row.state == state)
                && query.created.contains(&row.created_at);
            let full = matches && page.deliveries.len() == query.limit;
            if full || visits == LIST_VISITS_MAX {
                page.next = next;
                break;
            }
            next = Some(row.due.number);
            let webhook = self.records.get(&row.seq).and_then(|it| it.webhook.clone());
            if let Some(webhook) = webhook.filter(|_| matches) {
                page.deliveries.push(Delivery {
                    id: row.id,
                    state: row.state,
                    webhook,
                    bytes: row.due.bytes,
                    created_at: row.created_at,
                    due_at: (row.state == State::Pending).then_some(row.due.due_at),
                    tries: tries.clone(),
                });
            }
        }
        page
    }
}
