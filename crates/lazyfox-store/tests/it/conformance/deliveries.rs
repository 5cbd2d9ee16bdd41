//! Webhooks to be delivered: the life of a delivery, and how long it is kept.

use std::slice::from_ref;

use lazyfox_core::delivery::{Next, State, Try};
use lazyfox_core::job::{Event, Status};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Delivery, DeliveryQuery, Heartbeat, Parts, Settlement, Store, Webhook};

use crate::world::*;

/// Jobs 1 to n with webhooks, held by `w1`.
pub(super) async fn running(store: &dyn Store, n: u8) {
    for n in 1..=n {
        submit(store, webhooked(job(n))).await;
    }
    take(store, "w1", 99, 10).await;
}

/// Whether nothing is to be sent, now or later.
pub(super) async fn nothing_is_open(store: &dyn Store) -> bool {
    let outbox = outbox(store, 99_999).await;
    outbox.due.is_empty() && outbox.next == Timestamp::NEVER
}

pub(super) async fn an_end_and_its_delivery_come_together(store: &dyn Store) {
    running(store, 4).await;
    submit(store, job(9)).await;
    take(store, "w1", 9, 10).await;
    assert!(due(store, 900).await.is_empty());
    report(store, id(1), progress("w1"), "1").await;
    change(store, id(4), lost("w1"), 900).await;
    assert!(due(store, 2_000).await.is_empty());

    report(store, id(1), complete("w1"), "[1]").await;
    report(store, id(2), fail("w1"), "\"trace\"").await;
    // The owner cancelled it and knows; and without a webhook there is nobody to tell.
    change(store, id(3), Event::Cancel, 1_000).await;
    report(store, id(9), complete("w1"), "9").await;

    let two = due(store, 1_000).await;
    assert_eq!(two.len(), 2, "two jobs ended by themselves: {two:?}");
    for (due, n) in two.iter().zip([1, 2]) {
        let outgoing = outgoing(store, due).await.unwrap();
        assert_eq!((outgoing.id, outgoing.round), (delivery_id(n, 1), 0));
        assert_eq!(outgoing.url, format!("https://{HOST}/{}", id(n)));
        assert_eq!(Some(outgoing.loaded), load(store, id(n)).await);
        assert_eq!((&due.endpoint, &*due.host), (&endpoint("a"), HOST));
    }
    // Nothing is taken out by looking.
    assert_eq!(due(store, 1_000).await, two);

    let ttl_over = 900 + limits::TTL_MS;
    store.expire(at(ttl_over), 9).await.unwrap();
    assert_eq!(status(store, id(4)).await, Some(Status::TimedOut));
    let three = due_names(store, ttl_over).await;
    assert_eq!(three, [1, 2, 4].map(|n| delivery_id(n, 1)));
}

pub(super) async fn who_ends_a_job_is_told_only_where_that_is_wanted(store: &dyn Store) {
    let told = Terms {
        webhook_on_cancel: true,
        ..terms()
    };
    let on = endpoint("a");
    let with = |n, terms| webhooked(job_with(id(n), "a", terms));
    submit(store, with(1, terms())).await;
    submit(store, with(2, told)).await;
    submit(store, job_with(id(3), "a", told)).await;
    take(store, "w1", 9, 10).await;
    for n in 1..=3 {
        change(store, id(n), Event::Cancel, 20).await;
    }
    submit(store, with(4, terms())).await;
    submit(store, with(5, told)).await;
    submit(store, job_with(id(6), "a", told)).await;
    assert_eq!(
        store
            .purge(&on, None, 9, at(30))
            .await
            .unwrap()
            .changes
            .len(),
        3
    );
    assert_eq!(
        due_names(store, 30).await,
        [delivery_id(2, 1), delivery_id(5, 1)]
    );
    let listed = deliveries(store).await;
    let created = |n: usize| (listed[n].id, listed[n].created_at);
    assert_eq!(listed.len(), 2);
    assert_eq!(created(0), (delivery_id(5, 1), at(30)));
    assert_eq!(created(1), (delivery_id(2, 1), at(20)));
}

pub(super) async fn a_delivery_weighs_what_it_carries(store: &dyn Store) {
    running(store, 4).await;
    let input = input_of(id(1)).len() as u64;
    report(store, id(1), complete("w1"), "[1, 2]").await;
    // What an earlier attempt left is none of it, and progress counts as long as it is kept.
    report(store, id(2), progress("w1"), "\"half\"").await;
    change(store, id(2), complete("w1"), 1_000).await;
    report(store, id(3), progress("w1"), "\"half\"").await;
    let timeout = limits::EXECUTION_TIMEOUT_MS + 10;
    let beat = Heartbeat {
        worker: worker("w1"),
        endpoint: endpoint("a"),
        jobs: None,
        lease_ms: 2 * timeout,
    };
    store.renew(beat, at(20)).await.unwrap();
    store.expire(at(timeout), 9).await.unwrap();
    let bytes: Vec<u64> = due(store, timeout)
        .await
        .iter()
        .map(|it| it.bytes)
        .collect();
    assert_eq!(bytes, [input + 6, input, input + 6, input]);
    let listed = deliveries(store).await.into_iter().rev();
    assert_eq!(listed.map(|it| it.bytes).collect::<Vec<_>>(), bytes);
}

pub(super) async fn a_delivery_sends_the_parts_that_are_asked_for(store: &dyn Store) {
    running(store, 2).await;
    // As large as bodies that are read beside the caller's thread, and a small one.
    let large = bytes::Bytes::from(vec![b'7'; 300_000]);
    for (n, output) in [(1, large.clone()), (2, bytes("2"))] {
        let on = endpoint("a");
        let applied = store.apply(&on, id(n), complete("w1"), Some(output), at(100));
        assert!(applied.await.unwrap().changed().is_some());
    }
    let both = due(store, 100).await;
    for (due, body) in both.iter().zip([large, bytes("2")]) {
        for (output, input) in [(false, false), (true, false), (false, true), (true, true)] {
            let parts = Parts { output, input };
            let sent = store.outgoing(due, parts).await.unwrap().unwrap();
            assert_eq!(sent.loaded.output, output.then(|| body.clone()));
            let job = sent.loaded.job;
            assert_eq!(sent.loaded.input, input.then(|| input_of(job.id)));
            assert_eq!(job.status(), Status::Completed);
        }
    }
    // Once it is settled there is nothing to send, whoever still has it in hand.
    settle(store, &both[0], 0, Next::Delivered, 200).await;
    settle(store, &both[1], 0, Next::GaveUp, 200).await;
    for due in &both {
        assert_eq!(outgoing(store, due).await, None);
    }
}

pub(super) async fn a_failed_try_comes_again_later(store: &dyn Store) {
    running(store, 1).await;
    change(store, id(1), complete("w1"), 100).await;
    let first = due(store, 100).await.remove(0);
    settle(store, &first, 0, Next::Again(at(10_100)), 110).await;
    let waiting = outbox(store, 10_099).await;
    assert_eq!((waiting.due, waiting.next), (vec![], at(10_100)));
    assert_eq!(numbers(&due(store, 10_100).await), [first.number]);
    // It can be sent, and counts its tries.
    let again = outgoing(store, &first).await.unwrap();
    assert_eq!((again.id, again.round), (delivery_id(1, 1), 1));
    let listed = delivery(store, again.id).await;
    assert_eq!(
        (listed.state, listed.due_at),
        (State::Pending, Some(at(10_100)))
    );

    settle(store, &first, 1, Next::GaveUp, 10_110).await;
    assert!(nothing_is_open(store).await);
    let listed = delivery(store, again.id).await;
    assert_eq!((listed.state, listed.due_at), (State::Failed, None));
    assert_eq!(listed.created_at, at(100));
}

pub(super) async fn every_try_is_listed_with_all_that_is_known_of_it(store: &dyn Store) {
    running(store, 1).await;
    report(store, id(1), complete("w1"), "1").await;
    let one = due(store, 1_000).await.remove(0);
    let tries = [
        Try {
            at: at(1_000),
            duration_ms: 10_000,
            status: None,
            answer: None,
            error: Some("connection refused".to_owned()),
        },
        Try {
            at: at(21_000),
            duration_ms: 0,
            status: Some(503),
            answer: Some("{\"wait\": \"eine Minute, höchstens\"}".to_owned()),
            error: Some("answered 503".to_owned()),
        },
        Try {
            at: at(31_000),
            duration_ms: 12,
            status: Some(200),
            answer: Some(String::new()),
            error: None,
        },
    ];
    let mut expected = Delivery {
        id: delivery_id(1, 1),
        state: State::Pending,
        webhook: Webhook {
            url: format!("https://{HOST}/{}", id(1)),
            host: HOST.to_owned(),
        },
        bytes: one.bytes,
        created_at: at(1_000),
        due_at: Some(at(1_000)),
        tries: vec![],
    };
    assert_eq!(deliveries(store).await, [expected.clone()]);
    for (round, made) in (0..).zip(tries) {
        let next = match round {
            2 => Next::Delivered,
            _ => Next::Again(made.at.plus_ms(10_000)),
        };
        let settlement = Settlement {
            due: one.clone(),
            round,
            made: made.clone(),
            next,
            keep_until: Timestamp::NEVER,
        };
        store.settle(vec![settlement]).await.unwrap();
        expected.tries.push(made);
        expected.state = next.state();
        expected.due_at = match next {
            Next::Again(at) => Some(at),
            Next::Delivered | Next::GaveUp => None,
        };
        assert_eq!(deliveries(store).await, [expected.clone()]);
    }
}

pub(super) async fn a_settled_delivery_stays_settled(store: &dyn Store) {
    running(store, 2).await;
    change(store, id(1), complete("w1"), 100).await;
    let one = due(store, 100).await.remove(0);
    settle(store, &one, 0, Next::Delivered, 110).await;
    assert!(nothing_is_open(store).await);
    // Tries whose answers came late do not open it again, whichever they were. They are kept.
    for (late, round) in (0..).zip([0, 1, 7]) {
        settle(store, &one, round, Next::Again(at(200)), 120 + late).await;
        settle(store, &one, round, Next::GaveUp, 120 + late).await;
    }
    let mut unknown = settlement(&one, 0, Next::Again(at(200)), 120);
    unknown.due.number = 77;
    store.settle(vec![unknown]).await.unwrap();
    assert!(nothing_is_open(store).await);
    let listed = delivery(store, delivery_id(1, 1)).await;
    assert_eq!((listed.state, listed.tries.len()), (State::Delivered, 7));
    let last = listed.tries.last().unwrap();
    assert_eq!((last.at, last.status), (at(122), Some(503)));

    // Nor do they keep the record any longer, or let it go sooner.
    assert_eq!(store.prune(at(109 + limits::RETENTION_MS), 9).await, Ok(0));
    assert_eq!(store.prune(at(110 + limits::RETENTION_MS), 9).await, Ok(1));
    assert_eq!(status(store, id(1)).await, None);
    settle(store, &one, 1, Next::Again(at(200)), 130).await;
    assert!(nothing_is_open(store).await);
    assert_eq!(deliveries(store).await, []);
    // Nothing is left of it: behind the last of a page there is no further one.
    change(store, id(2), complete("w1"), 200).await;
    let query = DeliveryQuery {
        limit: 1,
        ..DeliveryQuery::of(endpoint("a"))
    };
    let page = store.deliveries(query).await.unwrap();
    assert_eq!((page.deliveries.len(), page.next), (1, None));
}

pub(super) async fn a_retry_withdraws_the_delivery_of_the_earlier_end(store: &dyn Store) {
    running(store, 1).await;
    change(store, id(1), fail("w1"), 100).await;
    let failed = due(store, 100).await.remove(0);
    settle(store, &failed, 0, Next::Again(at(150)), 110).await;
    change(store, id(1), Event::Retry, 200).await;
    // It would carry a job that has not ended.
    assert!(nothing_is_open(store).await);
    assert_eq!(outgoing(store, &failed).await, None);
    // Nor does a try that was on its way bring it back.
    settle(store, &failed, 1, Next::Again(at(300)), 210).await;
    assert!(nothing_is_open(store).await);
    let withdrawn = delivery(store, delivery_id(1, 1)).await;
    assert_eq!(
        (withdrawn.state, withdrawn.due_at),
        (State::Withdrawn, None)
    );
    assert_eq!(withdrawn.tries.len(), 2);

    assert_eq!(take(store, "w1", 1, 210).await, [id(1)]);
    change(store, id(1), complete("w1"), 300).await;
    let completed = due(store, 300).await;
    assert_ne!(completed[0].number, failed.number);
    assert_eq!(names(store, &completed).await, [delivery_id(1, 2)]);
    let sent = outgoing(store, &completed[0]).await.unwrap();
    assert_eq!(sent.loaded.job.status(), Status::Completed);
    // Nobody waits for what was withdrawn: the other one keeps the record as it would alone.
    settle(store, &completed[0], 0, Next::Delivered, 310).await;
    assert_eq!(store.prune(at(309 + limits::RETENTION_MS), 9).await, Ok(0));
    assert_eq!(store.prune(at(310 + limits::RETENTION_MS), 9).await, Ok(1));
    assert_eq!(deliveries(store).await, []);
}

pub(super) async fn each_end_of_a_job_has_a_delivery_of_its_own(store: &dyn Store) {
    running(store, 2).await;
    let mut ms = 100;
    for end in 1..=3 {
        change(store, id(1), fail("w1"), ms).await;
        let one = due(store, ms).await.remove(0);
        assert_eq!(names(store, from_ref(&one)).await, [delivery_id(1, end)]);
        let how = if end == 2 {
            Next::GaveUp
        } else {
            Next::Delivered
        };
        settle(store, &one, 0, how, ms).await;
        change(store, id(1), Event::Retry, ms + 10).await;
        assert_eq!(take(store, "w1", 1, ms + 20).await, [id(1)]);
        ms += 100;
    }
    // A job counts its own.
    change(store, id(2), complete("w1"), 900).await;
    assert_eq!(due_names(store, 900).await, [delivery_id(2, 1)]);
    let listed = deliveries(store).await;
    let told: Vec<_> = listed.iter().map(|it| (it.id, it.state)).collect();
    let expected = [
        (delivery_id(2, 1), State::Pending),
        (delivery_id(1, 3), State::Delivered),
        (delivery_id(1, 2), State::Failed),
        (delivery_id(1, 1), State::Delivered),
    ];
    assert_eq!(told, expected);
    let created: Vec<_> = listed.iter().map(|it| it.created_at).collect();
    assert_eq!(created, [at(900), at(300), at(200), at(100)]);
}
