//! Where a waiting job stands.

use lazyfox_core::id::JobId;
use lazyfox_core::job::Event;
use lazyfox_store::{PLACES_COUNTED, Place, Store};

use crate::world::*;

async fn place(store: &dyn Store, job: JobId) -> Option<Place> {
    store.place(&endpoint("a"), job).await.unwrap()
}

fn ahead(ahead: u64, low: bool) -> Option<Place> {
    Some(Place {
        ahead,
        at_least: false,
        low,
    })
}

pub(super) async fn a_place_is_how_many_go_out_before(store: &dyn Store) {
    submit(store, job_with(id(1), "a", low())).await;
    submit(store, job(2)).await;
    submit(store, job_with(id(9), "b", terms())).await;
    submit(store, job(3)).await;
    submit(store, job_with(id(4), "a", low())).await;
    assert_eq!(place(store, id(2)).await, ahead(0, false));
    assert_eq!(place(store, id(3)).await, ahead(1, false));
    assert_eq!(place(store, id(1)).await, ahead(2, true));
    assert_eq!(place(store, id(4)).await, ahead(3, true));

    assert_eq!(take(store, "w1", 1, 10).await, [id(2)]);
    assert_eq!(place(store, id(4)).await, ahead(2, true));
    change(store, id(1), Event::Cancel, 20).await;
    assert_eq!(place(store, id(4)).await, ahead(1, true));
    // What comes back has its old place.
    change(store, id(2), lost("w1"), 30).await;
    assert_eq!(place(store, id(3)).await, ahead(1, false));
    assert_eq!(place(store, id(2)).await, ahead(0, false));
}

pub(super) async fn only_what_waits_has_a_place(store: &dyn Store) {
    submit(store, job(1)).await;
    submit(store, job(2)).await;
    submit(store, job_with(id(3), "b", terms())).await;
    assert_eq!(take(store, "w1", 1, 10).await, [id(1)]);
    assert_eq!(place(store, id(1)).await, None, "it runs");
    change(store, id(1), complete("w1"), 20).await;
    assert_eq!(place(store, id(1)).await, None, "it has ended");
    assert_eq!(place(store, id(3)).await, None, "it waits elsewhere");
    assert_eq!(place(store, id(7)).await, None, "nobody knows it");
    assert_eq!(place(store, id(2)).await, ahead(0, false));
}

pub(super) async fn far_behind_a_place_is_not_counted_to_the_end(store: &dyn Store) {
    let many = PLACES_COUNTED + 2;
    for start in (0..many).step_by(5_000) {
        let jobs = start..many.min(start + 5_000);
        let jobs = jobs.map(|n| job_with(nth_id(n), "a", terms()));
        let kept = together(jobs.map(|job| store.submit(job, START)).collect());
        assert!(kept.await.iter().all(Result::is_ok));
    }
    submit(store, job_with(id(1), "a", low())).await;
    let counted = PLACES_COUNTED as u64;
    let at_least = |low| {
        Some(Place {
            ahead: counted,
            at_least: true,
            low,
        })
    };
    let nth = async |n| place(store, nth_id(n)).await;
    assert_eq!(nth(PLACES_COUNTED).await, ahead(counted, false));
    assert_eq!(nth(PLACES_COUNTED + 1).await, at_least(false));
    assert_eq!(place(store, id(1)).await, at_least(true));
}
