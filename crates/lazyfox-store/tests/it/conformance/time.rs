//! Deadlines, heartbeats, retention, and the sweeps over a queue.

use lazyfox_core::job::{Event, Status};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Ask, Heartbeat, Purged, Renewed, Store};

use crate::world::*;

const LEASE: u64 = limits::LEASE_MS;

/// Jobs that changed, and when the next deadline is.
async fn expire(store: &dyn Store, ms: u64) -> (Vec<(u8, Status)>, Timestamp) {
    let expired = store.expire(at(ms), 99).await.unwrap();
    let changed = expired
        .changes
        .iter()
        .map(|change| {
            let n = (0..=255).find(|&n| change.job.id == id(n)).unwrap();
            (n, change.job.status())
        })
        .collect();
    (changed, expired.next)
}

async fn error(store: &dyn Store, n: u8) -> String {
    let job = load(store, id(n)).await.unwrap().job;
    job.state.end().unwrap().error.clone().unwrap()
}

fn beat(by: &str, jobs: Option<Vec<lazyfox_core::id::JobId>>) -> Heartbeat {
    Heartbeat {
        worker: worker(by),
        endpoint: endpoint("a"),
        jobs,
        lease_ms: LEASE,
    }
}

pub(super) async fn a_lease_that_runs_out_is_a_lost_worker(store: &dyn Store) {
    submit(store, job(1)).await;
    take(store, "w1", 1, 10).await;
    report(store, id(1), progress("w1"), "\"half\"").await;
    assert_eq!(expire(store, LEASE + 9).await, (vec![], at(LEASE + 10)));
    let (changed, next) = expire(store, LEASE + 10).await;
    assert_eq!(changed, [(1, Status::InQueue)]);
    // It waits anew, and so does its default ttl.
    assert_eq!(next, at(LEASE + 10 + limits::TTL_MS));
    assert_eq!(output(store, id(1)).await, None);

    let second = LEASE + 20;
    assert!(take(store, "w1", 1, second).await.is_empty());
    assert_eq!(take(store, "w2", 1, second).await, [id(1)]);
    let (changed, next) = expire(store, second + LEASE).await;
    assert_eq!(changed, [(1, Status::Failed)]);
    assert_eq!(next, Timestamp::NEVER);
    assert_eq!(
        error(store, 1).await,
        "worker w2 gave no sign of life for the length of its lease; gave up after 1 retry"
    );
}

pub(super) async fn a_run_ends_at_its_execution_timeout(store: &dyn Store) {
    let short = Terms {
        execution_timeout_ms: Some(5_000),
        ..terms()
    };
    submit(store, job_with(id(1), "a", short)).await;
    take(store, "w1", 1, 10).await;
    assert_eq!(expire(store, 5_009).await, (vec![], at(5_010)));
    let (changed, _) = expire(store, 5_010).await;
    assert_eq!(changed, [(1, Status::TimedOut)]);
    assert_eq!(error(store, 1).await, "execution timeout after 5000 ms");
}

pub(super) async fn a_default_ttl_ends_only_waiting_jobs(store: &dyn Store) {
    let short = Terms {
        ttl_ms: 20_000,
        ..terms()
    };
    submit(store, job_with(id(1), "a", short)).await;
    submit(store, job_with(id(2), "a", short)).await;
    take(store, "w1", 1, 10).await;
    let (changed, next) = expire(store, 20_000).await;
    assert_eq!(changed, [(2, Status::TimedOut)]);
    assert_eq!(next, at(LEASE + 10));
    assert_eq!(error(store, 2).await, "ttl of 20000 ms ran out");
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
}

pub(super) async fn a_given_ttl_ends_a_running_job_too(store: &dyn Store) {
    let hard = Terms {
        ttl_ms: 20_000,
        ttl_given: true,
        ..terms()
    };
    let forgetting = Terms {
        ttl_expiry_forgets: true,
        ..hard
    };
    submit(store, job_with(id(1), "a", hard)).await;
    submit(store, job_with(id(2), "a", forgetting)).await;
    take(store, "w1", 2, 10).await;
    let (changed, next) = expire(store, 20_000).await;
    assert_eq!(changed, [(1, Status::TimedOut), (2, Status::TimedOut)]);
    assert_eq!(next, Timestamp::NEVER);
    // One keeps its record, the other goes with the next round of pruning.
    assert_eq!(store.prune(at(20_000), 9).await, Ok(1));
    assert_eq!(status(store, id(1)).await, Some(Status::TimedOut));
    assert_eq!(status(store, id(2)).await, None);
}

pub(super) async fn a_ttl_can_be_set_later(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job(2)).await;
    take(store, "w1", 1, 10).await;
    for n in [1, 2] {
        change(store, id(n), Event::SetTtl { ms: 10_000 }, 20).await;
    }
    assert_eq!(expire(store, 10_019).await, (vec![], at(10_020)));
    let (changed, _) = expire(store, 10_020).await;
    assert_eq!(changed, [(1, Status::TimedOut), (2, Status::TimedOut)]);
    // Of an ended job it shortens the retention, and never lengthens it.
    change(store, id(1), Event::SetTtl { ms: 10_000 }, 20_000).await;
    let long = limits::RETENTION_MS * 2;
    change(store, id(2), Event::SetTtl { ms: long }, 20_000).await;
    assert_eq!(store.prune(at(29_999), 9).await, Ok(0));
    assert_eq!(store.prune(at(30_000), 9).await, Ok(1));
    let end = 10_020 + limits::RETENTION_MS;
    assert_eq!(store.prune(at(end), 9).await, Ok(1));
}

pub(super) async fn expiry_takes_the_earliest_deadlines_first(store: &dyn Store) {
    for (n, ttl_ms) in [(1, 30_000), (2, 10_000), (3, 20_000), (4, 10_000)] {
        let terms = Terms { ttl_ms, ..terms() };
        submit(store, job_with(id(n), "a", terms)).await;
    }
    let first = store.expire(at(50_000), 2).await.unwrap();
    let ids: Vec<_> = first.changes.iter().map(|change| change.job.id).collect();
    assert_eq!(ids, [id(2), id(4)]);
    // More is due already: the caller sees it in the time.
    assert_eq!(first.next, at(20_000));
    let (changed, next) = expire(store, 50_000).await;
    assert_eq!(changed, [(3, Status::TimedOut), (1, Status::TimedOut)]);
    assert_eq!(next, Timestamp::NEVER);
}

pub(super) async fn a_heartbeat_renews_what_it_names(store: &dyn Store) {
    for n in 1..=3 {
        submit(store, job(n)).await;
    }
    assert_eq!(take(store, "w1", 2, 0).await, [id(1), id(2)]);
    assert_eq!(take(store, "w2", 1, 0).await, [id(3)]);
    let named = Some(vec![id(3), id(2), id(9)]);
    let renewed = store.renew(beat("w1", named), at(30_000)).await;
    let expected = Renewed {
        not_held: vec![id(3), id(9)],
        begun: vec![],
        holds: true,
    };
    assert_eq!(renewed, Ok(expected));
    let (changed, next) = expire(store, LEASE).await;
    assert_eq!(changed, [(1, Status::InQueue), (3, Status::InQueue)]);
    assert_eq!(next, at(30_000 + LEASE));

    let renewed = store.renew(beat("w2", Some(vec![id(3)])), at(LEASE)).await;
    let expected = Renewed {
        not_held: vec![id(3)],
        begun: vec![],
        holds: false,
    };
    assert_eq!(renewed, Ok(expected));
}

pub(super) async fn a_heartbeat_of_an_old_version_renews_everything(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job(2)).await;
    take(store, "w1", 1, 0).await;
    // A lease that is longer already is not made shorter.
    let long = Ask {
        lease_ms: 3 * LEASE,
        ..ask("a", "w1", 1)
    };
    assert_eq!(store.lease(long, at(0)).await.unwrap().handouts.len(), 1);
    let renewed = store.renew(beat("w1", None), at(30_000)).await.unwrap();
    assert_eq!((renewed.not_held, renewed.holds), (vec![], true));
    assert_eq!(expire(store, LEASE).await, (vec![], at(30_000 + LEASE)));
    let (changed, next) = expire(store, 30_000 + LEASE).await;
    assert_eq!(changed, [(1, Status::InQueue)]);
    assert_eq!(next, at(3 * LEASE));
    let nobody = store.renew(beat("w7", None), at(50_000)).await.unwrap();
    assert_eq!(nobody, Renewed::default());
}

pub(super) async fn ended_jobs_are_forgotten_after_their_retention(store: &dyn Store) {
    for n in 1..=5 {
        submit(store, job(n)).await;
    }
    assert_eq!(take(store, "w1", 4, 10).await.len(), 4);
    for (n, ms) in [(3, 100), (2, 200), (1, 300)] {
        change(store, id(n), complete("w1"), ms).await;
    }
    let over = |ms| at(ms + limits::RETENTION_MS);
    assert_eq!(store.prune(over(99), 9).await, Ok(0));
    // The oldest ends go first where there is a limit.
    assert_eq!(store.prune(over(200), 1).await, Ok(1));
    assert_eq!(status(store, id(3)).await, None);
    assert_eq!(status(store, id(2)).await, Some(Status::Completed));
    assert_eq!(store.prune(over(200), 9).await, Ok(1));
    assert_eq!(store.prune(over(300), 9).await, Ok(1));
    // Neither age nor pruning touches a job that has not ended.
    assert_eq!(store.prune(Timestamp::NEVER, 9).await, Ok(0));
    assert_eq!(status(store, id(4)).await, Some(Status::InProgress));
    assert_eq!(status(store, id(5)).await, Some(Status::InQueue));
}

pub(super) async fn a_sync_result_that_was_not_awaited_is_kept_longer(store: &dyn Store) {
    for n in 1..=3 {
        submit(store, job_with(sync_id(n), "a", terms())).await;
    }
    change(store, sync_id(1), Event::WaitEnded, 5).await;
    assert_eq!(take(store, "w1", 9, 10).await.len(), 3);
    for n in 1..=3 {
        change(store, sync_id(n), complete("w1"), 100).await;
    }
    change(store, sync_id(2), Event::WaitEnded, 110).await;
    let delivered = at(100 + limits::RETENTION_SYNC_MS);
    assert_eq!(store.prune(delivered, 9).await, Ok(1));
    assert_eq!(status(store, sync_id(3)).await, None);
    let kept = at(100 + limits::RETENTION_MS);
    assert_eq!(store.prune(kept, 9).await, Ok(2));
}

pub(super) async fn purge_ends_the_oldest_waiting_jobs_and_leaves_running_ones(store: &dyn Store) {
    let on = endpoint("a");
    submit(store, job(1)).await;
    submit(store, job_with(id(2), "a", low())).await;
    submit(store, job(3)).await;
    submit(store, job(4)).await;
    submit(store, job_with(id(5), "b", terms())).await;
    assert_eq!(take(store, "w1", 1, 10).await, [id(1)]);

    let first = store.sweep(&on, Event::Purge, 1, at(20)).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].job.id, first[0].before), (id(3), Status::InQueue));
    let rest = store.sweep(&on, Event::Purge, 99, at(20)).await.unwrap();
    let ids: Vec<_> = rest.iter().map(|change| change.job.id).collect();
    assert_eq!(ids, [id(4), id(2)]);
    assert_eq!(store.sweep(&on, Event::Purge, 99, at(20)).await, Ok(vec![]));

    for n in 2..=4 {
        assert_eq!(status(store, id(n)).await, Some(Status::Cancelled));
    }
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
    assert_eq!(take_on(store, "b", "w2", 9, 30).await, [id(5)]);
}

pub(super) async fn a_purge_leaves_what_came_after_its_beginning(store: &dyn Store) {
    let on = endpoint("a");
    for n in [1, 2, 3] {
        submit(store, job(n)).await;
    }
    submit(store, job_with(id(4), "a", low())).await;
    let ids = |purged: &Purged| -> Vec<_> { purged.changes.iter().map(|it| it.job.id).collect() };
    let first = store.purge(&on, None, 1, at(20)).await.unwrap();
    assert_eq!(ids(&first), [id(1)]);

    // A worker takes an old one, and new ones come in either lane.
    assert_eq!(take(store, "w1", 1, 20).await, [id(2)]);
    for n in [5, 6] {
        submit(store, job(n)).await;
    }
    submit(store, job_with(id(7), "a", low())).await;
    let through = Some(first.through);
    let rest = store.purge(&on, through, 99, at(20)).await.unwrap();
    assert_eq!(ids(&rest), [id(3), id(4)]);
    assert_eq!(rest.through, first.through);
    let none = store.purge(&on, through, 99, at(20)).await.unwrap();
    assert_eq!(ids(&none), []);

    assert_eq!(take(store, "w1", 9, 30).await, [id(5), id(6), id(7)]);
    let nowhere = store.purge(&endpoint("b"), None, 9, at(40)).await.unwrap();
    assert_eq!(ids(&nowhere), []);
}

pub(super) async fn unservable_jobs_fail_with_the_reason(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job(2)).await;
    take(store, "w1", 1, 10).await;
    let event = Event::Unservable {
        reason: "the image cannot be pulled".to_owned(),
    };
    let swept = store.sweep(&endpoint("a"), event, 99, at(20)).await;
    assert_eq!(swept.unwrap().len(), 1);
    assert_eq!(status(store, id(2)).await, Some(Status::Failed));
    assert_eq!(error(store, 2).await, "the image cannot be pulled");
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
}
