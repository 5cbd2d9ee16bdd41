//! One burst, six jobs of eight seconds, for which the public service was watched. With a value of 1 it went
//! 0, 1, 2 when it was cold and to its maximum of 3 when it was warm: the same steps as here. At QUEUE_DELAY
//! 4 s it stayed at 2. By the rule that it documents, which is ours, jobs still wait after twice 4 s, and a
//! third worker is started.

use super::world::{Arrival, World};
use super::*;

/// How many workers there are, after each change up to the maximum, and the second in which it is.
fn burst(scaler: Scaler, warm: u32) -> (Vec<u32>, Vec<i64>) {
    let arrival = Arrival {
        at_ms: 10_000,
        run_ms: 8_000,
        low: false,
    };
    let settings = Settings {
        scaler,
        workers_min: warm,
        ..Settings::default()
    };
    let mut world = World::new(settings, &[arrival; 6]);
    world.live(9_999, |_| {});
    world.sizes.clear();
    let (mut sizes, mut seconds) = (vec![world.count(|_| true)], Vec::new());
    world.live(120_000, |world| {
        let size = world.count(|_| true);
        if sizes.last() < Some(&size) {
            sizes.push(size);
            seconds.push((world.now.as_ms() - NOW.as_ms()) / 1000 - 10);
        }
    });
    assert_eq!((world.served, world.count(|_| true)), (6, warm));
    (sizes, seconds)
}

#[test]
fn a_burst_grows_the_fleet_step_by_step() {
    let delay = |ms| Scaler::QueueDelay { ms };
    assert_eq!(burst(delay(1_000), 0), (vec![0, 1, 2, 3], vec![0, 1, 2]));
    assert_eq!(burst(delay(4_000), 0), (vec![0, 1, 2, 3], vec![0, 4, 8]));
    // Two have taken the last job before another 15 s are over.
    assert_eq!(burst(delay(15_000), 0), (vec![0, 1, 2], vec![0, 15]));
    assert_eq!(burst(delay(4_000), 2), (vec![2, 3], vec![4]));
}

#[test]
fn a_burst_is_counted_at_once() {
    let count = |per_worker| Scaler::RequestCount { per_worker };
    assert_eq!(burst(count(1), 0), (vec![0, 3], vec![0]));
    assert_eq!(burst(count(3), 0), (vec![0, 2], vec![0]));
    assert_eq!(burst(count(4), 1), (vec![1, 2], vec![0]));
    assert_eq!(burst(count(1), 3), (vec![3], vec![]));
}
