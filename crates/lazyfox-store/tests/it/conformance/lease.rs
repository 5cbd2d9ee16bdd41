//! Who gets which job, in which order.

use lazyfox_core::job::{Event, State, Status};
use lazyfox_core::limits;
use lazyfox_store::{Ask, Store};

use crate::world::*;

pub(super) async fn jobs_go_out_in_the_order_they_came(store: &dyn Store) {
    // Neither ids nor submission times give the order, only the order of the calls.
    for n in [5, 3, 9, 1] {
        submit(store, job(n)).await;
    }
    assert_eq!(take(store, "w1", 1, 10).await, [id(5)]);
    assert_eq!(take(store, "w2", 2, 10).await, [id(3), id(9)]);
    submit(store, job(4)).await;
    assert_eq!(take(store, "w1", 9, 20).await, [id(1), id(4)]);
    assert!(take(store, "w1", 9, 20).await.is_empty());
}

pub(super) async fn the_low_lane_waits_for_the_normal_one(store: &dyn Store) {
    submit(store, job_with(id(1), "a", low())).await;
    submit(store, job(2)).await;
    submit(store, job_with(id(3), "a", low())).await;
    submit(store, job(4)).await;
    assert_eq!(take(store, "w1", 1, 10).await, [id(2)]);
    assert_eq!(take(store, "w1", 2, 10).await, [id(4), id(1)]);
    submit(store, job(5)).await;
    assert_eq!(take(store, "w1", 9, 10).await, [id(5), id(3)]);
}

pub(super) async fn a_poll_gets_no_more_than_it_asked_for(store: &dyn Store) {
    for n in 1..=5 {
        submit(store, job(n)).await;
    }
    assert!(take(store, "w1", 0, 10).await.is_empty());
    assert_eq!(take(store, "w1", 3, 10).await, [id(1), id(2), id(3)]);
    assert_eq!(status(store, id(4)).await, Some(Status::InQueue));
}

pub(super) async fn an_endpoint_hands_out_only_its_own_jobs(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job_with(id(2), "b", terms())).await;
    assert_eq!(take_on(store, "b", "w1", 9, 10).await, [id(2)]);
    assert!(take_on(store, "c", "w1", 9, 10).await.is_empty());
    assert_eq!(take_on(store, "a", "w1", 9, 10).await, [id(1)]);
}

pub(super) async fn a_handout_carries_the_running_job_with_its_input(store: &dyn Store) {
    submit(store, job(1)).await;
    let ask = Ask {
        lease_ms: 7_000,
        ..ask("a", "w1", 1)
    };
    let leased = store.lease(ask, at(10)).await.unwrap();
    let [handout] = &leased.handouts[..] else {
        panic!("one job was submitted, {leased:?}")
    };
    assert_eq!(handout.input, input_of(id(1)));
    assert_eq!(handout.secrets, None);
    let State::Running(attempt) = &handout.job.state else {
        panic!("{:?}", handout.job)
    };
    assert_eq!(attempt.worker, worker("w1"));
    assert_eq!(attempt.started_at, at(10));
    assert_eq!(attempt.lease_until, at(7_010));
    let kept = load(store, id(1)).await.unwrap().job;
    assert_eq!(without_lease(kept), without_lease(handout.job.clone()));
}

pub(super) async fn an_expired_job_is_never_handed_out(store: &dyn Store) {
    let mut short = terms();
    short.ttl_ms = 10_000;
    submit(store, job_with(id(1), "a", short)).await;
    submit(store, job(2)).await;
    // Nobody has written its end yet.
    assert_eq!(take(store, "w1", 9, 10_000).await, [id(2)]);
    assert_eq!(status(store, id(1)).await, Some(Status::InQueue));
}

pub(super) async fn a_job_never_goes_back_to_a_worker_that_lost_it(store: &dyn Store) {
    for n in 1..=3 {
        submit(store, job(n)).await;
    }
    assert_eq!(take(store, "w1", 1, 10).await, [id(1)]);
    let lost = change(store, id(1), lost("w1"), 20).await;
    assert_eq!(lost.before, Status::InProgress);
    assert_eq!(lost.holder, Some(worker("w1")));
    assert_eq!(lost.job.status(), Status::InQueue);
    // The one behind it goes instead, and the barred one stays in front for others.
    assert_eq!(take(store, "w1", 1, 30).await, [id(2)]);
    assert_eq!(take(store, "w2", 9, 30).await, [id(1), id(3)]);
}

pub(super) async fn a_lost_job_goes_out_before_all_that_wait(store: &dyn Store) {
    for n in 1..=4 {
        submit(store, job(n)).await;
    }
    assert_eq!(take(store, "w1", 2, 10).await, [id(1), id(2)]);
    change(store, id(2), lost("w1"), 20).await;
    change(store, id(1), lost("w1"), 20).await;
    assert_eq!(take(store, "w2", 9, 30).await, [id(1), id(2), id(3), id(4)]);
}

pub(super) async fn a_handed_back_job_may_go_to_the_same_worker(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job(2)).await;
    take(store, "w1", 1, 10).await;
    let back = |since| Event::HandBack {
        worker: worker("w1"),
        since: at(since),
    };
    let change = change(store, id(1), back(10), 20).await;
    assert_eq!((change.job.retries, change.job.barred), (0, Vec::new()));
    assert_eq!(take(store, "w1", 1, 30).await, [id(1)]);
    // Said twice, it is of an attempt that is over.
    let again = store.apply(&endpoint("a"), id(1), back(10), None, at(40));
    assert!(again.await.unwrap().changed().is_none());
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
}

/// Together they are larger than what one poll is answered with.
pub(super) async fn large_jobs_that_a_worker_may_not_have_are_not_in_its_way(store: &dyn Store) {
    for n in 1..=2 {
        let mut large = job_with(sync_id(n), "a", terms());
        large.input = vec![b'1'; 17 * limits::MIB].into();
        submit(store, large).await;
    }
    submit(store, job(3)).await;
    for n in 1..=2 {
        assert_eq!(take(store, "w1", 1, 10).await, [sync_id(n)]);
    }
    for n in 1..=2 {
        change(store, sync_id(n), lost("w1"), 20).await;
    }
    assert_eq!(take(store, "w1", 1, 30).await, [id(3)]);
    assert_eq!(take(store, "w2", 1, 30).await, [sync_id(1)]);
}

pub(super) async fn a_poll_without_a_job_it_held_has_lost_it(store: &dyn Store) {
    for n in 1..=3 {
        submit(store, job(n)).await;
    }
    assert_eq!(take(store, "w1", 1, 10).await, [id(1)]);
    assert_eq!(take(store, "w1", 1, 500).await, [id(2)]);
    assert_eq!(take(store, "w2", 1, 10).await, [id(3)]);

    let idle = Ask {
        disowns_before: Some(at(500)),
        ..ask("a", "w1", 1)
    };
    let leased = store.lease(idle, at(600)).await.unwrap();
    // The one that it took at that time may still be on its way to it.
    assert_eq!(leased.lost.len(), 1);
    assert_eq!(leased.lost[0].job.id, id(1));
    assert_eq!(leased.lost[0].before, Status::InProgress);
    assert_eq!(leased.lost[0].job.status(), Status::InQueue);
    assert_eq!(leased.lost[0].job.retries, 1);
    assert!(leased.handouts.is_empty());
    assert_eq!(status(store, id(2)).await, Some(Status::InProgress));
    assert_eq!(status(store, id(3)).await, Some(Status::InProgress));
    assert_eq!(take(store, "w3", 9, 700).await, [id(1)]);
}

pub(super) async fn secrets_go_out_with_the_job_until_it_can_never_run_again(store: &dyn Store) {
    let sealed = |n| {
        let mut new = job(n);
        new.secrets = Some(vec![0, n, 255]);
        new
    };
    let secrets = async |by: &str, ms| {
        let leased = store.lease(ask("a", by, 1), at(ms)).await.unwrap();
        let handout = leased.handouts.into_iter().next().unwrap();
        (handout.job.id, handout.secrets)
    };
    submit(store, sealed(1)).await;
    assert_eq!(secrets("w1", 10).await, (id(1), Some(vec![0, 1, 255])));
    change(store, id(1), lost("w1"), 20).await;
    assert_eq!(secrets("w2", 30).await, (id(1), Some(vec![0, 1, 255])));
    report(store, id(1), fail("w2"), "0").await;
    change(store, id(1), Event::Retry, 2_000).await;
    assert_eq!(secrets("w3", 2_010).await, (id(1), Some(vec![0, 1, 255])));
    report(store, id(1), complete("w3"), "0").await;

    submit(store, sealed(2)).await;
    change(store, id(2), Event::Cancel, 3_000).await;
    // Neither can run again, so nothing may hand out what must be gone. What the file of the
    // embedded store holds is looked at in its own tests.
    for n in [1, 2] {
        assert!(matches!(
            apply(store, id(n), Event::Retry, 3_000).await,
            lazyfox_store::Applied::Refused(..)
        ));
    }
    assert!(take(store, "w4", 9, limits::LEASE_MS).await.is_empty());
}
