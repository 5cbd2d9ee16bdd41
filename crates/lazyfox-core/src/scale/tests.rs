use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_000_000);

fn ago(ms: i64) -> Timestamp {
    Timestamp::from_ms(NOW.as_ms() - ms)
}

fn member(n: usize, phase: Phase, started_at: Timestamp) -> Member {
    Member {
        worker: format!("w{n}").parse().unwrap(),
        started_at,
        phase,
    }
}

fn fleet(phases: &[Phase]) -> Vec<Member> {
    phases
        .iter()
        .enumerate()
        .map(|(n, &phase)| member(n, phase, ago(60_000)))
        .collect()
}

fn waiting(queued: u64, oldest_ms: i64) -> Demand {
    Demand {
        queued,
        oldest_queued_at: Some(ago(oldest_ms)),
        ..Demand::default()
    }
}

fn check(demand: &Demand, phases: &[Phase], settings: &Settings) -> (u32, Vec<String>) {
    let plan = plan(demand, &fleet(phases), settings, None, NOW);
    (
        plan.start,
        plan.stop.iter().map(ToString::to_string).collect(),
    )
}

fn by_count(per_worker: u32) -> Settings {
    Settings {
        scaler: Scaler::RequestCount { per_worker },
        workers_max: 10,
        ..Settings::default()
    }
}

#[test]
fn the_first_job_starts_one_worker_at_once() {
    assert_eq!(
        check(&waiting(1, 0), &[], &Settings::default()),
        (1, vec![])
    );
    assert_eq!(
        check(&waiting(1000, 0), &[], &Settings::default()),
        (1, vec![])
    );
}

#[test]
fn a_starting_worker_counts_as_capacity() {
    let settings = Settings::default();
    assert_eq!(
        check(&waiting(1, 30_000), &[Phase::Starting], &settings).0,
        0
    );
    assert_eq!(
        check(&waiting(2, 30_000), &[Phase::Starting], &settings).0,
        1
    );
}

#[test]
fn queue_delay_adds_one_worker_per_delay() {
    let settings = Settings::default();
    let fleet = |started_ms| vec![member(0, Phase::Busy, ago(started_ms))];
    let start = |oldest_ms, started_ms| {
        plan(
            &waiting(5, oldest_ms),
            &fleet(started_ms),
            &settings,
            None,
            NOW,
        )
        .start
    };
    assert_eq!(
        start(3_999, 60_000),
        0,
        "the oldest has not waited long enough"
    );
    assert_eq!(start(4_000, 60_000), 1);
    assert_eq!(start(30_000, 3_999), 0, "the last start was a moment ago");
    assert_eq!(start(30_000, 4_000), 1);
}

#[test]
fn queue_delay_says_when_to_look_again() {
    let busy = [member(0, Phase::Busy, ago(60_000))];
    let next = plan(&waiting(1, 1_000), &busy, &Settings::default(), None, NOW).again_at;
    assert_eq!(next, NOW.plus_ms(3_000));
}

#[test]
fn request_count_is_a_division() {
    let demand = Demand {
        queued: 5,
        running: 4,
        ..Demand::default()
    };
    assert_eq!(check(&demand, &[], &by_count(4)).0, 3);
    assert_eq!(
        check(&demand, &[Phase::Busy, Phase::Starting], &by_count(4)).0,
        1
    );
    assert_eq!(check(&demand, &[], &by_count(1)).0, 9);
}

#[test]
fn low_priority_jobs_start_no_worker_but_keep_one() {
    let low = Demand {
        queued_low: 3,
        ..Demand::default()
    };
    assert_eq!(check(&low, &[], &Settings::default()), (0, vec![]));
    assert_eq!(
        check(
            &low,
            &[Phase::Idle { since: ago(60_000) }],
            &Settings::default()
        ),
        (0, vec![])
    );
}

#[test]
fn an_idle_worker_stops_after_the_idle_timeout() {
    let settings = Settings::default();
    let idle_for = |ms| [Phase::Idle { since: ago(ms) }];
    assert_eq!(
        check(&Demand::default(), &idle_for(4_999), &settings),
        (0, vec![])
    );
    assert_eq!(
        check(&Demand::default(), &idle_for(5_000), &settings).1,
        ["w0"]
    );
    let early = plan(
        &Demand::default(),
        &fleet(&idle_for(1_000)),
        &settings,
        None,
        NOW,
    );
    assert_eq!(early.again_at, NOW.plus_ms(4_000));
}

#[test]
fn the_minimum_is_started_and_never_stopped() {
    let settings = Settings {
        workers_min: 2,
        ..Settings::default()
    };
    assert_eq!(check(&Demand::default(), &[], &settings), (2, vec![]));
    let idle = Phase::Idle { since: ago(60_000) };
    assert_eq!(
        check(&Demand::default(), &[idle, idle], &settings),
        (0, vec![])
    );
    assert_eq!(
        check(&Demand::default(), &[idle, idle, idle], &settings).1,
        ["w0"]
    );
}

#[test]
fn a_lowered_maximum_stops_idle_workers_at_once_and_busy_ones_never() {
    let paused = Settings {
        workers_max: 0,
        workers_min: 1,
        ..Settings::default()
    };
    let fleet = [Phase::Busy, Phase::Idle { since: NOW }];
    assert_eq!(
        check(&waiting(9, 9_000), &fleet, &paused),
        (0, vec!["w1".to_owned()])
    );
}

#[test]
fn stopping_workers_take_room_but_are_no_capacity() {
    let settings = Settings {
        workers_max: 2,
        ..Settings::default()
    };
    assert_eq!(check(&waiting(1, 0), &[Phase::Stopping], &settings).0, 1);
    assert_eq!(check(&waiting(1, 0), &[Phase::Stopping; 2], &settings).0, 0);
}

#[test]
fn failed_starts_hold_the_next_one_off() {
    let held = NOW.plus_ms(700);
    let plan = plan(&waiting(1, 0), &[], &Settings::default(), Some(held), NOW);
    assert_eq!((plan.start, plan.again_at), (0, held));
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Starting),
        (0_i64..20_000).prop_map(|ms| Phase::Idle { since: ago(ms) }),
        Just(Phase::Busy),
        Just(Phase::Stopping),
    ]
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let scaler = prop_oneof![
        (1_u64..10_000).prop_map(|ms| Scaler::QueueDelay { ms }),
        (1_u32..8).prop_map(|per_worker| Scaler::RequestCount { per_worker }),
    ];
    (0_u32..6, 0_u32..6, scaler, 0_u64..10_000).prop_map(|(min, more, scaler, idle_timeout_ms)| {
        Settings {
            workers_min: min,
            workers_max: min + more,
            scaler,
            idle_timeout_ms,
        }
    })
}

proptest! {
    #[test]
    fn never_above_the_maximum_and_never_below_the_minimum(
        queued in 0_u64..50, queued_low in 0_u64..5, running in 0_u64..10, waited in 0_i64..60_000,
        phases in proptest::collection::vec(any_phase(), 0..8), settings in any_settings(),
    ) {
        let oldest_queued_at = (queued > 0).then(|| ago(waited));
        let demand = Demand { queued, queued_low, running, oldest_queued_at };
        let fleet = fleet(&phases);
        let plan = plan(&demand, &fleet, &settings, None, NOW);
        let here = count(&fleet, |phase| !matches!(phase, Phase::Stopping));
        let stopped = size(plan.stop.len());

        prop_assert!(plan.start == 0 || size(fleet.len()) + plan.start <= settings.workers_max);
        prop_assert!(plan.start == 0 || stopped == 0, "starts and stops at once");
        prop_assert!(here - stopped >= settings.workers_min.min(here).min(settings.workers_max));
        let room = settings.workers_max.saturating_sub(size(fleet.len()));
        if queued > 0 && here == 0 && room > 0 {
            prop_assert!(plan.start > 0, "a waiting job is stranded");
        }
    }

    /// Acting on the plan again and again with no demand ends at the minimum and stays there.
    #[test]
    fn zero_demand_converges_and_stays(
        phases in proptest::collection::vec(any_phase(), 0..8), settings in any_settings(),
    ) {
        let mut fleet = fleet(&phases);
        let mut now = NOW;
        let mut quiet_rounds = 0;
        for round in 0..40 {
            let plan = plan(&Demand::default(), &fleet, &settings, None, now);
            let is_quiet = plan.start == 0 && plan.stop.is_empty();
            quiet_rounds = if is_quiet { quiet_rounds + 1 } else { 0 };
            fleet.retain(|member| {
                !plan.stop.contains(&member.worker) && member.phase != Phase::Stopping
            });
            for n in 0..plan.start {
                fleet.push(member(100 + round * 10 + n as usize, Phase::Starting, now));
            }
            now = now.plus_ms(1_000);
            for member in &mut fleet {
                if matches!(member.phase, Phase::Starting | Phase::Busy) {
                    member.phase = Phase::Idle { since: now };
                }
            }
        }
        prop_assert_eq!(size(fleet.len()), settings.workers_min);
        prop_assert!(quiet_rounds >= 20, "the plan keeps changing its mind");
    }
}
