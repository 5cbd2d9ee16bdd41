//! Jobs that go out beyond what a worker asked for, and wait inside it.

use lazyfox_core::id::JobId;
use lazyfox_core::job::{Event, State, Status};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_store::{Ask, Extra, Heartbeat, HolderEvent, Renewed, Store};

use crate::world::*;

const LEASE: u64 = limits::LEASE_MS;

fn ask_more(by: &str, count: usize, extra: usize) -> Ask {
    Ask {
        extra: Extra {
            count: extra,
            not_expiring_before: at(60_000),
        },
        ..ask("a", by, count)
    }
}

/// What goes out, and whether it waits.
async fn take_more(store: &dyn Store, by: &str, count: usize, extra: usize) -> Vec<(JobId, bool)> {
    let leased = store.lease(ask_more(by, count, extra), at(10)).await;
    let out = leased.unwrap().handouts.into_iter();
    out.map(|it| (it.job.id, it.job.waits_in_worker()))
        .collect()
}

/// Jobs 1 to 3, held by `w1` since 10; it has begun with the first.
async fn three(store: &dyn Store) {
    for n in 1..=3 {
        submit(store, job(n)).await;
    }
    let out = take_more(store, "w1", 1, 9).await;
    assert_eq!(out, [(id(1), false), (id(2), true), (id(3), true)]);
}

fn begin(by: &str) -> Event {
    Event::Begin { worker: worker(by) }
}

fn beat(jobs: Option<Vec<JobId>>) -> Heartbeat {
    Heartbeat {
        worker: worker("w1"),
        endpoint: endpoint("a"),
        jobs,
        lease_ms: LEASE,
    }
}

fn died(begun: Vec<JobId>) -> HolderEvent {
    HolderEvent::Lost {
        how: "was killed".to_owned(),
        died: true,
        begun,
    }
}

/// The retries and the deaths that `w1`'s end costs each of the jobs, in order of submission.
async fn cost(store: &dyn Store, event: HolderEvent) -> Vec<(JobId, u32, usize)> {
    let lost = store.apply_to_held(&worker("w1"), event, at(20)).await;
    let lost = lost.unwrap();
    for change in &lost {
        assert_eq!(change.before, Status::InProgress);
        assert_eq!(change.holder, Some(worker("w1")));
        assert_eq!(change.job.status(), Status::InQueue);
        assert_eq!(change.job.barred, [worker("w1")]);
        let kept = load(store, change.job.id).await.unwrap().job;
        assert_eq!(kept, change.job);
    }
    let costs = lost.into_iter().map(|it| it.job);
    costs
        .map(|job| (job.id, job.retries, job.deaths.len()))
        .collect()
}

pub(super) async fn what_goes_out_beyond_what_was_asked_for_waits(store: &dyn Store) {
    for n in 1..=6 {
        submit(store, job(n)).await;
    }
    let out = take_more(store, "w1", 2, 2).await;
    let expected = [(id(1), false), (id(2), false), (id(3), true), (id(4), true)];
    assert_eq!(out, expected);
    let kept = load(store, id(3)).await.unwrap().job;
    assert_eq!(kept.status(), Status::InProgress);
    assert!(kept.waits_in_worker(), "what is read says so too");
    // Somebody has to begin.
    assert_eq!(take_more(store, "w2", 0, 9).await, []);
    assert_eq!(take_more(store, "w2", 9, 9).await.len(), 2);
}

pub(super) async fn what_may_end_soon_waits_in_the_queue(store: &dyn Store) {
    let soon = Terms {
        ttl_ms: 59_999,
        ttl_given: true,
        ..terms()
    };
    let later = Terms {
        ttl_ms: 60_000,
        ..soon
    };
    let by_default = Terms {
        ttl_given: false,
        ..soon
    };
    submit(store, job_with(id(1), "a", soon)).await;
    submit(store, job_with(id(2), "a", later)).await;
    submit(store, job_with(id(3), "a", by_default)).await;
    submit(store, job_with(id(4), "a", soon)).await;
    submit(store, job(5)).await;
    // It goes out to be run at once, and nothing goes out before it.
    let out = take_more(store, "w1", 1, 9).await;
    assert_eq!(out, [(id(1), false), (id(2), true), (id(3), true)]);
    let out = take_more(store, "w2", 1, 9).await;
    assert_eq!(out, [(id(4), false), (id(5), true)]);
}

pub(super) async fn what_waits_is_of_the_lane_of_the_one_before(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job_with(id(2), "a", low())).await;
    submit(store, job_with(id(3), "a", low())).await;
    submit(store, job_with(id(4), "a", low())).await;
    assert_eq!(take_more(store, "w1", 1, 9).await, [(id(1), false)]);
    let out = take_more(store, "w2", 1, 1).await;
    assert_eq!(out, [(id(2), false), (id(3), true)]);
    // One that this worker must not have is in nobody's way.
    submit(store, job(5)).await;
    assert_eq!(take_more(store, "w3", 1, 9).await, [(id(5), false)]);
    change(store, id(5), lost("w3"), 20).await;
    assert_eq!(take_more(store, "w3", 1, 9).await, [(id(4), false)]);
}

pub(super) async fn a_worker_begins_with_what_waits_in_it(store: &dyn Store) {
    three(store).await;
    let begun = change(store, id(2), begin("w1"), 5_000).await;
    assert!(!begun.job.waits_in_worker());
    let kept = load(store, id(2)).await.unwrap().job;
    let State::Running(attempt) = &kept.state else {
        panic!("{kept:?}")
    };
    assert!(attempt.begun);
    assert_eq!(attempt.started_at, at(5_000));
    assert!(load(store, id(3)).await.unwrap().job.waits_in_worker());
    assert_eq!(store.expire(at(LEASE), 9).await.unwrap().changes, []);
}

pub(super) async fn an_end_says_since_when_it_ran(store: &dyn Store) {
    three(store).await;
    let since = Event::Complete {
        worker: worker("w1"),
        began_at: Some(at(700)),
    };
    let done = change(store, id(2), since, 900).await;
    let end = done.job.state.end().unwrap();
    assert_eq!(
        (end.at, &end.attempt),
        (at(900), &Some((worker("w1"), at(700))))
    );
    assert_eq!(load(store, id(2)).await.unwrap().job, done.job);
    let cancelled = change(store, id(3), Event::Cancel, 950).await;
    let end = cancelled.job.state.end().unwrap();
    assert_eq!(end.attempt, Some((worker("w1"), at(950))), "it never ran");
}

pub(super) async fn a_sign_of_life_renews_what_waits_behind_what_it_names(store: &dyn Store) {
    three(store).await;
    let named = Some(vec![id(1)]);
    let renewed = store.renew(beat(named), at(30_000)).await;
    let expected = Renewed {
        holds: true,
        ..Renewed::default()
    };
    assert_eq!(renewed, Ok(expected.clone()));
    assert_eq!(store.expire(at(LEASE + 10), 9).await.unwrap().changes, []);
    // Who works for nothing still has no time for what waits.
    let named = Some(vec![id(9)]);
    let renewed = store.renew(beat(named), at(50_000)).await;
    let nine = Renewed {
        not_held: vec![id(9)],
        ..expected.clone()
    };
    assert_eq!(renewed, Ok(nine));
    let expired = store.expire(at(30_000 + LEASE), 9).await.unwrap();
    let ids: Vec<_> = expired.changes.iter().map(|it| it.job.id).collect();
    assert_eq!(ids, [id(1)]);

    // A worker that names nothing runs nothing, and would have begun with what waits.
    let renewed = store.renew(beat(Some(vec![])), at(80_000)).await;
    assert_eq!(renewed, Ok(expected));
    let expired = store.expire(at(50_000 + LEASE), 9).await.unwrap();
    let back: Vec<_> = expired.changes.iter().map(|it| it.job.clone()).collect();
    let back: Vec<_> = back.iter().map(|it| (it.id, it.retries)).collect();
    assert_eq!(back, [(id(2), 0), (id(3), 0)], "it was no retry");
}

pub(super) async fn a_sign_of_life_tells_what_has_begun(store: &dyn Store) {
    three(store).await;
    let named = Some(vec![id(2), id(3)]);
    let renewed = store.renew(beat(named.clone()), at(1_000)).await;
    let expected = Renewed {
        not_held: vec![],
        begun: vec![id(2), id(3)],
        holds: true,
    };
    assert_eq!(renewed, Ok(expected));
    change(store, id(2), begin("w1"), 1_000).await;
    let renewed = store.renew(beat(named), at(2_000)).await.unwrap();
    assert_eq!(renewed.begun, [id(3)]);
    let everything = store.renew(beat(None), at(3_000)).await.unwrap();
    assert_eq!(everything.begun, [], "it names none");
}

pub(super) async fn a_loss_costs_only_what_had_begun(store: &dyn Store) {
    three(store).await;
    let costs = cost(store, died(vec![])).await;
    assert_eq!(costs, [(id(1), 1, 1), (id(2), 0, 0), (id(3), 0, 0)]);
    assert_eq!(take(store, "w1", 9, 30).await, []);
    assert_eq!(take(store, "w2", 9, 30).await, [id(1), id(2), id(3)]);
}

pub(super) async fn what_is_known_to_have_begun_is_to_blame(store: &dyn Store) {
    three(store).await;
    change(store, id(1), complete("w1"), 15).await;
    let costs = cost(store, died(vec![id(3), id(9)])).await;
    assert_eq!(costs, [(id(2), 0, 0), (id(3), 1, 1)]);
}

pub(super) async fn where_nothing_is_known_the_first_is_to_blame(store: &dyn Store) {
    submit(store, job_with(id(4), "a", low())).await;
    submit(store, job_with(id(5), "a", low())).await;
    let out = take_more(store, "w1", 1, 9).await;
    assert_eq!(out, [(id(4), false), (id(5), true)]);
    for n in [1, 2] {
        submit(store, job(n)).await;
    }
    let later = store.lease(ask_more("w1", 1, 9), at(15)).await.unwrap();
    assert_eq!(later.handouts.len(), 2);
    // 5 and 2 wait. 5 is later in the queue, and was there first.
    change(store, id(4), complete("w1"), 16).await;
    change(store, id(1), complete("w1"), 17).await;
    let costs = cost(store, died(vec![])).await;
    assert_eq!(costs, [(id(5), 1, 1), (id(2), 0, 0)]);
}

pub(super) async fn an_eviction_costs_nothing_wherever_a_job_is(store: &dyn Store) {
    three(store).await;
    let costs = cost(store, HolderEvent::Evict).await;
    assert_eq!(costs, [(id(1), 0, 0), (id(2), 0, 0), (id(3), 0, 0)]);
}

pub(super) async fn a_poll_without_what_waited_has_lost_it(store: &dyn Store) {
    three(store).await;
    change(store, id(1), complete("w1"), 15).await;
    submit(store, job(4)).await;
    let idle = Ask {
        disowns_before: Some(at(500)),
        ..ask("a", "w1", 1)
    };
    let leased = store.lease(idle, at(600)).await.unwrap();
    let lost: Vec<_> = leased.lost.iter().map(|it| it.job.clone()).collect();
    let lost: Vec<_> = lost.iter().map(|it| (it.id, it.retries)).collect();
    assert_eq!(lost, [(id(2), 1), (id(3), 0)]);
    let out: Vec<_> = leased.handouts.iter().map(|it| it.job.id).collect();
    assert_eq!(out, [id(4)], "it is barred from both");
}
