use super::*;

const GRACE: Grace = Grace {
    release_ms: 10_000,
    stop_ms: 30_000,
};
const START: Timestamp = Timestamp::from_ms(1_000_000);

fn at(ms: u64) -> Timestamp {
    START.plus_ms(ms)
}

fn endpoint() -> EndpointId {
    "ep".parse().unwrap()
}

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

fn job() -> JobId {
    JobId::new(START, [1; 16], false)
}

/// A fleet with the worker `w`, started and asking for work.
fn fleet() -> Fleet {
    let fleet = Fleet::default();
    fleet.managed(&endpoint(), &worker("w"), START);
    assert!(fleet.polled(&endpoint(), &worker("w"), None, START));
    fleet
}

fn duties(fleet: &Fleet, holders: &[WorkerId], ms: u64) -> Vec<Duty> {
    fleet.duties(holders, |_| 60_000, GRACE, at(ms))
}

#[test]
fn a_worker_that_has_no_job_and_asks_for_none_is_killed_once() {
    let fleet = fleet();
    assert_eq!(duties(&fleet, &[], 54_999), []);
    let kill = Duty::Kill(worker("w"), "it has no job and asks for none");
    assert_eq!(duties(&fleet, &[], 55_000), [kill]);
    assert_eq!(duties(&fleet, &[], 56_000), [], "each duty is named once");
}

#[test]
fn a_worker_that_holds_a_job_need_not_ask() {
    let fleet = fleet();
    assert_eq!(duties(&fleet, &[worker("w")], 3_600_000), []);
    fleet.freed(&worker("w"), at(3_600_000));
    assert_eq!(
        duties(&fleet, &[], 3_654_999),
        [],
        "it was free for 55 s only"
    );
}

#[test]
fn a_worker_that_never_asks_is_killed_after_its_init_timeout() {
    let fleet = Fleet::default();
    fleet.managed(&endpoint(), &worker("w"), START);
    assert_eq!(duties(&fleet, &[], 59_999), []);
    assert_eq!(duties(&fleet, &[], 60_000).len(), 1);
    let left = fleet.ended(&worker("w")).unwrap();
    assert!(left.never_asked);
    assert!(left.retired.unwrap().contains("init timeout"));
}

#[test]
fn a_worker_that_clings_to_a_job_is_killed_and_one_that_lets_go_is_not() {
    let fleet = fleet();
    fleet.must_let_go(&worker("w"), job(), at(0));
    assert_eq!(fleet.tell_to_stop(&worker("w")), [job()]);
    assert_eq!(
        fleet.tell_to_stop(&worker("w")),
        [],
        "it asks again at once"
    );
    assert_eq!(duties(&fleet, &[], 9_999), []);
    let kill = Duty::Kill(worker("w"), "it did not let go of a job");
    assert_eq!(duties(&fleet, &[], 10_000), [kill]);

    let fleet = self::fleet();
    fleet.must_let_go(&worker("w"), job(), at(0));
    fleet.has_let_go(&worker("w"), job(), at(9_000));
    assert_eq!(duties(&fleet, &[], 20_000), []);
}

#[test]
fn a_retired_worker_is_asked_to_stop_when_it_holds_nothing_and_then_killed() {
    let fleet = fleet();
    fleet.retire(&worker("w"), "idle");
    assert_eq!(duties(&fleet, &[worker("w")], 1), []);
    assert_eq!(duties(&fleet, &[], 2), [Duty::AskToStop(worker("w"))]);
    assert_eq!(duties(&fleet, &[], 30_001), []);
    let kill = Duty::Kill(worker("w"), "it did not stop when asked to");
    assert_eq!(duties(&fleet, &[], 30_002), [kill]);
}

#[test]
fn workers_of_others_are_not_in_the_plan_and_nobody_tries_to_stop_them() {
    let fleet = fleet();
    fleet.polled(&endpoint(), &worker("stranger"), None, START);
    let members = fleet.members(&endpoint(), &[]);
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].worker, worker("w"));
    assert_eq!(
        fleet.headcount(&endpoint(), &[]).idle,
        2,
        "but /health shows it"
    );
    fleet.retire(&worker("stranger"), "asked for it");
    assert!(!duties(&fleet, &[], 40_000).contains(&Duty::AskToStop(worker("stranger"))));
}

#[test]
fn a_worker_of_others_that_was_started_anew_under_its_name_is_fed_again() {
    let fleet = Fleet::default();
    let poll = |ms| fleet.polled(&endpoint(), &worker("s"), None, at(ms));
    poll(0);
    fleet.retire(&worker("s"), "its handler asked for a fresh worker");
    poll(1_000);
    poll(2_000);
    assert!(fleet.is_retired(&worker("s")), "it goes on polling");
    poll(6_000);
    assert!(!fleet.is_retired(&worker("s")));
}

#[test]
fn a_heartbeat_alone_makes_no_worker() {
    let fleet = Fleet::default();
    fleet.beat(&worker("orphan"), None, START);
    assert!(fleet.is_empty());
}

#[test]
fn a_job_named_twice_without_being_held_is_to_be_stopped() {
    let fleet = fleet();
    fleet.names_unheld(&worker("w"), &[job()], at(0));
    assert_eq!(
        fleet.tell_to_stop(&worker("w")),
        [],
        "its end may cross the heartbeat"
    );
    fleet.names_unheld(&worker("w"), &[job()], at(5_000));
    assert_eq!(fleet.tell_to_stop(&worker("w")), [job()]);
}

#[test]
fn failed_starts_hold_the_next_one_off_until_a_worker_asks_for_work() {
    let fleet = Fleet::default();
    assert_eq!(fleet.start_failed(&endpoint(), "boom".to_owned(), START), 1);
    assert_eq!(fleet.start_failed(&endpoint(), "boom".to_owned(), START), 2);
    let failed = scale::Starts {
        failed_in_a_row: 2,
        last_failed_at: Some(START),
    };
    assert_eq!(fleet.failed_starts(&endpoint()), failed);
    assert_eq!(fleet.last_failure(&endpoint()).as_deref(), Some("boom"));
    fleet.polled(&endpoint(), &worker("w"), None, START);
    assert_eq!(fleet.failed_starts(&endpoint()), scale::Starts::default());
    assert_eq!(fleet.last_failure(&endpoint()), None);
}
