//! Reading jobs: one, a page, and all in numbers.

use lazyfox_core::id::JobId;
use lazyfox_core::job::{Counter, Event, Status};
use lazyfox_core::scale::Demand;
use lazyfox_store::{LIST_VISITS_MAX, Page, Parts, Query, Store, Submitted};

use crate::world::*;

async fn page(store: &dyn Store, limit: usize, before: Option<u64>) -> (Vec<JobId>, Option<u64>) {
    let query = Query {
        endpoint: endpoint("a"),
        status: None,
        limit,
        before,
    };
    let Page { jobs, next } = store.list(query).await.unwrap();
    (jobs.into_iter().map(|job| job.id).collect(), next)
}

pub(super) async fn a_list_is_paged_newest_first(store: &dyn Store) {
    for n in [5, 3, 9, 1] {
        submit(store, job(n)).await;
        submit(store, job_with(id(100 + n), "b", terms())).await;
    }
    let (first, next) = page(store, 2, None).await;
    assert_eq!(first, [id(1), id(9)]);
    // What comes in between does not move the pages.
    submit(store, job(2)).await;
    let (second, end) = page(store, 2, next).await;
    assert_eq!((second, end), (vec![id(3), id(5)], None));
    let all = vec![id(2), id(1), id(9), id(3), id(5)];
    assert_eq!(page(store, 5, None).await, (all.clone(), None));
    assert_eq!(page(store, 99, Some(u64::MAX)).await, (all, None));
    assert_eq!(page(store, 0, None).await, (vec![], None));
}

pub(super) async fn a_search_for_a_rare_status_goes_step_by_step(store: &dyn Store) {
    // The one that is searched for is the oldest, and as many others as one call looks at are newer.
    submit(store, job_with(nth_id(0), "a", terms())).await;
    change(store, nth_id(0), Event::Cancel, 10).await;
    let newer: Vec<usize> = (1..LIST_VISITS_MAX).collect();
    for some in newer.chunks(1_000) {
        let submits = some
            .iter()
            .map(|&n| job_with(nth_id(n), "a", terms()))
            .map(|new| store.submit(new, START));
        for submitted in together(submits.collect()).await {
            assert_eq!(submitted, Ok(Submitted::Accepted { taken: false }));
        }
    }
    submit(store, job_with(nth_id(LIST_VISITS_MAX), "a", terms())).await;
    let step = async |before| {
        let query = Query {
            endpoint: endpoint("a"),
            status: Some(Status::Cancelled),
            limit: 9,
            before,
        };
        let page = store.list(query).await.unwrap();
        let ids: Vec<_> = page.jobs.iter().map(|job| job.id).collect();
        (ids, page.next)
    };
    let (none, next) = step(None).await;
    assert_eq!(none, []);
    assert!(next.is_some());
    assert_eq!(step(next).await, (vec![nth_id(0)], None));
    // All that was asked for is one page, however many were passed over.
    change(store, nth_id(LIST_VISITS_MAX), Event::Cancel, 20).await;
    let (first, next) = step(None).await;
    assert_eq!(first, [nth_id(LIST_VISITS_MAX)]);
    assert_eq!(step(next).await, (vec![nth_id(0)], None));
}

pub(super) async fn a_list_has_one_endpoint_and_one_status(store: &dyn Store) {
    for n in 1..=4 {
        submit(store, job(n)).await;
    }
    submit(store, job_with(id(5), "b", terms())).await;
    take(store, "w1", 3, 10).await;
    change(store, id(1), complete("w1"), 20).await;
    change(store, id(2), fail("w1"), 20).await;
    let list = async |on: &str, status| {
        let query = Query {
            endpoint: endpoint(on),
            status,
            limit: 99,
            before: None,
        };
        let jobs = store.list(query).await.unwrap().jobs;
        jobs.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(list("a", Some(Status::InQueue)).await, [id(4)]);
    assert_eq!(list("a", Some(Status::InProgress)).await, [id(3)]);
    assert_eq!(list("a", Some(Status::Failed)).await, [id(2)]);
    assert_eq!(list("a", Some(Status::Completed)).await, [id(1)]);
    assert!(list("a", Some(Status::Cancelled)).await.is_empty());
    assert_eq!(list("b", None).await, [id(5)]);
    assert!(list("c", None).await.is_empty());
    // A job of a list is the job.
    let query = Query {
        endpoint: endpoint("a"),
        status: None,
        limit: 99,
        before: None,
    };
    for job in store.list(query).await.unwrap().jobs {
        let kept = load(store, job.id).await.unwrap().job;
        assert_eq!(without_lease(job), without_lease(kept));
    }
}

pub(super) async fn only_the_parts_asked_for_are_read(store: &dyn Store) {
    submit(store, job(1)).await;
    take(store, "w1", 1, 10).await;
    let large = bytes::Bytes::from(vec![b'7'; 300_000]);
    let on = endpoint("a");
    store
        .apply(&on, id(1), complete("w1"), Some(large.clone()), at(20))
        .await
        .unwrap();
    for (output, input) in [(false, false), (true, false), (false, true), (true, true)] {
        let parts = Parts { output, input };
        let loaded = store.load(&on, id(1), parts).await.unwrap().unwrap();
        assert_eq!(loaded.output, output.then(|| large.clone()));
        assert_eq!(loaded.input, input.then(|| input_of(id(1))));
        assert_eq!(loaded.job.status(), Status::Completed);
    }
}

pub(super) async fn a_survey_counts_what_waits_runs_and_ended(store: &dyn Store) {
    assert_eq!(store.survey().await, Ok(vec![]));
    submit(store, job_with(id(1), "b", terms())).await;
    for n in 2..=8 {
        let mut new = job(n);
        new.job.queued_at = at(u64::from(n));
        submit(store, new).await;
    }
    submit(store, job_with(id(9), "a", low())).await;
    assert_eq!(take(store, "w2", 2, 10).await, [id(2), id(3)]);
    assert_eq!(take(store, "w1", 3, 10).await, [id(4), id(5), id(6)]);
    change(store, id(2), complete("w2"), 20).await;
    change(store, id(4), fail("w1"), 20).await;
    change(store, id(5), lost("w1"), 20).await;
    change(store, id(7), Event::Cancel, 20).await;

    let surveys = store.survey().await.unwrap();
    let [a, b] = &surveys[..] else {
        panic!("two endpoints had jobs: {surveys:?}")
    };
    assert_eq!((&a.endpoint, &b.endpoint), (&endpoint("a"), &endpoint("b")));
    let demand = Demand {
        queued: 2,
        queued_low: 1,
        running: 2,
        oldest_queued_at: Some(at(5)),
    };
    assert_eq!(a.demand, demand);
    assert_eq!(a.holders, [(worker("w1"), 1), (worker("w2"), 1)]);
    let counters = [
        (Counter::Completed, 1),
        (Counter::Failed, 1),
        (Counter::Cancelled, 1),
        (Counter::Retried, 1),
    ];
    assert_eq!(a.counters, counters);
    assert_eq!(b.demand.queued, 1);
    assert_eq!((&b.holders[..], &b.counters[..]), (&[][..], &[][..]));
}

pub(super) async fn a_survey_tells_the_endpoints_of_one_worker_apart(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job_with(id(2), "b", terms())).await;
    submit(store, job_with(id(3), "b", terms())).await;
    take_on(store, "a", "w1", 9, 10).await;
    take_on(store, "b", "w1", 9, 10).await;
    let surveys = store.survey().await.unwrap();
    let holders: Vec<_> = surveys.iter().map(|survey| &survey.holders[..]).collect();
    assert_eq!(
        holders,
        [&[(worker("w1"), 1)][..], &[(worker("w1"), 2)][..]]
    );
}
