//! Deliveries that somebody wants to be sent again.

use lazyfox_core::delivery::{Next, State};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::job::{Event, Status};
use lazyfox_core::policy::Terms;
use lazyfox_store::{Redelivery, Store};

use super::deliveries::running;
use crate::world::*;

async fn one(store: &dyn Store, id: DeliveryId, ms: u64) -> Redelivery {
    let became = redeliver(store, &[id], ms).await;
    assert_eq!(became.len(), 1);
    became[0]
}

pub(super) async fn whatever_became_of_a_delivery_it_is_sent_again(store: &dyn Store) {
    running(store, 3).await;
    for n in 1..=3 {
        change(store, id(n), complete("w1"), 100).await;
    }
    let due = due(store, 100).await;
    for (due, last) in due
        .iter()
        .zip([Next::Delivered, Next::GaveUp, Next::Again(at(70_000))])
    {
        settle(store, due, 0, Next::Again(at(200)), 110).await;
        settle(store, due, 1, last, 210).await;
    }
    let ids = [1, 2, 3].map(|n| delivery_id(n, 1));
    let states = async || {
        let listed = deliveries(store).await.into_iter().rev();
        listed.map(|it| (it.state, it.due_at)).collect::<Vec<_>>()
    };
    let before = [
        (State::Delivered, None),
        (State::Failed, None),
        (State::Pending, Some(at(70_000))),
    ];
    assert_eq!(states().await, before);
    assert_eq!(redeliver(store, &ids, 5_000).await, [Redelivery::Due; 3]);

    assert_eq!(states().await, [(State::Pending, Some(at(5_000))); 3]);
    // All under the names that they had, and each with all its tries before it.
    let now = outbox(store, 5_000).await;
    assert_eq!(numbers(&now.due), numbers(&due));
    assert_eq!(now.next, lazyfox_core::time::Timestamp::NEVER);
    for (due, id) in due.iter().zip(ids) {
        let sent = outgoing(store, due).await.unwrap();
        assert_eq!((sent.id, sent.round), (id, 0));
        assert_eq!(sent.loaded.job.status(), Status::Completed);
        settle(store, due, 0, Next::Again(at(6_000)), 5_010).await;
        assert_eq!(outgoing(store, due).await.unwrap().round, 1);
        settle(store, due, 1, Next::Delivered, 6_010).await;
        let listed = delivery(store, id).await;
        let tried: Vec<_> = listed.tries.iter().map(|made| made.at).collect();
        assert_eq!(tried, [110, 210, 5_010, 6_010].map(at));
    }
    assert_eq!(states().await, [(State::Delivered, None); 3]);
}

pub(super) async fn twice_in_one_breath_is_once(store: &dyn Store) {
    running(store, 1).await;
    change(store, id(1), complete("w1"), 100).await;
    let due = due(store, 100).await;
    settle(store, &due[0], 0, Next::Delivered, 110).await;
    let ids = [delivery_id(1, 1); 2];
    assert_eq!(redeliver(store, &ids, 200).await, [Redelivery::Due; 2]);
    assert_eq!(one(store, ids[0], 300).await, Redelivery::Due);
    let outbox = outbox(store, 1_000).await;
    assert_eq!(
        (numbers(&outbox.due), deliveries(store).await.len()),
        (numbers(&due), 1)
    );
    settle(store, &due[0], 0, Next::GaveUp, 1_010).await;
    assert!(super::deliveries::nothing_is_open(store).await);
    assert_eq!(redeliver(store, &[], 300).await, []);
}

pub(super) async fn a_late_try_of_an_earlier_round_changes_nothing_else(store: &dyn Store) {
    running(store, 1).await;
    change(store, id(1), complete("w1"), 100).await;
    let one = due(store, 100).await.remove(0);
    settle(store, &one, 0, Next::Again(at(200)), 110).await;
    settle(store, &one, 1, Next::Again(at(9_000)), 210).await;
    // The third try is on its way when a new round is wanted.
    assert_eq!(
        redeliver(store, &[delivery_id(1, 1)], 300).await,
        [Redelivery::Due]
    );
    for (late, next) in [Next::Delivered, Next::GaveUp, Next::Again(at(7_000))]
        .into_iter()
        .enumerate()
    {
        settle(store, &one, 2, next, 310).await;
        let listed = delivery(store, delivery_id(1, 1)).await;
        assert_eq!(
            (listed.state, listed.due_at),
            (State::Pending, Some(at(300)))
        );
        assert_eq!(listed.tries.len(), 3 + late);
        assert_eq!(outgoing(store, &one).await.unwrap().round, 0);
        assert_eq!(numbers(&due(store, 300).await), [one.number]);
    }
    let last = settlement(&one, 0, Next::Delivered, 320);
    store.settle(vec![last.clone()]).await.unwrap();
    let listed = delivery(store, delivery_id(1, 1)).await;
    assert_eq!(listed.state, State::Delivered);
    assert_eq!(
        (listed.tries.len(), listed.tries.last()),
        (6, Some(&last.made))
    );
}

pub(super) async fn nobody_sends_anothers_deliveries_again(store: &dyn Store) {
    running(store, 2).await;
    submit(store, webhooked(job_with(id(3), "b", terms()))).await;
    take_on(store, "b", "w2", 9, 10).await;
    submit(store, job(4)).await;
    take(store, "w1", 9, 20).await;
    for n in [1, 4] {
        change(store, id(n), complete("w1"), 100).await;
    }
    let on = endpoint("b");
    store
        .apply(&on, id(3), complete("w2"), None, at(100))
        .await
        .unwrap();
    for due in due(store, 100).await {
        settle(store, &due, 0, Next::Delivered, 110).await;
    }
    // Of another endpoint, of no job, of a running one, of one without a webhook, and not that many.
    let ids = [
        delivery_id(3, 1),
        delivery_id(9, 1),
        delivery_id(2, 1),
        delivery_id(4, 1),
        delivery_id(1, 2),
        delivery_id(1, 0),
        DeliveryId {
            job: sync_id(1),
            number: 1,
        },
    ];
    assert_eq!(redeliver(store, &ids, 200).await, [Redelivery::Unknown; 7]);
    assert!(due(store, 1_000).await.is_empty());
    // Those do not stand in the way of one that can be sent.
    let ids = [ids[0], delivery_id(1, 1), ids[1]];
    assert_eq!(
        redeliver(store, &ids, 300).await,
        [Redelivery::Unknown, Redelivery::Due, Redelivery::Unknown]
    );
    assert_eq!(due_names(store, 300).await, [delivery_id(1, 1)]);
}

pub(super) async fn an_end_that_is_none_any_more_is_not_reported_again(store: &dyn Store) {
    running(store, 3).await;
    // One is delivered before its job is retried, one given up, one withdrawn by that.
    for n in 1..=3 {
        change(store, id(n), fail("w1"), 100).await;
    }
    let open = due(store, 100).await;
    settle(store, &open[0], 0, Next::Delivered, 110).await;
    settle(store, &open[1], 0, Next::GaveUp, 110).await;
    let first = [1, 2, 3].map(|n| delivery_id(n, 1));
    let outdated = async |ms| {
        assert_eq!(
            redeliver(store, &first, ms).await,
            [Redelivery::Outdated; 3]
        );
    };
    for n in 1..=3 {
        change(store, id(n), Event::Retry, 200).await;
    }
    outdated(210).await;
    assert_eq!(take(store, "w1", 9, 220).await.len(), 3);
    outdated(230).await;
    // Even when the job ended again, the same way or another.
    change(store, id(1), fail("w1"), 300).await;
    change(store, id(2), complete("w1"), 300).await;
    change(store, id(3), Event::Cancel, 300).await;
    outdated(310).await;
    let second = [delivery_id(1, 2), delivery_id(2, 2)];
    assert_eq!(due_names(store, 9_000).await, second);
    let states: Vec<_> = deliveries(store).await.iter().map(|it| it.state).collect();
    let expected = [
        State::Pending,
        State::Pending,
        State::Withdrawn,
        State::Failed,
        State::Delivered,
    ];
    assert_eq!(states, expected);
    // Those of the present end are.
    assert_eq!(redeliver(store, &second, 400).await, [Redelivery::Due; 2]);
    let none = one(store, delivery_id(3, 2), 400).await;
    assert_eq!(none, Redelivery::Unknown);
}

/// Two ends of a job in the same millisecond, as far as the clock can tell them apart.
pub(super) async fn ends_of_the_same_moment_are_told_apart(store: &dyn Store) {
    let retry_at_once = async |n, again: Option<Event>| {
        change(store, id(n), fail("w1"), 100).await;
        let due = due(store, 100).await;
        settle(store, &due[0], 0, Next::Delivered, 100).await;
        change(store, id(n), Event::Retry, 100).await;
        if again != Some(Event::Cancel) {
            assert_eq!(take(store, "w1", 1, 100).await, [id(n)]);
        }
        if let Some(event) = again {
            change(store, id(n), event, 100).await;
        }
        let first = delivery_id(n, 1);
        assert_eq!(one(store, first, 100).await, Redelivery::Outdated);
    };
    running(store, 3).await;
    retry_at_once(1, None).await;
    retry_at_once(2, Some(Event::Cancel)).await;
    retry_at_once(3, Some(fail("w1"))).await;
    assert_eq!(due_names(store, 100).await, [delivery_id(3, 2)]);
    assert_eq!(one(store, delivery_id(3, 2), 100).await, Redelivery::Due);
}

pub(super) async fn the_report_of_a_cancelled_job_is_sent_again(store: &dyn Store) {
    let told = Terms {
        webhook_on_cancel: true,
        ..terms()
    };
    submit(store, webhooked(job_with(id(1), "a", told))).await;
    change(store, id(1), Event::Cancel, 100).await;
    let due = due(store, 100).await;
    settle(store, &due[0], 0, Next::GaveUp, 110).await;
    assert_eq!(one(store, delivery_id(1, 1), 200).await, Redelivery::Due);
    let sent = outgoing(store, &due[0]).await.unwrap();
    assert_eq!(sent.loaded.job.status(), Status::Cancelled);
}
