use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_000);
const BOUNDS: Bounds = Bounds {
    in_all: 8,
    per_host: 3,
    bytes: 1_000,
};

fn endpoint(name: &str) -> EndpointId {
    name.parse().unwrap()
}

/// Deliveries of ten bytes each.
fn lane(on: &str, host: &str, numbers: std::ops::Range<u64>) -> Lane<std::vec::IntoIter<Waiting>> {
    sized(on, host, numbers.map(|n| (n, 10)).collect())
}

fn sized(on: &str, host: &str, deliveries: Vec<(u64, u64)>) -> Lane<std::vec::IntoIter<Waiting>> {
    Lane {
        endpoint: endpoint(on),
        host: host.into(),
        due_since: NOW,
        deliveries: deliveries
            .into_iter()
            .map(waiting)
            .collect::<Vec<_>>()
            .into_iter(),
    }
}

fn waiting((delivery, bytes): (u64, u64)) -> Waiting {
    Waiting {
        delivery,
        bytes,
        due_at: NOW,
    }
}

fn choose<I>(traffic: &mut Traffic, lanes: Vec<Lane<I>>, now: Timestamp) -> Vec<u64>
where
    I: Iterator<Item = Waiting>,
{
    let chosen = traffic.choose(lanes, now);
    chosen.into_iter().map(|it| it.delivery).collect()
}

fn left_alone(traffic: &Traffic, host: &str) -> Option<(Timestamp, Timestamp)> {
    traffic.left_alone(&endpoint("a"), &host.into(), NOW)
}

fn miss(traffic: &mut Traffic, deliveries: &[u64], started_at: Timestamp, now: Timestamp) {
    for &delivery in deliveries {
        traffic.ended(delivery, Sign::Missed, started_at, now);
    }
}

#[test]
fn a_host_gets_its_share_and_in_order() {
    let mut traffic = Traffic::new(BOUNDS);
    let lanes = || vec![lane("a", "h", 1..100)];
    assert_eq!(choose(&mut traffic, lanes(), NOW), [1, 2, 3]);
    assert_eq!(choose(&mut traffic, lanes(), NOW), []);
    traffic.ended(2, Sign::Answered, NOW, NOW);
    // The store still has the others as due, and number 2 too until its end is noted.
    assert_eq!(choose(&mut traffic, lanes(), NOW), [2]);
    assert_eq!(traffic.under_way(), 3);
    traffic.ended(1, Sign::Answered, NOW, NOW);
    traffic.close();
    assert_eq!(choose(&mut traffic, lanes(), NOW), []);
}

#[test]
fn two_endpoints_share_a_host() {
    let mut traffic = Traffic::new(BOUNDS);
    let lanes = vec![lane("a", "h", 1..100), lane("b", "h", 101..200)];
    assert_eq!(choose(&mut traffic, lanes, NOW), [1, 101, 2]);
}

#[test]
fn hosts_of_an_endpoint_take_turns_the_longest_waiting_first() {
    let mut traffic = Traffic::new(BOUNDS);
    let mut late = lane("a", "late", 1..3);
    late.due_since = NOW.plus_ms(1);
    let lanes = vec![late, lane("a", "early", 11..20)];
    assert_eq!(choose(&mut traffic, lanes, NOW), [11, 1, 12, 2, 13]);
}

#[test]
fn no_endpoint_takes_all_places_however_many_hosts_it_names() {
    let mut traffic = Traffic::new(BOUNDS);
    let greedy = || -> Vec<_> {
        (0..50)
            .map(|n| lane("greedy", &format!("h{n}"), n * 10..n * 10 + 5))
            .collect()
    };
    assert_eq!(choose(&mut traffic, greedy(), NOW).len(), 6);
    let mut lanes = greedy();
    lanes.push(lane("modest", "m", 1_000..1_002));
    assert_eq!(choose(&mut traffic, lanes, NOW), [1_000, 1_001]);
    // A place that becomes free goes to the one with fewer.
    traffic.ended(0, Sign::Answered, NOW, NOW);
    let mut lanes = greedy();
    lanes.push(lane("modest", "m", 1_002..1_003));
    assert_eq!(choose(&mut traffic, lanes, NOW), [1_002]);
}

#[test]
fn large_bodies_wait_for_room_and_never_for_ever() {
    let mut traffic = Traffic::new(BOUNDS);
    let huge = || sized("a", "h", vec![(1, 5_000), (2, 10)]);
    // Larger than everything allowed, it counts as what its host may have.
    let lanes = vec![huge(), lane("b", "i", 11..12)];
    assert_eq!(choose(&mut traffic, lanes, NOW), [1, 11]);
    traffic.ended(1, Sign::Answered, NOW, NOW);
    traffic.ended(11, Sign::Answered, NOW, NOW);
    let lanes = vec![
        sized("a", "h", vec![(1, 400), (2, 400), (3, 10)]),
        sized("b", "i", vec![(11, 400), (12, 10)]),
        lane("c", "j", 21..22),
    ];
    // A host has half of the bytes, and what does not fit keeps its place in its lane.
    assert_eq!(choose(&mut traffic, lanes, NOW), [1, 11, 21, 12]);
}

#[test]
fn no_endpoint_takes_all_bytes() {
    let mut traffic = Traffic::new(BOUNDS);
    let lanes = || {
        vec![
            sized("a", "h", vec![(1, 400)]),
            sized("a", "i", vec![(2, 400)]),
            sized("b", "j", vec![(11, 400)]),
        ]
    };
    assert_eq!(choose(&mut traffic, lanes(), NOW), [1, 11]);
    traffic.ended(11, Sign::Answered, NOW, NOW);
    assert_eq!(
        choose(&mut traffic, vec![sized("a", "i", vec![(2, 400)])], NOW),
        []
    );
}

#[test]
fn hosts_that_answer_slowly_do_not_keep_the_turn() {
    let mut traffic = Traffic::new(BOUNDS);
    let mut well = lane("a", "well", 101..102);
    well.due_since = NOW.plus_ms(1);
    let slow = || lane("a", "slow", 1..100);
    assert_eq!(choose(&mut traffic, vec![slow()], NOW), [1, 2, 3]);
    traffic.ended(1, Sign::Answered, NOW, NOW);
    // Though what the slow one has is due for longer.
    assert_eq!(choose(&mut traffic, vec![slow(), well], NOW), [101, 1]);
}

#[test]
fn what_one_endpoint_does_to_a_host_is_no_reason_for_another() {
    let mut traffic = Traffic::new(BOUNDS);
    for n in 0..5 {
        assert_eq!(
            choose(&mut traffic, vec![lane("a", "h", n..n + 1)], NOW),
            [n]
        );
        traffic.ended(n, Sign::Missed, NOW, NOW);
    }
    let lanes = || vec![lane("a", "h", 1..9), lane("b", "h", 101..109)];
    assert_eq!(choose(&mut traffic, lanes(), NOW), [101, 102, 103]);
    // Nor does the other's traffic keep the one from finding out.
    traffic.ended(103, Sign::Answered, NOW, NOW);
    let later = NOW.plus_ms(1_000);
    assert_eq!(choose(&mut traffic, lanes(), later), [1]);
}

#[test]
fn a_host_that_does_not_answer_is_left_alone_and_costs_the_others_nothing() {
    let mut traffic = Traffic::new(BOUNDS);
    let lanes = || {
        vec![
            lane("a", "dead", 1..10_000),
            lane("a", "well", 20_000..20_002),
        ]
    };
    let mut missed = 0;
    while left_alone(&traffic, "dead").is_none() {
        let chosen = choose(&mut traffic, lanes(), NOW);
        let dead: Vec<u64> = chosen.into_iter().filter(|n| *n < 10_000).collect();
        missed += dead.len();
        miss(&mut traffic, &dead, NOW, NOW);
    }
    assert_eq!(
        missed, 6,
        "those under way when it was given up still come in"
    );
    traffic.ended(20_000, Sign::Answered, NOW, NOW);
    assert_eq!(choose(&mut traffic, lanes(), NOW), [20_000]);
    assert!(
        traffic
            .hold(&endpoint("a"), &"dead".into())
            .unwrap()
            .contains("5 tries in a row")
    );

    // After the pause a single one goes ahead.
    let later = NOW.plus_ms(1_000);
    assert_eq!(choose(&mut traffic, lanes(), later), [1]);
    assert_eq!(choose(&mut traffic, lanes(), later), []);
    let back = traffic.ended(1, Sign::Answered, later, later);
    assert_eq!(back, Some(News::Back));
    assert_eq!(choose(&mut traffic, lanes(), later), [1, 2, 3]);
    assert_eq!(traffic.hold(&endpoint("a"), &"dead".into()), None);
}

#[test]
fn what_was_never_sent_says_nothing_about_the_host() {
    let mut traffic = Traffic::new(BOUNDS);
    for n in 0..100 {
        assert_eq!(
            choose(&mut traffic, vec![lane("a", "h", n..n + 1)], NOW),
            [n]
        );
        traffic.ended(n, Sign::None, NOW, NOW);
    }
    assert_eq!(left_alone(&traffic, "h"), None);
}

#[test]
fn nothing_is_left_of_what_has_ended() {
    let mut traffic = Traffic::new(BOUNDS);
    assert_eq!(
        choose(&mut traffic, vec![lane("a", "h", 1..4)], NOW).len(),
        3
    );
    assert!(
        !traffic.started(1, &endpoint("a"), &"h".into(), 10),
        "it is under way"
    );
    for n in 1..=4 {
        traffic.ended(n, Sign::Answered, NOW, NOW);
    }
    assert!(traffic.hosts.is_empty() && traffic.endpoints.is_empty());
    assert!(traffic.routes.is_empty());
    assert_eq!((traffic.in_all.deliveries, traffic.in_all.bytes), (0, 0));
}
