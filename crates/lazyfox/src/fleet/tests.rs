use std::collections::HashSet;

use lazyfox_core::id::JobId;
use lazyfox_core::prefetch::Turn;
use lazyfox_core::scale::Starts;
use lazyfox_core::sdk::Runtime;

use super::*;
use crate::config::Prefetch;
use crate::providers::Exit;

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

/// What the worker is told to stop at the start.
fn told(fleet: &Fleet) -> Vec<JobId> {
    fleet.tell_to_stop(&worker("w"), START).0
}

/// A heartbeat names the job, which the worker does not hold.
fn names_unheld(fleet: &Fleet) {
    let all = &[job()];
    let named = Named {
        all,
        not_held: all,
        unwritten: &[],
    };
    assert_eq!(fleet.heard(&worker("w"), &named, START), Heard::default());
}

fn enlist(fleet: &Fleet, name: &str, release: u32) {
    fleet.enlist(Enlisted {
        worker: worker(name),
        endpoint: endpoint(),
        release: Release(release),
        gpus: Vec::new(),
        started_at: START,
        why: "1 job waits".to_owned(),
        preparing: false,
    });
}

fn end(name: &str) -> Ended {
    Ended {
        worker: worker(name),
        endpoint: endpoint(),
        exit: Exit::Code(1),
        last_lines: vec!["boom".to_owned()],
    }
}

/// A fleet with the worker `w`, started and asking for work.
fn fleet() -> Fleet {
    let fleet = Fleet::default();
    enlist(&fleet, "w", 0);
    let ready_ms = fleet.polled(&endpoint(), &worker("w"), None, START);
    assert_eq!(ready_ms, Some(0));
    fleet
}

fn duties(fleet: &Fleet, holders: &[WorkerId], ms: u64) -> Vec<Duty> {
    fleet.duties(
        &holders.iter().cloned().collect(),
        |_| 60_000,
        GRACE,
        at(ms),
    )
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
    enlist(&fleet, "w", 0);
    assert_eq!(duties(&fleet, &[], 59_999), []);
    assert_eq!(duties(&fleet, &[], 60_000).len(), 1);
    let left = fleet.ended(&end("w"), at(61_000)).unwrap();
    assert!(left.never_asked);
    assert!(left.retired.unwrap().contains("init timeout"));
}

#[test]
fn a_worker_that_clings_to_a_job_is_killed_and_one_that_lets_go_is_not() {
    let fleet = fleet();
    fleet.must_let_go(&worker("w"), job(), at(0));
    assert_eq!(told(&fleet), [job()]);
    assert_eq!(told(&fleet), [], "it asks again at once");
    assert_eq!(duties(&fleet, &[], 9_999), []);
    let kill = Duty::Kill(worker("w"), "it did not let go of a job");
    assert_eq!(duties(&fleet, &[], 10_000), [kill]);

    let fleet = self::fleet();
    fleet.must_let_go(&worker("w"), job(), at(0));
    fleet.reported(&worker("w"), job(), at(9_000));
    assert_eq!(duties(&fleet, &[], 20_000), []);
}

#[test]
fn a_worker_is_told_to_stop_a_job_when_it_may_have_begun() {
    let fleet = fleet();
    let told = |ms| fleet.tell_to_stop(&worker("w"), at(ms));
    fleet.took(&worker("w"), job(), false, at(0));
    fleet.must_let_go(&worker("w"), job(), at(100));
    assert_eq!(told(100), (vec![], at(500)));
    assert_eq!(told(500), (vec![job()], Timestamp::NEVER));
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
    let members = fleet.members(&endpoint(), &[].into());
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].worker, worker("w"));
    let (ep, stranger) = (endpoint(), worker("stranger"));
    let poll = fleet.open_poll(&ep, &stranger, 1);
    assert_eq!(
        fleet.headcount(&ep, &[].into()).idle,
        2,
        "but /health shows it"
    );
    drop(poll);
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
    names_unheld(&fleet);
    assert_eq!(told(&fleet), [], "its end may cross the heartbeat");
    names_unheld(&fleet);
    assert_eq!(told(&fleet), [job()]);
}

#[test]
fn failed_starts_hold_the_next_one_off_until_a_worker_asks_for_work() {
    let fleet = Fleet::default();
    let fail = |release, started_ms, ms| {
        let why = "boom".to_owned();
        fleet.start_failed(&endpoint(), Release(release), at(started_ms), why, at(ms))
    };
    assert_eq!((fail(0, 0, 5), fail(0, 6, 7)), (1, 2));
    let failed = Starts {
        failed_in_a_row: 2,
        last_failed_at: Some(at(7)),
    };
    assert_eq!(fleet.starts(&endpoint()), (failed, Some("boom".to_owned())));
    assert_eq!(fail(4, 8, 9), 2, "what an older release did is no reason");
    assert_eq!(fail(0, 7, 9), 2, "ten that fail at once are one failure");
    fleet.polled(&endpoint(), &worker("w"), None, START);
    assert_eq!(fleet.starts(&endpoint()), (Starts::default(), None));
}

#[test]
fn a_start_that_is_given_up_has_failed_before_its_worker_is_gone() {
    let fleet = Fleet::default();
    enlist(&fleet, "w", 0);
    assert_eq!(duties(&fleet, &[], 60_000).len(), 1);
    let (starts, why) = fleet.starts(&endpoint());
    assert_eq!(
        (starts.failed_in_a_row, starts.last_failed_at),
        (1, Some(at(60_000)))
    );
    assert!(why.unwrap().contains("init timeout"));
    // Its end says the same once more.
    let left = fleet.ended(&end("w"), at(61_000)).unwrap();
    let failed = fleet.start_failed(
        &endpoint(),
        left.release,
        left.started_at,
        "late".to_owned(),
        at(61_000),
    );
    assert_eq!(failed, 1);
}

#[test]
fn a_worker_of_others_whose_poll_was_held_keeps_its_jobs() {
    let fleet = Fleet::default();
    let poll = |ms| fleet.polled(&endpoint(), &worker("s"), None, at(ms));
    poll(0);
    fleet.took(&worker("s"), job(), false, at(20_000));
    poll(20_001);
    let with = fleet.with_any(&[job()].into());
    assert_eq!(with.get(&job()), Some(&worker("s")));
}

#[test]
fn a_worker_of_others_is_counted_on_while_it_asks() {
    let fleet = Fleet::default();
    fleet.polled(&endpoint(), &worker("s"), None, START);
    let (ep, s, nobody) = (endpoint(), worker("s"), HashSet::new());
    let poll = fleet.open_poll(&ep, &s, 1);
    assert_eq!(fleet.outlook(&ep, &nobody).idle, 1);
    assert_eq!(fleet.headcount(&ep, &nobody).idle, 1);
    drop(poll);
    assert_eq!(fleet.outlook(&ep, &nobody).idle, 0);
    assert_eq!(fleet.headcount(&ep, &nobody).idle, 0);
}

#[test]
fn a_new_release_begins_without_failures_and_makes_workers_outdated() {
    let fleet = fleet();
    fleet.start_failed(&endpoint(), Release(0), START, "boom".to_owned(), START);
    assert!(fleet.release(&endpoint(), Release(2)));
    assert!(!fleet.release(&endpoint(), Release(2)));
    assert_eq!(fleet.starts(&endpoint()), (Starts::default(), None));
    enlist(&fleet, "x", 2);
    let members = fleet.members(&endpoint(), &[].into());
    let outdated: Vec<bool> = members.iter().map(|member| member.outdated).collect();
    assert_eq!(outdated, [true, false]);
}

#[test]
fn a_worker_whose_start_is_prepared_is_not_late_yet() {
    let fleet = Fleet::default();
    fleet.enlist(Enlisted {
        worker: worker("w"),
        endpoint: endpoint(),
        release: Release(0),
        gpus: Vec::new(),
        started_at: START,
        why: String::new(),
        preparing: true,
    });
    fleet.prepares(&worker("w"), "pulling");
    assert_eq!(duties(&fleet, &[], 600_000), []);
    let seen = fleet.seen(&endpoint(), &[].into());
    assert_eq!(seen[0].step.as_deref(), Some("pulling"));
    fleet.runs(&worker("w"), at(600_000));
    assert_eq!(duties(&fleet, &[], 659_999), []);
    assert_eq!(duties(&fleet, &[], 660_000).len(), 1);
}

#[test]
fn who_is_gone_is_remembered_with_the_reason() {
    let fleet = fleet();
    fleet.retire(&worker("w"), "idle");
    fleet.ended(&end("w"), at(9_000));
    let gone = fleet.gone(&endpoint());
    assert_eq!(gone[0].why_stopped.as_deref(), Some("idle"));
    assert_eq!(gone[0].ready_ms, Some(0));
    assert_eq!(gone[0].last_lines, ["boom"]);
    assert!(fleet.seen(&endpoint(), &[].into()).is_empty());
}

/// How many jobs the worker's poll for so many is answered with, as (at once, ahead).
fn offer(fleet: &Fleet, name: &str, asked: usize, single: bool) -> Option<(usize, usize)> {
    let (endpoint, worker) = (endpoint(), worker(name));
    let poll = fleet.open_poll(&endpoint, &worker, asked);
    let asked = Asked {
        count: asked,
        single,
    };
    let offer = fleet.offer(&poll, asked, Prefetch::Auto, true)?;
    Some((offer.count, offer.extra))
}

/// A fleet with a worker of this version, whose endpoint's jobs take 1 ms.
fn fleet_of(version: &str) -> Fleet {
    let fleet = Fleet::default();
    let runtime = Runtime::from_heartbeat(version);
    fleet.polled(&endpoint(), &worker("w"), runtime, START);
    (0..500).for_each(|_| {
        fleet.took_ms(&endpoint(), Turn::First, 1);
        fleet.took_ms(&endpoint(), Turn::Next, 1);
    });
    fleet
}

fn numbered(n: u8) -> JobId {
    JobId::new(START, [n; 16], false)
}

#[test]
fn short_jobs_are_given_ahead_to_versions_that_bear_it() {
    for version in ["1.7.1", "1.7.13", "1.9.1", "1.12.0"] {
        let (count, extra) = offer(&fleet_of(version), "w", 1, true).unwrap();
        assert!(count == 1 && extra > 700, "{version}: {count} + {extra}");
    }
    for version in [
        "1.6.2",
        "1.7.0",
        "2.0.0rc2",
        "2.1.0",
        "lazyfox-0.1.0",
        "unknown",
    ] {
        assert_eq!(
            offer(&fleet_of(version), "w", 1, true),
            Some((1, 0)),
            "{version}"
        );
    }
}

#[test]
fn nothing_is_given_ahead_while_another_worker_waits_or_while_jobs_wait_inside() {
    let fleet = fleet_of("1.12.0");
    fleet.polled(&endpoint(), &worker("x"), None, START);
    let (ep, x) = (endpoint(), worker("x"));
    let other = fleet.open_poll(&ep, &x, 1);
    assert_eq!(offer(&fleet, "w", 1, true), Some((1, 0)));
    drop(other);
    assert!(offer(&fleet, "w", 1, true).unwrap().1 > 0);
    fleet.took(&worker("w"), numbered(1), false, START);
    fleet.took(&worker("w"), numbered(2), true, START);
    assert_eq!(offer(&fleet, "w", 1, true), Some((1, 0)));
}

#[test]
fn nothing_is_given_ahead_while_another_worker_comes_soon() {
    let fleet = fleet_of("1.12.0");
    enlist(&fleet, "x", 0);
    assert_eq!(
        offer(&fleet, "w", 1, true),
        Some((1, 0)),
        "how long it takes is not known"
    );
    fleet.polled(&endpoint(), &worker("x"), None, at(60_000));
    enlist(&fleet, "y", 0);
    assert!(
        offer(&fleet, "w", 1, true).unwrap().1 > 0,
        "starts take a minute"
    );
}

#[test]
fn a_poll_for_one_job_is_answered_with_what_the_worker_can_take_now() {
    for (version, expected) in [("1.12.0", 4), ("2.0.0rc2", 1), ("1.6.2", 1)] {
        let fleet = Fleet::default();
        let runtime = Runtime::from_heartbeat(version);
        fleet.polled(&endpoint(), &worker("w"), runtime, START);
        assert_eq!(offer(&fleet, "w", 4, false).map(|it| it.0), Some(4));
        assert_eq!(
            offer(&fleet, "w", 1, true).map(|it| it.0),
            Some(expected),
            "{version}"
        );
    }
}

#[test]
fn versions_that_take_too_much_are_kept_to_their_slots() {
    // 1.7.2 to 1.7.4 take a second batch while the first runs; 1.9.1 asks only for what is free.
    for (version, expected) in [("1.7.4", None), ("1.9.1", Some((3, 0)))] {
        let fleet = Fleet::default();
        let runtime = Runtime::from_heartbeat(version);
        fleet.polled(&endpoint(), &worker("w"), runtime, START);
        assert_eq!(offer(&fleet, "w", 3, false), Some((3, 0)));
        (1..=3).for_each(|n| fleet.took(&worker("w"), numbered(n), false, START));
        let again = fleet.offer(
            &fleet.open_poll(&endpoint(), &worker("w"), 3),
            Asked {
                count: 3,
                single: false,
            },
            Prefetch::Auto,
            false,
        );
        assert_eq!(again.map(|it| (it.count, it.extra)), expected, "{version}");
    }
    // 1.4 to 1.6.2 send a poll for each slot, and one too many while a job runs.
    let fleet = fleet_of("1.6.2");
    let (ep, w) = (endpoint(), worker("w"));
    let polls = [(); 2].map(|()| fleet.open_poll(&ep, &w, 1));
    fleet.poll_ended_empty(&w);
    drop(polls);
    fleet.took(&w, numbered(1), false, START);
    assert_eq!(offer(&fleet, "w", 1, true), Some((1, 0)));
    fleet.took(&w, numbered(2), false, START);
    assert_eq!(offer(&fleet, "w", 1, true), None);
    // 1.7.0 has one slot, however many polls it sends.
    let fleet = fleet_of("1.7.0");
    let (ep, w) = (endpoint(), worker("w"));
    let _polls = [(); 5].map(|()| fleet.open_poll(&ep, &w, 1));
    assert_eq!(offer(&fleet, "w", 1, true), Some((1, 0)));
    fleet.took(&w, numbered(1), false, START);
    assert_eq!(offer(&fleet, "w", 1, true), None);
}

#[test]
fn two_busy_workers_of_such_a_version_do_not_wait_for_each_other() {
    let fleet = fleet_of("1.7.7");
    fleet.polled(&endpoint(), &worker("x"), None, START);
    fleet.took(&worker("w"), numbered(1), false, START);
    fleet.took(&worker("x"), numbered(2), false, START);
    let (ep, w, x) = (endpoint(), worker("w"), worker("x"));
    let poll = fleet.open_poll(&ep, &w, 1);
    let _other = fleet.open_poll(&ep, &x, 1);
    let asked = Asked {
        count: 1,
        single: true,
    };
    let offer = |others| fleet.offer(&poll, asked, Prefetch::Auto, others);
    assert!(offer(false).is_some());
    fleet.reported(&x, numbered(2), START);
    assert_eq!(offer(false), None, "the other one is idle");
}

#[test]
fn a_version_whose_new_jobs_wait_for_old_ones_gets_none_while_others_can_have_them() {
    let fleet = fleet_of("1.7.7");
    fleet.took(&worker("w"), numbered(1), false, START);
    assert_eq!(
        offer(&fleet, "w", 1, true),
        None,
        "another could be started"
    );
    let (ep, w) = (endpoint(), worker("w"));
    let poll = fleet.open_poll(&ep, &w, 1);
    let asked = Asked {
        count: 1,
        single: true,
    };
    assert!(fleet.offer(&poll, asked, Prefetch::Auto, false).is_some());
}
