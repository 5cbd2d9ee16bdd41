//! Webhooks: short ways to say what is due, what was tried, and what followed.

use lazyfox_core::delivery::{Next, Schedule, Try};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::limits::MIB;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::{Bounds, Sign, Traffic};
use lazyfox_store::{
    Delivery, DeliveryQuery, Due, NewJob, Outbox, Outgoing, Parts, Redelivery, Settlement, Store,
    Webhook,
};

use super::{START, at, endpoint, id};

pub(crate) const HOST: &str = "hook.example:443";

/// More than any test sends at once.
pub(crate) const ROOM: Bounds = Bounds {
    in_all: 100_000,
    per_host: 50_000,
    bytes: 1_000 * MIB as u64,
};

pub(crate) const ALL_PARTS: Parts = Parts {
    output: true,
    input: true,
};

pub(crate) fn webhooked(new: NewJob) -> NewJob {
    webhooked_at(new, HOST)
}

pub(crate) fn webhooked_at(mut new: NewJob, host: &str) -> NewJob {
    new.job.has_webhook = true;
    new.webhook = Some(Webhook {
        url: format!("https://{host}/{}", new.job.id),
        host: host.to_owned(),
    });
    new
}

/// Delivery `number` of job `n`.
pub(crate) fn delivery_id(n: u8, number: u32) -> DeliveryId {
    DeliveryId { job: id(n), number }
}

/// Nothing is under way, and there is room for everything.
pub(crate) fn quiet() -> Traffic {
    Traffic::new(ROOM)
}

/// Lets a host be silent for hours, as seen from both endpoints of the tests. Gives until when it is left
/// alone.
pub(crate) fn silence(traffic: &mut Traffic, host: &str, now: Timestamp) -> Timestamp {
    let mut until = now;
    for (on, first) in [("a", 1_000_000), ("b", 2_000_000)] {
        let (on, host) = (endpoint(on), host.into());
        let mut miss = |at| {
            for number in first..first + 5 {
                assert!(traffic.started(number, &on, &host, 1));
                traffic.ended(number, Sign::Missed, at, at);
            }
            traffic.left_alone(&on, &host, now)
        };
        let mut at = Timestamp::from_ms(START.as_ms() - 7_200_000);
        until = loop {
            if let Some((_, until)) = miss(at) {
                break until;
            }
            at = at.plus_ms(60_000).min(now);
        };
    }
    until
}

pub(crate) async fn outbox(store: &dyn Store, ms: u64) -> Outbox {
    store.outbox(quiet(), at(ms)).await.unwrap()
}

pub(crate) async fn due(store: &dyn Store, ms: u64) -> Vec<Due> {
    outbox(store, ms).await.due
}

pub(crate) async fn outgoing(store: &dyn Store, due: &Due) -> Option<Outgoing> {
    store.outgoing(due, ALL_PARTS).await.unwrap()
}

/// The store's own numbers of deliveries: what stays the same whenever they are due.
pub(crate) fn numbers(due: &[Due]) -> Vec<u64> {
    due.iter().map(|due| due.number).collect()
}

/// The names of what is due.
pub(crate) async fn names(store: &dyn Store, due: &[Due]) -> Vec<DeliveryId> {
    let mut names = Vec::new();
    for due in due {
        names.push(outgoing(store, due).await.unwrap().id);
    }
    names
}

/// What is due at this time, by name.
pub(crate) async fn due_names(store: &dyn Store, ms: u64) -> Vec<DeliveryId> {
    names(store, &due(store, ms).await).await
}

/// A delivery that is due some time.
pub(crate) async fn due_of(store: &dyn Store, id: DeliveryId) -> Due {
    for due in due(store, 99_999).await {
        if outgoing(store, &due).await.unwrap().id == id {
            return due;
        }
    }
    panic!("{id} is not open")
}

/// A try of some milliseconds that ended then, in the words that fit what follows from it.
pub(crate) fn settlement(due: &Due, round: u32, next: Next, ms: u64) -> Settlement {
    let arrived = next == Next::Delivered;
    Settlement {
        due: due.clone(),
        round,
        made: Try {
            at: at(ms),
            duration_ms: 7,
            status: Some(if arrived { 204 } else { 503 }),
            answer: None,
            error: (!arrived).then(|| "answered 503".to_owned()),
        },
        next,
        keep_until: Schedule::default().keep_until(next, at(ms)),
    }
}

pub(crate) async fn settle(store: &dyn Store, due: &Due, round: u32, next: Next, ms: u64) {
    let settlement = settlement(due, round, next, ms);
    store.settle(vec![settlement]).await.unwrap();
}

/// All deliveries of endpoint `a`, the newest first.
pub(crate) async fn deliveries(store: &dyn Store) -> Vec<Delivery> {
    let page = store.deliveries(DeliveryQuery::of(endpoint("a"))).await;
    let page = page.unwrap();
    assert_eq!(page.next, None);
    page.deliveries
}

pub(crate) async fn delivery(store: &dyn Store, id: DeliveryId) -> Delivery {
    let all = deliveries(store).await.into_iter();
    let mut found = all.filter(|delivery| delivery.id == id);
    let delivery = found.next().unwrap();
    assert_eq!(found.next(), None, "an id is there once");
    delivery
}

/// Asks endpoint `a` to send some again.
pub(crate) async fn redeliver(store: &dyn Store, ids: &[DeliveryId], ms: u64) -> Vec<Redelivery> {
    let on = endpoint("a");
    store.redeliver(&on, ids.to_vec(), at(ms)).await.unwrap()
}
