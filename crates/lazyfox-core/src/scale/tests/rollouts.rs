//! The change to a newer release.

use proptest::prelude::*;

use super::world::{Arrival, World};
use super::*;

const HOUR_MS: u64 = 3_600_000;

fn always(workers: u32) -> Settings {
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

/// Workers that are always there, all of an older release since now.
fn outdated_world(settings: Settings) -> World {
    let mut world = World::new(settings, &[]);
    world.live(world.start_ms, |_| {});
    assert_eq!(world.ready(), settings.workers_min);
    world.release();
    world
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
    let full = in_room(&low, &old(&[BUSY]), &settings, 0);
    assert_eq!(
        (full.start, stopped(&full)),
        (0, vec![]),
        "nobody would be started for them"
    );
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

#[test]
fn a_broken_release_keeps_everybody_and_a_good_one_then_replaces_them() {
    let mut world = outdated_world(always(3));
    world.fails = true;
    let started = world.started;
    world.live(5 * HOUR_MS, |world| assert_eq!(world.ready(), 3));
    assert_eq!(world.started - started, world.settings.give_up_after);
    world.fails = false;
    world.release();
    world.live(6 * HOUR_MS, |world| assert!(world.ready() >= 3));
    assert!(!world.is_rolling());
}

#[test]
fn a_busy_worker_that_never_ends_is_in_nobodys_way() {
    for (surge, places) in [(1, None), (2, None), (0, None), (1, Some(4))] {
        let mut world = outdated_world(Settings { surge, ..always(4) });
        world.places = places;
        world.get_stuck();
        world.live(HOUR_MS, |_| {});
        let outdated = world.count(|member| member.outdated);
        assert_eq!(
            (outdated, world.ready()),
            (1, 4),
            "surge {surge}, places {places:?}"
        );
    }
}

/// Jobs come faster than they are done, so nobody is ever idle, and one worker is stuck.
#[test]
fn a_backlog_without_end_does_not_stop_the_roll_over() {
    let arrivals: Vec<Arrival> = (0..600)
        .map(|n| Arrival {
            at_ms: n * 500,
            run_ms: 5_000,
            low: false,
        })
        .collect();
    for scaler in [
        Scaler::QueueDelay { ms: 4_000 },
        Scaler::RequestCount { per_worker: 1 },
    ] {
        for (surge, places, least) in [(1, None, 4), (0, None, 3), (1, Some(4), 3)] {
            let settings = Settings {
                scaler,
                surge,
                ..always(4)
            };
            let mut world = World::new(settings, &arrivals);
            world.live(world.start_ms, |_| {});
            world.places = places;
            world.get_stuck();
            world.live(60_000, |_| {});
            world.release();
            world.live(240_000, |world| {
                assert!(world.ready() >= least, "{world:?}")
            });
            assert!(world.waiting() > 0, "the backlog ended");
            let left = world.count(|member| member.outdated);
            assert_eq!(left, 1, "{world:?}");
        }
    }
}

/// One machine with one GPU, and always something to do on it.
#[test]
fn the_only_worker_of_a_full_machine_is_replaced_between_two_jobs() {
    let arrivals: Vec<Arrival> = (0..300)
        .map(|n| Arrival {
            at_ms: n * 1_000,
            run_ms: 5_000,
            low: false,
        })
        .collect();
    let mut world = World::new(Settings::default(), &arrivals);
    world.places = Some(1);
    world.live(20_000, |_| {});
    world.release();
    world.live(35_000, |_| {});
    assert!(world.waiting() > 0);
    assert_eq!((world.ready(), world.is_rolling()), (1, false), "{world:?}");
}

proptest! {
    /// With room, a roll-over costs no worker that is ready, at any load, and comes to its end.
    #[test]
    fn a_roll_over_never_lowers_the_ready_count(
        workers in 1_u32..6, surge in 1_u32..4, every_ms in 200_u64..10_000, run_ms in 1_u64..9_000,
        (start_ms, stop_ms) in (1_u64..9_000, 1_u64..4_000), by_count in any::<bool>(),
        release_ms in 20_000_u64..40_000,
    ) {
        let arrival = |n| Arrival { at_ms: n * every_ms, run_ms, low: false };
        let arrivals: Vec<Arrival> = (0..600_000 / every_ms).map(arrival).collect();
        let scaler = match by_count {
            true => Scaler::RequestCount { per_worker: 2 },
            false => Scaler::QueueDelay { ms: 4_000 },
        };
        let settings = Settings { surge, scaler, ..always(workers) };
        let mut world = World { start_ms, stop_ms, ..World::new(settings, &arrivals) };
        world.live(release_ms, |_| {});
        world.release();
        world.live(600_000, |world| assert!(world.ready() >= workers, "{world:?}"));
        prop_assert!(!world.is_rolling());
    }

    /// Without room each is replaced all the same, and one at most is missing.
    #[test]
    fn a_full_machine_misses_one_worker_at_most(
        workers in 1_u32..6, every_ms in 200_u64..10_000, run_ms in 1_u64..9_000,
        surge in 0_u32..2, release_ms in 20_000_u64..40_000,
    ) {
        let arrival = |n| Arrival { at_ms: n * every_ms, run_ms, low: false };
        let arrivals: Vec<Arrival> = (0..600_000 / every_ms).map(arrival).collect();
        let settings = Settings { surge, ..always(workers) };
        let mut world = World::new(settings, &arrivals);
        world.places = Some(workers);
        world.live(release_ms, |_| {});
        world.release();
        world.live(600_000, |world| assert!(world.ready() + 1 >= workers, "{world:?}"));
        prop_assert!(!world.is_rolling());
    }
}
