//! Which deliveries are open and when they are due, in memory: some 50 bytes for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lazyfox_core::id::EndpointId;
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::{self, Traffic};

use crate::{Due, Outbox};

/// Lanes of an endpoint that are looked at for one choice, those of hosts that are left alone not counted: it
/// has not as many places, so the rest waits anyway.
const LANES_MAX: usize = 4_096;
/// Deliveries given up at once.
const HELD_MAX: usize = 100;

/// Of one endpoint to one host.
type LaneKey = (EndpointId, Arc<str>);
/// When due and which number, to its size.
type Lane = BTreeMap<(Timestamp, u64), u64>;

#[derive(Default)]
pub(crate) struct OpenDeliveries {
    lanes: BTreeMap<LaneKey, Lane>,
    /// Each lane by the time at which its first delivery is due.
    heads: BTreeSet<(Timestamp, LaneKey)>,
    /// The latest number that was given. None is given twice while a server runs: a try may still be under
    /// way for a delivery that is deleted.
    last: u64,
}

impl OpenDeliveries {
    pub(crate) fn with_last(last: u64) -> Self {
        Self {
            last,
            ..Self::default()
        }
    }

    /// Gives no number that was given before, though its delivery may be gone.
    pub(crate) fn number_after(&mut self, before: &Self) {
        self.last = self.last.max(before.last);
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn enter(&mut self, due: &Due) {
        let key = (due.endpoint.clone(), Arc::clone(&due.host));
        let lane = self.lanes.entry(key.clone()).or_default();
        let before = head(lane);
        lane.insert((due.due_at, due.number), due.bytes);
        let after = head(lane);
        self.moved(key, before, after);
    }

    pub(crate) fn leave(&mut self, due: &Due) {
        let key = (due.endpoint.clone(), Arc::clone(&due.host));
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let before = head(lane);
        lane.remove(&(due.due_at, due.number));
        let after = head(lane);
        if lane.is_empty() {
            self.lanes.remove(&key);
        }
        self.moved(key, before, after);
    }

    fn moved(&mut self, key: LaneKey, before: Option<Timestamp>, after: Option<Timestamp>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.heads.remove(&(before, key.clone()));
        }
        if let Some(after) = after {
            self.heads.insert((after, key));
        }
    }

    /// What goes out now, as far as there is room in the traffic.
    pub(crate) fn outbox(&self, mut traffic: Traffic, now: Timestamp) -> Outbox {
        let mut outbox = Outbox {
            next: Timestamp::NEVER,
            ..Outbox::default()
        };
        let mut lanes = Vec::new();
        let mut counts: BTreeMap<&EndpointId, usize> = BTreeMap::new();
        for (due_since, key) in &self.heads {
            let Some(lane) = self.lanes.get(key) else {
                continue;
            };
            if *due_since > now {
                outbox.next = outbox.next.min(*due_since);
                break;
            }
            if let Some((since, until)) = traffic.left_alone(&key.0, &key.1, now) {
                outbox.next = outbox.next.min(until);
                held(key, lane, &traffic, since, now, &mut outbox.held);
                continue;
            }
            let count = counts.entry(&key.0).or_default();
            *count += 1;
            if *count <= LANES_MAX {
                lanes.push(traffic::Lane {
                    endpoint: key.0.clone(),
                    host: Arc::clone(&key.1),
                    due_since: *due_since,
                    deliveries: due_in(lane, now),
                });
                // What is due later in the lane may be due before the next head.
                let later = lane.range((now, u64::MAX)..).next();
                outbox.next = outbox
                    .next
                    .min(later.map_or(Timestamp::NEVER, |((at, _), _)| *at));
            }
        }
        outbox.due = traffic
            .choose(lanes, now)
            .into_iter()
            .map(|chosen| Due {
                number: chosen.delivery,
                endpoint: chosen.endpoint,
                host: chosen.host,
                bytes: chosen.bytes,
                due_at: chosen.due_at,
            })
            .collect();
        outbox
    }
}

fn head(lane: &Lane) -> Option<Timestamp> {
    lane.first_key_value().map(|((at, _), _)| *at)
}

fn due_in(lane: &Lane, now: Timestamp) -> impl Iterator<Item = traffic::Waiting> {
    lane.range(..=(now, u64::MAX))
        .map(|(&(due_at, delivery), &bytes)| traffic::Waiting {
            delivery,
            bytes,
            due_at,
        })
}

/// Adds what has waited too long for a host that does not answer since then. Before that it waited for
/// something else: a place, or the server.
fn held(
    key: &LaneKey,
    lane: &Lane,
    traffic: &Traffic,
    since: Timestamp,
    now: Timestamp,
    held: &mut Vec<Due>,
) {
    for (&(due_at, number), &bytes) in lane {
        let waits_since = due_at.max(since);
        if waits_since.plus_ms(limits::WEBHOOK_HOLD_MS) > now || held.len() >= HELD_MAX {
            break;
        }
        if !traffic.is_under_way(number) {
            held.push(Due {
                number,
                endpoint: key.0.clone(),
                host: Arc::clone(&key.1),
                bytes,
                due_at,
            });
        }
    }
}
