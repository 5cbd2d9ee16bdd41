use super::*;

mod properties;
mod reasons;
mod rollout_worlds;
mod rollouts;
mod traces;
mod world;

const NOW: Timestamp = Timestamp::from_ms(1_000_000);

fn ago(ms: i64) -> Timestamp {
    Timestamp::from_ms(NOW.as_ms() - ms)
}

fn member(n: usize, phase: Phase, started_at: Timestamp) -> Member {
    Member {
        worker: format!("w{n}").parse().unwrap(),
        started_at,
        phase,
        outdated: false,
        slots: 1,
    }
}

const IDLE: Phase = Phase::Idle {
    since: Timestamp::from_ms(0),
};
const BUSY: Phase = Phase::Busy { since: NOW };

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

/// The plan where nothing failed and there is room.
fn plan_of(demand: &Demand, fleet: &[Member], settings: &Settings) -> Plan {
    let (starts, room) = (Starts::default(), Room::UNLIMITED);
    plan(demand, fleet, settings, &starts, room, NOW)
}

fn stopped(plan: &Plan) -> Vec<String> {
    let workers = plan.stop.iter().map(|leave| leave.worker.to_string());
    workers.collect()
}

fn check(demand: &Demand, phases: &[Phase], settings: &Settings) -> (u32, Vec<String>) {
    let plan = plan_of(demand, &fleet(phases), settings);
    (plan.start, stopped(&plan))
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
    let fleet = |started_ms| vec![member(0, BUSY, ago(started_ms))];
    let start = |oldest_ms, started_ms| {
        plan_of(&waiting(5, oldest_ms), &fleet(started_ms), &settings).start
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
    let busy = [member(0, BUSY, ago(60_000))];
    let next = plan_of(&waiting(1, 1_000), &busy, &Settings::default()).again_at;
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
    assert_eq!(check(&demand, &[BUSY, Phase::Starting], &by_count(4)).0, 1);
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
    let early = plan_of(&Demand::default(), &fleet(&idle_for(1_000)), &settings);
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
    let fleet = [BUSY, Phase::Idle { since: NOW }];
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

fn failed(failed_in_a_row: u32, ms_ago: i64) -> Starts {
    Starts {
        failed_in_a_row,
        last_failed_at: Some(ago(ms_ago)),
    }
}

/// What is started for nine jobs, ten workers wanted.
fn after(starts: Starts, phases: &[Phase], give_up_after: u32) -> Plan {
    let settings = Settings {
        give_up_after,
        ..by_count(1)
    };
    let room = Room::UNLIMITED;
    plan(
        &waiting(9, 0),
        &fleet(phases),
        &settings,
        &starts,
        room,
        NOW,
    )
}

#[test]
fn failed_starts_hold_the_next_one_off_for_longer_and_longer() {
    for (failures, pause_ms) in [
        (1, 5_000),
        (2, 15_000),
        (3, 60_000),
        (4, 300_000),
        (99, 300_000),
    ] {
        let held = after(failed(failures, pause_ms - 1), &[], 0);
        let left_ms = 1;
        assert_eq!((held.start, held.again_at), (0, NOW.plus_ms(left_ms)));
        assert_eq!(held.reason, Reason::HoldOff { failures, left_ms });
        let tried = after(failed(failures, pause_ms), &[], 0);
        assert_eq!(
            (tried.start, tried.want),
            (1, 9),
            "one, to see whether it works"
        );
    }
}

#[test]
fn one_start_at_a_time_is_tried_after_failures() {
    let starts = failed(2, 60_000);
    let on_trial = after(starts, &[Phase::Starting], 0);
    assert_eq!(on_trial.start, 0);
    assert_eq!(on_trial.reason, Reason::OnTrial { failures: 2 });
    assert_eq!(
        on_trial.again_at,
        Timestamp::NEVER,
        "its end is what changes the plan"
    );
    assert_eq!(after(starts, &[BUSY, IDLE, Phase::Stopping], 0).start, 1);
}

#[test]
fn starts_are_given_up_and_time_does_not_bring_them_back() {
    assert_eq!(after(failed(7, 3_600_000), &[], 8).start, 1);
    for failures in [8, 9] {
        let given_up = after(failed(failures, 3_600_000), &[], 8);
        assert_eq!((given_up.start, given_up.throttled), (0, 0));
        assert_eq!(given_up.reason, Reason::GivenUp { failures });
        assert_eq!(given_up.again_at, Timestamp::NEVER);
    }
}

#[test]
fn workers_that_are_not_wanted_still_go_after_starts_were_given_up() {
    let (settings, starts) = (Settings::default(), failed(8, 0));
    let fleet = fleet(&[IDLE]);
    let plan = plan(
        &Demand::default(),
        &fleet,
        &settings,
        &starts,
        Room::UNLIMITED,
        NOW,
    );
    assert_eq!(stopped(&plan), ["w0"]);
    assert_eq!(plan.reason, Reason::Enough { workers: 1 });
}

#[test]
fn no_more_are_started_than_there_is_room_for() {
    let in_room = |room, phases: &[Phase]| {
        let (settings, starts) = (by_count(1), Starts::default());
        plan(
            &waiting(5, 0),
            &fleet(phases),
            &settings,
            &starts,
            Room(Some(room)),
            NOW,
        )
    };
    let some = in_room(2, &[]);
    assert_eq!((some.start, some.throttled, some.want), (2, 3, 5));
    let none = in_room(0, &[Phase::Starting]);
    assert_eq!((none.start, none.throttled), (0, 4));
    assert_eq!(none.reason, Reason::NoRoom { missing: 4 });
    let all = in_room(9, &[]);
    assert_eq!((all.start, all.throttled), (5, 0));
}

#[test]
fn a_worker_with_slots_counts_for_as_many_jobs() {
    let starting = |slots| Member {
        slots,
        ..member(0, Phase::Starting, ago(60_000))
    };
    let start = |slots| {
        plan_of(
            &waiting(4, 30_000),
            &[starting(slots)],
            &Settings::default(),
        )
        .start
    };
    assert_eq!((start(3), start(4)), (1, 0));
    assert_eq!(start(0), 1, "nobody takes no jobs at all");
}

/// Four low jobs in the slots of one worker: by their number they would be worth four workers.
#[test]
fn running_jobs_alone_start_no_worker() {
    let held = Demand {
        running: 4,
        ..Demand::default()
    };
    assert_eq!(check(&held, &[BUSY], &by_count(1)).0, 0);
}

#[test]
fn a_start_that_hangs_costs_no_worker_that_is_there() {
    let settings = Settings {
        workers_min: 1,
        ..Settings::default()
    };
    assert_eq!(
        check(&Demand::default(), &[IDLE, Phase::Starting], &settings),
        (0, vec![])
    );
}
