//! Each plan says why, in a code and in words.

use super::*;

#[track_caller]
fn says(plan: &Plan, code: &str, text: &str) {
    assert_eq!(
        (plan.reason.as_str(), plan.reason.to_string().as_str()),
        (code, text)
    );
}

#[test]
fn a_start_says_what_it_is_for() {
    let settings = Settings::default();
    says(
        &plan_of(&waiting(3, 0), &[], &settings),
        "first_job",
        "3 jobs wait and there is no worker",
    );
    says(
        &plan_of(&waiting(3, 4_500), &fleet(&[BUSY]), &settings),
        "queue_delay",
        "the oldest job has waited 4.5 s, one more worker for each 4 s",
    );
    says(
        &plan_of(&waiting(9, 0), &[], &by_count(4)),
        "request_count",
        "9 jobs waiting or running, 4 a worker",
    );
    let at_least_one = Settings {
        workers_min: 1,
        ..settings
    };
    says(
        &plan_of(&Demand::default(), &[], &at_least_one),
        "workers_min",
        "the minimum is 1 worker",
    );
}

#[test]
fn no_start_says_what_it_waits_for() {
    let settings = Settings::default();
    says(
        &plan_of(&waiting(1, 1_000), &fleet(&[BUSY]), &settings),
        "waiting",
        "the oldest job has waited 1 s, one more worker in 3 s",
    );
    says(
        &plan_of(&waiting(5, 60_000), &fleet(&[BUSY; 3]), &settings),
        "at_maximum",
        "the maximum of 3 workers is reached",
    );
    says(
        &plan_of(&waiting(5, 0), &fleet(&[Phase::Stopping; 3]), &settings),
        "at_maximum",
        "the maximum of 3 workers is reached",
    );
    says(
        &plan_of(&waiting(1, 0), &fleet(&[Phase::Starting]), &settings),
        "enough",
        "1 worker is enough",
    );
    says(
        &plan_of(&Demand::default(), &[], &settings),
        "enough",
        "no worker is needed",
    );
    let low = Demand {
        queued_low: 1,
        ..Demand::default()
    };
    says(
        &plan_of(&low, &[], &settings),
        "low_priority_only",
        "1 job waits and all are of low priority, which starts no worker",
    );
    let paused = Settings {
        workers_max: 0,
        ..settings
    };
    says(
        &plan_of(&waiting(5, 0), &[], &paused),
        "paused",
        "the endpoint is paused, its maximum is 0",
    );
}

#[test]
fn failures_and_a_full_machine_say_how_it_goes_on() {
    says(
        &after(failed(3, 500), &[], 8),
        "hold_off",
        "3 starts failed in a row, the next one is tried in 59.5 s",
    );
    says(
        &after(failed(1, 5_000), &[Phase::Starting], 8),
        "on_trial",
        "1 start failed in a row, one is being tried",
    );
    says(
        &after(failed(8, 0), &[], 8),
        "given_up",
        "8 starts failed in a row, no more are tried",
    );
    let full = Room(Some(0));
    says(
        &plan(
            &waiting(5, 0),
            &[],
            &by_count(1),
            &Starts::default(),
            full,
            NOW,
        ),
        "no_room",
        "no room for 5 workers more",
    );
}

#[test]
fn whoever_goes_is_told_why() {
    let why = |settings: &Settings, fleet: &[Member]| {
        let plan = plan_of(&Demand::default(), fleet, settings);
        let leave = plan.stop.first().expect("one goes");
        (leave.why.as_str(), leave.why.to_string())
    };
    let idle = |outdated| Member {
        outdated,
        ..member(0, Phase::Idle { since: ago(5_250) }, ago(60_000))
    };
    let settings = Settings::default();
    let case = |code, text: &str| (code, text.to_owned());
    assert_eq!(
        why(&settings, &[idle(false)]),
        case("idle", "idle for 5.25 s")
    );
    assert_eq!(
        why(&settings, &[idle(true)]),
        case("outdated", "it runs an older release")
    );
    let least = Settings {
        workers_min: 1,
        workers_max: 1,
        ..settings
    };
    assert_eq!(
        why(&least, &[idle(false), member(1, BUSY, NOW)]),
        case("over_maximum", "more than the maximum of 1 worker")
    );
    let paused = Settings {
        workers_max: 0,
        ..settings
    };
    assert_eq!(
        why(&paused, &[idle(false)]),
        case("paused", "the endpoint is paused, its maximum is 0")
    );
}
