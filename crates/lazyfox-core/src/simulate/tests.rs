use proptest::prelude::*;

use super::*;
use crate::scale::Scaler;

fn normal(at_ms: u64, run_ms: u64) -> Arrival {
    Arrival {
        at_ms,
        run_ms,
        low: false,
    }
}

fn low(at_ms: u64, run_ms: u64) -> Arrival {
    Arrival {
        low: true,
        ..normal(at_ms, run_ms)
    }
}

/// Three workers at most, a start of 3 s.
fn world(scaler: Scaler) -> World {
    World {
        start_ms: 3_000,
        slots: 1,
        settings: Settings {
            scaler,
            ..Settings::default()
        },
    }
}

const DELAY: Scaler = Scaler::QueueDelay { ms: 4_000 };

fn steps(outcome: &Outcome) -> Vec<(u64, u32)> {
    let steps = outcome.steps.iter();
    steps.map(|step| (step.at_ms, step.workers)).collect()
}

#[test]
fn one_job_starts_one_worker_which_goes_after_its_idle_timeout() {
    let trace = Trace::new(vec![normal(1_000, 2_000)]);
    let outcome = simulate(&trace, &world(DELAY));
    assert_eq!(steps(&outcome), [(1_000, 1), (11_000, 0)]);
    let wait = Waits {
        jobs: 1,
        p50_ms: 3_000,
        p95_ms: 3_000,
        max_ms: 3_000,
    };
    let expected = Outcome {
        steps: outcome.steps.clone(),
        ends_at_ms: 11_000,
        wait,
        wait_low: Waits::default(),
        worker_ms: 10_000,
        busy_ms: 2_000,
        starts: 1,
        served: 1,
        left: 0,
        workers_most: 1,
    };
    assert_eq!(outcome, expected);
}

/// The burst of `scale`'s own tests: six jobs of 8 s.
#[test]
fn a_burst_takes_the_steps_that_the_plan_takes() {
    let trace = Trace::new(vec![normal(0, 8_000); 6]);
    let outcome = simulate(&trace, &world(DELAY));
    // Taken at 3, 7 and 11 s, and again 8 s later; each worker is idle for 5 s then.
    assert_eq!(
        steps(&outcome),
        [
            (0, 1),
            (4_000, 2),
            (8_000, 3),
            (24_000, 2),
            (28_000, 1),
            (32_000, 0)
        ]
    );
    let wait = outcome.wait;
    assert_eq!(
        (wait.p50_ms, wait.p95_ms, wait.max_ms),
        (11_000, 19_000, 19_000)
    );
    assert_eq!(
        (outcome.starts, outcome.workers_most, outcome.busy_ms),
        (3, 3, 48_000)
    );
    let by_count = simulate(&trace, &world(Scaler::RequestCount { per_worker: 1 }));
    assert_eq!(steps(&by_count), [(0, 3), (24_000, 0)]);
    assert_eq!(by_count.wait.max_ms, 11_000);
}

#[test]
fn the_minimum_is_ready_from_the_beginning_and_stays() {
    let mut warm = world(DELAY);
    warm.settings.workers_min = 2;
    let trace = Trace::new(vec![
        normal(5_000, 100),
        normal(5_000, 100),
        normal(9_000, 100),
    ]);
    let outcome = simulate(&trace, &warm);
    assert_eq!(steps(&outcome), [(5_000, 2)]);
    assert_eq!(
        (outcome.starts, outcome.wait.max_ms, outcome.served),
        (0, 0, 3)
    );
    assert_eq!((outcome.ends_at_ms, outcome.worker_ms), (9_100, 8_200));
}

#[test]
fn a_worker_with_slots_runs_so_many_jobs_at_once() {
    let trace = Trace::new(vec![normal(0, 1_000); 4]);
    let mut world = world(DELAY);
    world.slots = 4;
    let outcome = simulate(&trace, &world);
    assert_eq!((outcome.wait.max_ms, outcome.busy_ms), (3_000, 1_000));
    world.slots = 2;
    assert_eq!(simulate(&trace, &world).wait.max_ms, 4_000);
    world.slots = 0;
    assert_eq!(simulate(&trace, &world).wait.max_ms, 6_000, "none is one");
}

#[test]
fn a_slot_is_free_as_soon_as_its_own_job_ends() {
    let jobs = vec![normal(0, 10_000), normal(0, 1_000), normal(0, 1_000)];
    let mut world = world(DELAY);
    world.slots = 2;
    world.settings.workers_max = 1;
    assert_eq!(simulate(&Trace::new(jobs), &world).wait.max_ms, 4_000);
}

#[test]
fn jobs_may_be_given_in_any_order() {
    let trace = Trace::new(vec![normal(9_000, 1), normal(0, 2), normal(0, 3)]);
    assert_eq!(
        trace.arrivals(),
        [normal(0, 2), normal(0, 3), normal(9_000, 1)]
    );
}

#[test]
fn jobs_of_low_priority_wait_for_a_worker_that_another_job_starts() {
    let trace = Trace::new(vec![
        low(0, 1_000),
        normal(60_000, 1_000),
        normal(60_000, 1_000),
    ]);
    let outcome = simulate(&trace, &world(DELAY));
    assert_eq!((outcome.starts, outcome.served, outcome.left), (1, 3, 0));
    assert_eq!(outcome.wait_low.max_ms, 65_000, "after both others");
    assert_eq!(outcome.wait.max_ms, 4_000);
    let never = simulate(&Trace::new(vec![low(0, 1_000)]), &world(DELAY));
    assert_eq!((never.served, never.left, never.starts), (0, 1, 0));
}

#[test]
fn a_paused_endpoint_serves_nothing() {
    let mut paused = world(DELAY);
    paused.settings.workers_max = 0;
    let trace = Trace::new(vec![normal(0, 1_000), normal(10_000, 1_000)]);
    let outcome = simulate(&trace, &paused);
    assert_eq!((outcome.served, outcome.left, outcome.worker_ms), (0, 2, 0));
}

#[test]
fn no_jobs_need_nothing() {
    assert_eq!(
        simulate(&Trace::default(), &world(DELAY)),
        Outcome::default()
    );
}

#[test]
fn waits_are_counted_by_nearest_rank() {
    let of = |waits: &[u64]| {
        let waits = Waits::of(waits.to_vec());
        (waits.p50_ms, waits.p95_ms, waits.max_ms)
    };
    assert_eq!(of(&[7]), (7, 7, 7));
    assert_eq!(of(&[4, 1, 3, 2]), (2, 4, 4));
    let hundred: Vec<u64> = (1..=100).rev().collect();
    assert_eq!(of(&hundred), (50, 95, 100));
}

/// A constant load for a day: what a server would do all day long has no steps after the first minute.
#[test]
fn a_day_of_constant_load_is_quiet() {
    let arrivals = (0..86_400).map(|n| normal(n * 1_000, 2_500)).collect();
    let outcome = simulate(&Trace::new(arrivals), &world(DELAY));
    assert_eq!((outcome.served, outcome.starts), (86_400, 3));
    assert_eq!(outcome.busy_ms, 86_400 * 2_500);
}

fn any_world() -> impl Strategy<Value = World> {
    let scaler = prop_oneof![
        (1_u64..10_000).prop_map(|ms| Scaler::QueueDelay { ms }),
        (1_u32..8).prop_map(|per_worker| Scaler::RequestCount { per_worker }),
    ];
    (
        0_u32..4,
        1_u32..6,
        scaler,
        0_u64..9_000,
        0_u64..9_000,
        1_u32..4,
    )
        .prop_map(
            |(workers_min, more, scaler, idle_timeout_ms, start_ms, slots)| World {
                start_ms,
                slots,
                settings: Settings {
                    workers_min,
                    workers_max: workers_min + more,
                    scaler,
                    idle_timeout_ms,
                    ..Settings::default()
                },
            },
        )
}

proptest! {
    #[test]
    fn every_job_is_run_once_and_the_books_agree(
        jobs in proptest::collection::vec((0_u64..90_000, 0_u64..9_000, 0_u32..5), 1..60),
        world in any_world(),
    ) {
        let arrival = |&(at_ms, run_ms, low)| Arrival { at_ms, run_ms, low: low == 0 };
        let trace = Trace::new(jobs.iter().map(arrival).collect());
        let outcome = simulate(&trace, &world);

        let settings = world.settings;
        prop_assert_eq!(outcome.served + outcome.left, jobs.len() as u64);
        prop_assert_eq!(outcome.wait.jobs + outcome.wait_low.jobs, outcome.served);
        let normal = trace.arrivals().iter().filter(|it| !it.low).count();
        prop_assert_eq!(outcome.wait.jobs, normal as u64, "a job is stranded");
        prop_assert!(outcome.workers_most <= settings.workers_max);

        // What the steps say is what was paid for, and what was run took its time.
        let ends = outcome.steps.iter().skip(1).map(|step| step.at_ms);
        let spans = outcome.steps.iter().zip(ends.chain([outcome.ends_at_ms]));
        let paid: u64 = spans.map(|(it, end)| (end - it.at_ms) * u64::from(it.workers)).sum();
        prop_assert_eq!(outcome.worker_ms, paid);
        prop_assert!(outcome.busy_ms <= outcome.worker_ms);
        if outcome.left == 0 {
            let run: u64 = jobs.iter().map(|(_, run_ms, _)| run_ms).sum();
            prop_assert!(outcome.busy_ms <= run && outcome.busy_ms * u64::from(world.slots) >= run);
        }
        let last = outcome.steps.last().map(|step| step.workers);
        prop_assert_eq!(last, Some(settings.workers_min), "{:?}", outcome.steps);
    }
}
