//! The change to a newer release, from its beginning to its end.

use proptest::prelude::*;

use super::rollouts::always;
use super::world::{Arrival, World};
use super::*;

const HOUR_MS: u64 = 3_600_000;

/// Workers that are always there, all of an older release since now.
fn outdated_world(settings: Settings) -> World {
    let mut world = World::new(settings, &[]);
    world.live(world.start_ms, |_| {});
    assert_eq!(world.ready(), settings.workers_min);
    world.release();
    world
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
