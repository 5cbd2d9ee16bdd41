//! What goes out next: in which order, within which bounds, and what a host that does not answer changes.

use lazyfox_core::delivery::Next;
use lazyfox_core::id::{DeliveryId, JobId};
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::{Bounds, Sign, Traffic};
use lazyfox_store::{Applied, Due, Store};

use super::deliveries::{nothing_is_open, running};
use crate::world::*;

const X: &str = "x.example:443";
const Y: &str = "y.example:8443";

/// Jobs of this endpoint that report to this host, ended one after the other from then on.
async fn ended(store: &dyn Store, on: &str, host: &str, ns: std::ops::Range<u8>, ms: u64) {
    let ids: Vec<JobId> = ns.map(id).collect();
    for &id in &ids {
        submit(store, webhooked_at(job_with(id, on, terms()), host)).await;
    }
    assert_eq!(take_on(store, on, "w1", 99, 10).await, ids);
    for (n, &id) in (0..).zip(&ids) {
        let on = endpoint(on);
        let applied = store.apply(&on, id, complete("w1"), None, at(ms + n));
        assert!(matches!(applied.await, Ok(Applied::Changed(_))));
    }
}

/// The first deliveries of these jobs.
fn of(ns: &[u8]) -> Vec<DeliveryId> {
    ns.iter().map(|&n| delivery_id(n, 1)).collect()
}

async fn chosen(store: &dyn Store, traffic: &Traffic, ms: u64) -> Vec<DeliveryId> {
    let outbox = store.outbox(traffic.clone(), at(ms)).await.unwrap();
    names(store, &outbox.due).await
}

fn started(traffic: &mut Traffic, due: &Due) {
    assert!(traffic.started(due.number, &due.endpoint, &due.host, due.bytes));
}

pub(super) async fn deliveries_are_due_in_order(store: &dyn Store) {
    running(store, 3).await;
    for (n, ms) in [(2, 300), (1, 400), (3, 300)] {
        change(store, id(n), complete("w1"), ms).await;
    }
    let next = async |ms| outbox(store, ms).await.next;
    assert_eq!(next(299).await, at(300));
    assert_eq!(due_names(store, 300).await, of(&[2, 3]));
    assert_eq!(next(300).await, at(400));
    assert_eq!(due_names(store, 400).await, of(&[2, 3, 1]));
    assert_eq!(next(400).await, Timestamp::NEVER);
    // What is left over waits for a place, and not for a time.
    let little = Traffic::new(Bounds { in_all: 2, ..ROOM });
    let some = store.outbox(little, at(400)).await.unwrap();
    assert_eq!(names(store, &some.due).await, of(&[2, 3]));
    assert_eq!(some.next, Timestamp::NEVER);
    // Not the age of a delivery counts, but since when its next try is due.
    settle(store, &some.due[0], 0, Next::Again(at(500)), 400).await;
    settle(store, &some.due[1], 0, Next::Again(at(350)), 400).await;
    assert_eq!(due_names(store, 500).await, of(&[3, 1, 2]));
}

pub(super) async fn endpoints_take_turns_and_so_do_their_hosts(store: &dyn Store) {
    ended(store, "b", X, 11..14, 100).await;
    ended(store, "a", Y, 21..23, 200).await;
    ended(store, "a", X, 1..5, 300).await;
    let turns = of(&[21, 11, 1, 12, 22, 13, 2, 3, 4]);
    assert_eq!(due_names(store, 1_000).await, turns);
    // The one with the fewest on their way is next.
    let mut traffic = quiet();
    for number in 1_000_000..1_000_002 {
        traffic.started(number, &endpoint("b"), &"z.example:443".into(), 1);
    }
    let turns = of(&[21, 1, 22, 11, 2, 12, 3, 13, 4]);
    assert_eq!(chosen(store, &traffic, 1_000).await, turns);
}

pub(super) async fn a_host_gets_no_more_than_its_share(store: &dyn Store) {
    ended(store, "a", X, 1..4, 100).await;
    ended(store, "a", Y, 4..7, 200).await;
    ended(store, "b", X, 11..14, 300).await;
    let mut traffic = Traffic::new(Bounds {
        per_host: 2,
        ..ROOM
    });
    let outbox = store.outbox(traffic.clone(), at(1_000)).await.unwrap();
    assert_eq!(names(store, &outbox.due).await, of(&[1, 11, 4, 5]));
    assert_eq!(outbox.next, Timestamp::NEVER);
    for due in &outbox.due {
        started(&mut traffic, due);
    }
    assert_eq!(chosen(store, &traffic, 1_000).await, []);
    // The place of one that has arrived goes to the next of the host, whose endpoint has fewer.
    let arrived = &outbox.due[1];
    settle(store, arrived, 0, Next::Delivered, 1_000).await;
    traffic.ended(arrived.number, Sign::Answered, at(1_000), at(1_000));
    assert_eq!(chosen(store, &traffic, 1_000).await, of(&[12]));
    // One that is on its way is not sent once more, though it is due and a place is free.
    let mut roomy = quiet();
    started(&mut roomy, &outbox.due[0]);
    let others = chosen(store, &roomy, 1_000).await;
    assert_eq!(others.len(), 7);
    assert!(!others.contains(&delivery_id(1, 1)));
}

pub(super) async fn sizes_count_as_they_are(store: &dyn Store) {
    ended(store, "a", X, 1..4, 100).await;
    let bytes = due(store, 1_000).await[0].bytes;
    // A host has half of all.
    for (all, fit) in [(4 * bytes, 2), (4 * bytes - 1, 1), (6 * bytes, 3)] {
        let traffic = Traffic::new(Bounds { bytes: all, ..ROOM });
        assert_eq!(chosen(store, &traffic, 1_000).await.len(), fit, "{all}");
    }
}

pub(super) async fn a_host_that_does_not_answer_is_left_alone(store: &dyn Store) {
    ended(store, "a", X, 1..4, 100).await;
    ended(store, "a", Y, 4..6, 200).await;
    ended(store, "b", X, 11..12, 300).await;
    let mut traffic = quiet();
    let until = silence(&mut traffic, X, at(1_000));
    let outbox = store.outbox(traffic.clone(), at(1_000)).await.unwrap();
    assert_eq!(names(store, &outbox.due).await, of(&[4, 5]));
    assert_eq!((outbox.next, outbox.held), (until, vec![]));
    // Unless something else is due sooner.
    let soon = until.as_ms() - 1;
    let again = Next::Again(Timestamp::from_ms(soon));
    settle(store, &outbox.due[1], 0, again, 1_000).await;
    let outbox = store.outbox(traffic.clone(), at(1_000)).await.unwrap();
    assert_eq!(names(store, &outbox.due).await, of(&[4]));
    assert_eq!(outbox.next, Timestamp::from_ms(soon));
    // Then a single one finds out.
    let outbox = store.outbox(traffic.clone(), until).await.unwrap();
    assert_eq!(names(store, &outbox.due).await, of(&[1, 11, 4, 5]));
    assert_eq!(outbox.next, Timestamp::NEVER);
    started(&mut traffic, &outbox.due[0]);
    traffic.ended(outbox.due[0].number, Sign::Answered, until, until);
    let outbox = store.outbox(traffic, until).await.unwrap();
    assert_eq!(outbox.due.len(), 6);
}

pub(super) async fn what_waits_for_such_a_host_for_an_hour_is_held(store: &dyn Store) {
    ended(store, "a", X, 1..4, 100).await;
    ended(store, "a", Y, 4..5, 100).await;
    ended(store, "b", X, 11..12, 100).await;
    let hour = limits::WEBHOOK_HOLD_MS;
    let held = async |traffic: &Traffic, ms| {
        let outbox = store.outbox(traffic.clone(), at(ms)).await.unwrap();
        let mut names = names(store, &outbox.held).await;
        names.sort_unstable();
        names
    };
    let mut traffic = quiet();
    silence(&mut traffic, X, at(hour + 200));
    assert_eq!(held(&traffic, hour + 99).await, []);
    assert_eq!(held(&traffic, hour + 100).await, of(&[1, 11]));
    assert_eq!(held(&traffic, hour + 101).await, of(&[1, 2, 11]));
    assert_eq!(held(&traffic, hour + 102).await, of(&[1, 2, 3, 11]));
    // A host that answers may be as slow as it likes; nor is held what is on its way.
    assert_eq!(held(&quiet(), 9 * hour).await, []);
    let all = due(store, hour).await;
    let first = all.iter().find(|due| due.number == 1).unwrap();
    started(&mut traffic, first);
    assert_eq!(held(&traffic, hour + 102).await, of(&[2, 3, 11]));
    // It is tried again from time to time, and each try begins the hour anew.
    settle(store, first, 0, Next::Again(at(hour)), hour).await;
    traffic.ended(first.number, Sign::Missed, at(hour), at(hour));
    assert_eq!(held(&traffic, hour + 102).await, of(&[2, 3, 11]));
    // Nothing is sent to it meanwhile, and giving up ends it.
    let outbox = store.outbox(traffic.clone(), at(hour + 102)).await.unwrap();
    assert_eq!(names(store, &outbox.due).await, of(&[4]));
    for due in &outbox.held {
        settle(store, due, 0, Next::GaveUp, hour + 102).await;
    }
    assert_eq!(held(&traffic, hour + 102).await, []);
}

pub(super) async fn a_host_that_is_gone_for_good_is_cleared_step_by_step(store: &dyn Store) {
    ended(store, "a", X, 0..99, 100).await;
    ended(store, "b", X, 100..199, 100).await;
    let ms = 2 * limits::WEBHOOK_HOLD_MS;
    let mut traffic = quiet();
    silence(&mut traffic, X, at(ms));
    for _ in 0..3 {
        let outbox = store.outbox(traffic.clone(), at(ms)).await.unwrap();
        // No more than a commit of a moment can settle.
        assert!(outbox.due.is_empty() && outbox.held.len() <= 100);
        for due in &outbox.held {
            settle(store, due, 0, Next::GaveUp, ms).await;
        }
    }
    assert!(nothing_is_open(store).await);
}

pub(super) async fn what_is_due_later_hides_nothing(store: &dyn Store) {
    ended(store, "a", X, 1..4, 100).await;
    ended(store, "b", Y, 11..13, 100).await;
    let all = due(store, 1_000).await;
    let again = async |n: u8, ms| {
        let ids = names(store, &all).await;
        let at_place = ids.iter().position(|it| *it == delivery_id(n, 1)).unwrap();
        settle(store, &all[at_place], 0, Next::Again(at(ms)), 1_000).await;
    };
    // The oldest of its lane waits, and those behind it do not.
    again(1, 5_000).await;
    assert_eq!(due_names(store, 2_000).await, of(&[2, 11, 3, 12]));
    assert_eq!(outbox(store, 2_000).await.next, at(5_000));
    // The next one may be behind others of its lane, or first in another.
    again(11, 4_000).await;
    assert_eq!(outbox(store, 2_000).await.next, at(4_000));
    again(12, 4_500).await;
    assert_eq!(due_names(store, 2_000).await, of(&[2, 3]));
    assert_eq!(outbox(store, 2_000).await.next, at(4_000));
    again(2, 3_000).await;
    again(3, 3_500).await;
    let waiting = outbox(store, 2_000).await;
    assert_eq!((waiting.due, waiting.next), (vec![], at(3_000)));
    for (ms, names, next) in [
        (3_000, &[2][..], at(3_500)),
        (3_500, &[2, 3], at(4_000)),
        (4_000, &[2, 11, 3], at(4_500)),
        (4_500, &[2, 11, 3, 12], at(5_000)),
        (5_000, &[2, 11, 3, 12, 1], Timestamp::NEVER),
    ] {
        assert_eq!(due_names(store, ms).await, of(names));
        assert_eq!(outbox(store, ms).await.next, next);
    }
}
