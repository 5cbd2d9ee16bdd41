use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_000);
const HOUR_MS: u64 = 3_600_000;

fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after_ms: None,
    }
}

fn down() -> Outcome {
    Outcome::Unanswered("connection refused".to_owned())
}

/// The pauses of a schedule whose receiver never answers, without and with the longest jitter.
fn pauses(schedule: &Schedule, roll: u32) -> Vec<u64> {
    let after = |tries| schedule.after_try(tries, &down(), NOW, roll);
    (1..=schedule.tries)
        .map_while(|tries| match after(tries) {
            Next::Again(at) => Some(at.ms_since(NOW)),
            Next::GaveUp => None,
            Next::Delivered => panic!("nobody was there"),
        })
        .collect()
}

#[test]
fn by_default_there_are_three_tries_ten_seconds_apart() {
    for roll in [0, u32::MAX] {
        assert_eq!(pauses(&Schedule::default(), roll), [10_000, 10_000]);
    }
}

#[test]
fn one_try_is_never_again() {
    let schedule = Schedule {
        tries: 1,
        ..Schedule::default()
    };
    assert_eq!(pauses(&schedule, 0), []);
}

#[test]
fn pauses_grow_to_their_bound() {
    let schedule = Schedule {
        tries: 8,
        pause_ms: 60_000,
        growth_percent: 300,
        pause_ms_max: HOUR_MS,
        ..Schedule::default()
    };
    let minutes: Vec<u64> = pauses(&schedule, 0).iter().map(|ms| ms / 60_000).collect();
    assert_eq!(minutes, [1, 3, 9, 27, 60, 60, 60]);
    let endless = Schedule {
        tries: u32::MAX,
        growth_percent: u32::MAX,
        ..schedule
    };
    assert_eq!(
        endless.after_try(u32::MAX - 1, &down(), NOW, 0),
        Next::Again(NOW.plus_ms(HOUR_MS))
    );
}

#[test]
fn jitter_makes_a_pause_longer_by_its_share_of_the_dice() {
    let schedule = Schedule {
        jitter_percent: 50,
        ..Schedule::default()
    };
    assert_eq!(pauses(&schedule, 0), [10_000, 10_000]);
    assert_eq!(pauses(&schedule, 1 << 31), [12_500, 12_500]);
    assert_eq!(pauses(&schedule, u32::MAX), [14_999, 14_999]);
}

#[test]
fn any_2xx_is_success_and_nothing_else() {
    let schedule = Schedule::default();
    for status in [200, 201, 204, 299] {
        let next = schedule.after_try(1, &answered(status), NOW, 0);
        assert_eq!(next, Next::Delivered, "{status}");
        assert_eq!(answered(status).error(), None);
    }
    for status in [199, 300, 302, 400, 404, 429, 500] {
        let next = schedule.after_try(1, &answered(status), NOW, 0);
        assert_eq!(next, Next::Again(NOW.plus_ms(10_000)), "{status}");
        let next = schedule.after_try(3, &answered(status), NOW, 0);
        assert_eq!(next, Next::GaveUp, "{status}");
        let error = answered(status).error().unwrap();
        assert!(error.starts_with(&format!("answered {status}")), "{error}");
    }
}

#[test]
fn a_receiver_that_is_gone_ends_it() {
    assert_eq!(
        Schedule::default().after_try(1, &answered(410), NOW, 0),
        Next::GaveUp
    );
}

#[test]
fn what_the_receiver_asks_for_is_granted_up_to_a_day() {
    let schedule = Schedule::default();
    let asked = |ms| Outcome::Answered {
        status: 429,
        retry_after_ms: Some(ms),
    };
    for (asked_ms, pause_ms) in [
        (0, 10_000),
        (9_999, 10_000),
        (HOUR_MS, HOUR_MS),
        (u64::MAX, 24 * HOUR_MS),
    ] {
        let next = schedule.after_try(1, &asked(asked_ms), NOW, 0);
        assert_eq!(next, Next::Again(NOW.plus_ms(pause_ms)), "{asked_ms}");
    }
    // It asks for time, not for more tries.
    assert_eq!(schedule.after_try(3, &asked(HOUR_MS), NOW, 0), Next::GaveUp);
}

#[test]
fn what_did_not_arrive_is_kept_longer() {
    let schedule = Schedule::default();
    let kept = |next| schedule.keep_until(next, NOW).ms_since(NOW);
    assert_eq!(kept(Next::Delivered), HOUR_MS / 2);
    assert_eq!(kept(Next::GaveUp), 24 * HOUR_MS);
    let open = schedule.keep_until(Next::Again(NOW), NOW);
    assert_eq!(open, Timestamp::NEVER);
}

#[test]
fn states_are_spelled_one_way() {
    for state in State::ALL {
        assert_eq!(State::parse(state.as_str()), Some(state));
    }
    assert_eq!(State::parse("Pending"), None);
}
