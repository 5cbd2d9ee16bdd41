//! What holds for any demand, fleet and settings, and for any life of a world around the plan.

use proptest::prelude::*;

use super::world::{Arrival, World};
use super::*;

const HOUR_MS: u64 = 3_600_000;
/// How long the load is constant: hundreds of idle timeouts.
const CONSTANT_MS: u64 = HOUR_MS / 4;

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Starting),
        (0_i64..20_000).prop_map(|ms| Phase::Idle { since: ago(ms) }),
        (0_i64..20_000).prop_map(|ms| Phase::Busy { since: ago(ms) }),
        Just(Phase::Stopping),
    ]
}

fn any_fleet() -> impl Strategy<Value = Vec<Member>> {
    let member = |n| {
        (any_phase(), any::<bool>(), 0_u32..4, 0_i64..60_000).prop_map(
            move |(phase, outdated, slots, started_ms)| Member {
                outdated,
                slots,
                ..member(n, phase, ago(started_ms))
            },
        )
    };
    (0_usize..9).prop_flat_map(move |size| (0..size).map(member).collect::<Vec<_>>())
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let scaler = prop_oneof![
        (1_u64..10_000).prop_map(|ms| Scaler::QueueDelay { ms }),
        (1_u32..8).prop_map(|per_worker| Scaler::RequestCount { per_worker }),
    ];
    (0_u32..6, 0_u32..6, scaler, 0_u64..10_000, 0_u32..3).prop_map(
        |(workers_min, more, scaler, idle_timeout_ms, surge)| Settings {
            workers_min,
            workers_max: workers_min + more,
            scaler,
            idle_timeout_ms,
            surge,
            give_up_after: 8,
        },
    )
}

fn any_arrivals(low: impl Strategy<Value = bool>) -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0_u64..60_000, 1_u64..20_000, low);
    let arrival = arrival.prop_map(|(at_ms, run_ms, low)| Arrival { at_ms, run_ms, low });
    proptest::collection::vec(arrival, 0..40)
}

fn any_world(low: impl Strategy<Value = bool>) -> impl Strategy<Value = World> {
    let times = (1_u64..15_000, 1_u64..3_000);
    (any_settings(), any_arrivals(low), times, 1_u32..4).prop_map(
        |(settings, arrivals, (start_ms, stop_ms), slots)| World {
            start_ms,
            stop_ms,
            slots,
            ..World::new(settings, &arrivals)
        },
    )
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}, start {} ms, stop {} ms, {} slots, at {}: {:?}",
            self.settings, self.start_ms, self.stop_ms, self.slots, self.now, self.last
        )
    }
}

proptest! {
    #[test]
    fn never_above_the_maximum_and_never_below_the_minimum(
        queued in 0_u64..50, queued_low in 0_u64..5, running in 0_u64..10, waited in 0_i64..60_000,
        fleet in any_fleet(), settings in any_settings(), room in proptest::option::of(0_u32..4),
    ) {
        let oldest_queued_at = (queued > 0).then(|| ago(waited));
        let demand = Demand { queued, queued_low, running, oldest_queued_at };
        let plan = plan(&demand, &fleet, &settings, &Starts::default(), Room(room), NOW);
        let census = Census::of(&fleet);
        let stops = u32::try_from(plan.stop.len()).unwrap();
        let most = most(&settings, census.any_outdated);

        prop_assert!(plan.start == 0 || census.total + plan.start <= most);
        prop_assert!(room.is_none_or(|room| plan.start <= room));
        let min = settings.workers_min;
        let gives_way = plan.stop.iter().any(|leave| leave.why == Reason::Outdated)
            && (settings.surge == 0 || room.is_some());
        prop_assert!(gives_way || census.serving() - stops >= min.min(census.serving()));
        let room = room.unwrap_or(1).min(most.saturating_sub(census.total));
        if queued > 0 && census.serving() == 0 && room > 0 && settings.workers_max > 0 {
            prop_assert!(plan.start > 0, "a waiting job is stranded");
        }
    }

    /// Acting on the plan again and again with no demand ends at the minimum and stays there.
    #[test]
    fn zero_demand_converges_and_stays(fleet in any_fleet(), mut world in any_world(Just(false))) {
        world.arrive_nothing(fleet);
        world.live(HOUR_MS, |_| {});
        prop_assert_eq!(world.count(|_| true), world.settings.workers_min);
        prop_assert!(!world.is_rolling());
        let started = world.started;
        world.live(2 * HOUR_MS, |_| {});
        prop_assert_eq!(world.started, started, "the plan changed its mind");
    }

    /// Every job of the normal lane is served, whenever it comes: also while the last worker stops.
    #[test]
    fn no_job_is_stranded_and_the_fleet_goes_back(
        mut world in any_world(Just(false)), release_ms in 0_u64..60_000,
    ) {
        let jobs = world.expected();
        world.live(release_ms, |_| {});
        world.release();
        world.live(HOUR_MS, |_| {});
        let served = if world.settings.workers_max > 0 { jobs } else { 0 };
        prop_assert_eq!((world.served, world.waiting()), (served, jobs - served));
        prop_assert_eq!(world.count(|_| true), world.settings.workers_min);
        prop_assert!(!world.is_rolling());
    }

    /// Each start has a job of its own, or the minimum: what starts already is never counted twice.
    #[test]
    fn no_more_are_started_than_jobs_came(mut world in any_world(Just(false))) {
        world.slots = 1;
        let jobs = world.expected();
        world.live(HOUR_MS, |_| {});
        prop_assert!(world.started as usize <= jobs + world.settings.workers_min as usize);
    }

    #[test]
    fn low_priority_starts_none_and_keeps_what_is_there(mut world in any_world(Just(true))) {
        let jobs = world.expected();
        world.live(HOUR_MS, |_| {});
        prop_assert_eq!(world.started, world.settings.workers_min);
        if world.settings.workers_min > 0 {
            prop_assert_eq!(world.served, jobs);
        }
    }

    #[test]
    fn low_priority_jobs_finish_on_a_worker_that_a_normal_one_started(
        mut world in any_world(Just(true)),
    ) {
        world.settings.workers_max += 1;
        world.settings.idle_timeout_ms = 70_000;
        let jobs = world.expected();
        world.submit(1, false);
        world.live(HOUR_MS, |_| {});
        prop_assert_eq!(world.served, jobs + 1);
    }

    /// Below the minimum for no longer than a start takes, since nothing else is waited for.
    #[test]
    fn the_minimum_is_ready_as_soon_as_it_can_be(mut world in any_world(any::<bool>())) {
        let min = world.settings.workers_min;
        let from = NOW.plus_ms(world.start_ms);
        world.live(HOUR_MS, |world| {
            assert!(world.now < from || world.ready() >= min, "{world:?}");
        });
    }

    #[test]
    fn starts_that_fail_are_few_in_any_time(
        mut world in any_world(any::<bool>()), give_up_after in 0_u32..12,
    ) {
        world.fails = true;
        world.settings.give_up_after = give_up_after;
        world.live(5 * HOUR_MS, |_| {});
        // All at once the first time, four pauses of less than five minutes, and one each five minutes.
        let most = world.settings.workers_max + 4 + 5 * 12;
        prop_assert!(world.started <= most, "{} starts", world.started);
        if give_up_after > 0 {
            prop_assert!(world.started <= world.settings.workers_max + give_up_after);
        }
        prop_assert_eq!(world.served, 0);
    }

    /// At constant load the plan makes up its mind. The way up may overshoot, and a few that went are
    /// started again; a plan that swings would start hundreds.
    #[test]
    fn no_oscillation_at_constant_load(
        mut settings in any_settings(), every_ms in 100_u64..5_000, run_ms in 1_u64..8_000,
        start_ms in 1_u64..8_000,
    ) {
        settings.workers_max = 8;
        settings.idle_timeout_ms = settings.idle_timeout_ms.max(2 * every_ms);
        let arrival = |n| Arrival { at_ms: n * every_ms, run_ms, low: false };
        let arrivals: Vec<Arrival> = (0..CONSTANT_MS / every_ms).map(arrival).collect();
        let mut world = World { start_ms, ..World::new(settings, &arrivals) };
        world.live(CONSTANT_MS - every_ms, |_| {});
        prop_assert!(world.started <= 2 * settings.workers_max, "{} starts", world.started);
    }
}
