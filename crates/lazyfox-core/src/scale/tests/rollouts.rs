//! The change to a newer release, step by step.

use super::*;

pub(super) fn always(workers: u32) -> Settings {
    Settings {
        workers_min: workers,
        workers_max: workers,
        ..Settings::default()
    }
}

fn old(phases: &[Phase]) -> Vec<Member> {
    let mut fleet = fleet(phases);
    for member in &mut fleet {
        member.outdated = true;
    }
    fleet
}

/// Outdated workers, then current ones.
fn mixed(outdated: &[Phase], current: &[Phase]) -> Vec<Member> {
    let mut fleet = old(outdated);
    for (n, &phase) in current.iter().enumerate() {
        fleet.push(member(10 + n, phase, ago(60_000)));
    }
    fleet
}

fn in_room(demand: &Demand, fleet: &[Member], settings: &Settings, room: u32) -> Plan {
    plan(
        demand,
        fleet,
        settings,
        &Starts::default(),
        Room(Some(room)),
        NOW,
    )
}

#[test]
fn a_current_worker_is_ready_before_an_outdated_one_goes() {
    let settings = always(2);
    let none = Demand::default();
    let first = plan_of(&none, &old(&[IDLE; 2]), &settings);
    assert_eq!((first.start, stopped(&first)), (1, vec![]), "one at a time");
    assert_eq!(first.reason, Reason::Rollout { outdated: 2 });
    let starting = plan_of(&none, &mixed(&[IDLE; 2], &[Phase::Starting]), &settings);
    assert_eq!((starting.start, stopped(&starting)), (0, vec![]));
    let ready = plan_of(&none, &mixed(&[IDLE; 2], &[IDLE]), &settings);
    assert_eq!((ready.start, stopped(&ready)), (0, vec!["w0".to_owned()]));
    let stopping = mixed(&[Phase::Stopping, IDLE], &[IDLE]);
    assert_eq!(
        check_plan(&none, &stopping, &settings),
        (0, vec![]),
        "no place yet"
    );
    let gone = mixed(&[IDLE], &[IDLE]);
    assert_eq!(check_plan(&none, &gone, &settings), (1, vec![]));
}

fn check_plan(demand: &Demand, fleet: &[Member], settings: &Settings) -> (u32, Vec<String>) {
    let plan = plan_of(demand, fleet, settings);
    (plan.start, stopped(&plan))
}

#[test]
fn more_surge_replaces_more_at_once() {
    let settings = Settings {
        surge: 3,
        ..always(5)
    };
    let start = |outdated, current: &[Phase]| {
        plan_of(
            &Demand::default(),
            &mixed(&vec![IDLE; outdated], current),
            &settings,
        )
        .start
    };
    assert_eq!(start(5, &[]), 3);
    assert_eq!(start(5, &[Phase::Starting]), 2);
    assert_eq!(start(2, &[IDLE; 3]), 2);
}

#[test]
fn an_idle_outdated_worker_that_is_not_wanted_goes_at_once() {
    let since = NOW;
    let fleet = old(&[Phase::Idle { since }, BUSY]);
    assert_eq!(
        check_plan(&Demand::default(), &fleet, &Settings::default()),
        (0, vec!["w0".to_owned()])
    );
}

/// Else it would go, and another be started for the same place, until the busy one happens to be idle at
/// the right moment.
#[test]
fn a_replacement_waits_for_as_long_as_the_other_is_busy() {
    let running = Demand {
        running: 1,
        ..Demand::default()
    };
    let fleet = mixed(&[BUSY], &[IDLE; 2]);
    assert_eq!(check_plan(&running, &fleet, &always(2)), (0, vec![]));
    // Where none is kept, nobody waits for a place.
    let fleet = mixed(&[BUSY], &[IDLE]);
    assert_eq!(
        check_plan(&running, &fleet, &Settings::default()).1,
        ["w10"]
    );
}

#[test]
fn busy_outdated_workers_are_left_to_finish() {
    let running = Demand {
        running: 2,
        ..Demand::default()
    };
    assert_eq!(
        check_plan(&running, &old(&[BUSY; 2]), &always(2)),
        (0, vec![])
    );
}

#[test]
fn an_idle_outdated_worker_still_takes_the_jobs_that_wait() {
    for jobs in [1, 2] {
        let fleet = mixed(&[IDLE; 2], &[IDLE]);
        assert_eq!(
            check_plan(&waiting(jobs, 60_000), &fleet, &always(2)),
            (0, vec![])
        );
    }
}

#[test]
fn while_jobs_always_wait_outdated_workers_go_after_their_job() {
    let settings = always(3);
    let backlog = Demand {
        running: 3,
        ..waiting(50, 60_000)
    };
    assert_eq!(
        check_plan(&backlog, &old(&[BUSY; 3]), &settings),
        (1, vec![])
    );
    let busy_since = |ms| Phase::Busy { since: ago(ms) };
    let outdated = [busy_since(9_000), busy_since(10), busy_since(500)];
    let fleet = mixed(&outdated, &[Phase::Starting]);
    assert_eq!(check_plan(&backlog, &fleet, &settings), (0, vec![]));
    let fleet = mixed(&outdated, &[BUSY]);
    assert_eq!(
        check_plan(&backlog, &fleet, &settings),
        (0, vec!["w1".to_owned()]),
        "the one that got its job last is the least likely to be stuck"
    );
}

/// At the maximum the scaler cannot answer a replacement with one more.
#[test]
fn at_the_maximum_the_roll_over_goes_on_to_its_end() {
    let backlog = waiting(50, 0);
    let fleet = mixed(&[BUSY], &[BUSY; 3]);
    assert_eq!(check_plan(&backlog, &fleet, &always(4)), (1, vec![]));
}

/// One after the other, also where the maximum leaves room for all at once.
#[test]
fn below_the_maximum_the_surge_is_the_pace() {
    let settings = Settings {
        workers_min: 3,
        workers_max: 10,
        ..Settings::default()
    };
    let backlog = mixed(&[BUSY; 3], &[Phase::Starting]);
    assert_eq!(check_plan(&waiting(9, 0), &backlog, &settings), (0, vec![]));
    let replaced = mixed(&[IDLE; 3], &[IDLE]);
    assert_eq!(
        check_plan(&Demand::default(), &replaced, &settings),
        (0, vec!["w0".to_owned()])
    );
}

#[test]
fn below_the_maximum_a_stuck_worker_is_replaced_once() {
    let settings = Settings {
        workers_max: 10,
        ..Settings::default()
    };
    let stuck = |current: &[Phase]| plan_of(&waiting(1, 0), &mixed(&[BUSY], current), &settings);
    assert_eq!(stuck(&[]).start, 1);
    assert_eq!(stuck(&[BUSY]).start, 0);
}

#[test]
fn who_is_not_wanted_is_not_replaced_whatever_the_surge() {
    let jobs = Demand {
        running: 3,
        ..waiting(9, 0)
    };
    let settings = Settings {
        surge: 5,
        ..by_count(6)
    };
    let fleet = mixed(&[BUSY], &[BUSY; 2]);
    assert_eq!(
        check_plan(&jobs, &fleet, &settings),
        (0, vec!["w0".to_owned()])
    );
}

#[test]
fn without_room_one_goes_first() {
    let settings = always(2);
    let full = |demand: &Demand, outdated: &[Phase], current: &[Phase]| {
        let plan = in_room(demand, &mixed(outdated, current), &settings, 0);
        (plan.start, stopped(&plan))
    };
    let none = Demand::default();
    let w0 = || vec!["w0".to_owned()];
    assert_eq!(full(&none, &[IDLE; 2], &[]), (0, w0()));
    let nobody_misses_it = in_room(&none, &old(&[IDLE; 2]), &settings, 0);
    assert_eq!(nobody_misses_it.throttled, 0);
    assert_eq!(full(&none, &[Phase::Stopping, IDLE], &[]), (0, vec![]));
    assert_eq!(full(&none, &[IDLE], &[Phase::Starting]), (0, vec![]));
    assert_eq!(full(&none, &[IDLE], &[IDLE]), (0, w0()));
    assert_eq!(
        full(&none, &[BUSY; 2], &[]),
        (0, vec![]),
        "they will be idle"
    );
    assert_eq!(
        full(&waiting(9, 0), &[BUSY; 2], &[]),
        (0, w0()),
        "they never will"
    );
    assert_eq!(
        full(&waiting(1, 0), &[IDLE; 2], &[]),
        (0, vec![]),
        "it takes the job"
    );
    let short = in_room(&none, &mixed(&[IDLE], &[Phase::Starting]), &always(3), 0);
    assert_eq!(stopped(&short), [""; 0], "one is coming already");
    let no_surge = Settings {
        surge: 0,
        ..settings
    };
    assert_eq!(check_plan(&none, &old(&[IDLE; 2]), &no_surge), (0, w0()));
    let below = Settings {
        workers_max: 3,
        ..no_surge
    };
    assert_eq!(
        check_plan(&none, &old(&[IDLE; 2]), &below),
        (1, vec![]),
        "there is a place"
    );
}

#[test]
fn jobs_of_low_priority_keep_one_worker_and_get_one_of_the_new_release() {
    let low = Demand {
        queued_low: 9,
        running: 2,
        ..Demand::default()
    };
    let settings = Settings::default();
    assert_eq!(check_plan(&low, &old(&[IDLE; 2]), &settings), (0, vec![]));
    assert_eq!(check_plan(&low, &old(&[BUSY; 2]), &settings), (1, vec![]));
    let one = mixed(&[BUSY, IDLE], &[Phase::Starting]);
    assert_eq!(check_plan(&low, &one, &settings), (0, vec![]));
    let one = mixed(&[BUSY, IDLE], &[BUSY]);
    assert_eq!(
        check_plan(&low, &one, &settings),
        (0, vec!["w1".to_owned()])
    );
    let replaced = mixed(&[BUSY], &[BUSY]);
    assert_eq!(
        check_plan(&low, &replaced, &settings),
        (0, vec![]),
        "one is all they get"
    );
    let full = |phases, least| stopped(&in_room(&low, &old(phases), &always(least), 0));
    assert_eq!(
        full(&[BUSY], 1),
        [""; 0],
        "nobody would be started for them"
    );
    assert_eq!(full(&[BUSY, IDLE], 2), ["w1"], "one is left to them");
}

#[test]
fn a_release_that_does_not_start_leaves_the_older_one_to_serve() {
    for (starts, code) in [
        (failed(1, 0), "hold_off"),
        (failed(8, 3_600_000), "given_up"),
    ] {
        for (surge, room) in [
            (1, Room::UNLIMITED),
            (0, Room::UNLIMITED),
            (1, Room(Some(0))),
        ] {
            let settings = Settings { surge, ..always(2) };
            for (demand, phase) in [(Demand::default(), IDLE), (waiting(9, 60_000), BUSY)] {
                let plan = plan(&demand, &old(&[phase; 2]), &settings, &starts, room, NOW);
                assert_eq!((plan.start, stopped(&plan)), (0, vec![]), "{plan:?}");
                assert_eq!(plan.reason.as_str(), code);
            }
        }
    }
}

/// Else the endpoint would have nobody who serves, and nobody who starts.
#[test]
fn while_a_release_does_not_start_the_older_one_has_its_idle_timeout() {
    let idle = |ms| old(&[Phase::Idle { since: ago(ms) }]);
    let gone = |starts, ms| {
        let (settings, room) = (Settings::default(), Room::UNLIMITED);
        let plan = plan(&Demand::default(), &idle(ms), &settings, &starts, room, NOW);
        plan.stop.first().map(|leave| leave.why)
    };
    assert_eq!(gone(Starts::default(), 0), Some(Reason::Outdated));
    assert_eq!(gone(failed(1, 0), 4_999), None);
    let for_ms = 5_000;
    assert_eq!(
        gone(failed(1, 0), for_ms as i64),
        Some(Reason::Idle { for_ms })
    );
}

#[test]
fn a_paused_endpoint_replaces_nobody_and_leaves_no_one_for_the_next_job() {
    let paused = Settings {
        workers_max: 0,
        ..Settings::default()
    };
    for phases in [&[IDLE][..], &[IDLE, BUSY]] {
        let plan = plan_of(&waiting(1, 0), &old(phases), &paused);
        assert_eq!((plan.start, stopped(&plan)), (0, vec!["w0".to_owned()]));
        assert_eq!(plan.reason, Reason::Paused);
    }
}

/// By their number the jobs are worth two workers, and all three are busy with others behind them.
#[test]
fn a_busy_outdated_worker_that_is_one_too_many_goes_after_its_job() {
    let jobs = Demand {
        running: 3,
        ..waiting(9, 0)
    };
    let fleet = old(&[BUSY; 3]);
    assert_eq!(
        check_plan(&jobs, &fleet, &by_count(6)),
        (0, vec!["w0".to_owned()])
    );
    assert_eq!(
        check_plan(&jobs, &old(&[BUSY; 2]), &by_count(6)),
        (1, vec![])
    );
    let (starts, room) = (failed(1, 0), Room::UNLIMITED);
    let kept = plan(&jobs, &fleet, &by_count(6), &starts, room, NOW);
    assert_eq!(stopped(&kept), [""; 0], "there is nobody to come after it");
}
