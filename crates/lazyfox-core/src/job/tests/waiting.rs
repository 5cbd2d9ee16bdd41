//! Jobs that were handed out beyond what was asked for, and wait inside the worker.

use super::*;

fn begin(by: &str) -> Event {
    Event::Begin { worker: worker(by) }
}

fn completed_since(by: &str, ms: u64) -> Event {
    Event::Complete {
        worker: worker(by),
        began_at: Some(at(ms)),
    }
}

fn started_at(job: &Job) -> Timestamp {
    job.state.last_attempt().unwrap().1
}

#[test]
fn a_job_that_waits_inside_its_worker_begins_once() {
    let waits = waiting_in(&queued(), "w1", 10);
    assert_eq!(waits.status(), Status::InProgress);
    assert!(waits.waits_in_worker());
    assert_eq!(started_at(&waits), at(10));
    let begun = apply(&waits, begin("w1"), at(70)).unwrap();
    assert_eq!(begun.effects, []);
    assert!(!begun.job.waits_in_worker());
    assert_eq!(started_at(&begun.job), at(70));
    assert_eq!(begun.job.deadline(), waits.deadline(), "its lease goes on");
    assert_eq!(apply(&begun.job, begin("w1"), at(80)), Err(Refused::Begun));
    assert!(!taken(&queued(), "w1", 10).waits_in_worker());
    assert!(!queued().waits_in_worker());
    assert!(!step(&waits, Event::Cancel, 20).waits_in_worker());
}

#[test]
fn its_execution_timeout_counts_from_when_it_begins() {
    let short = asked(Asked {
        execution_timeout_ms: Some(5_000),
        ..Asked::default()
    });
    let waits = waiting_in(&short, "w1", 0);
    assert_eq!(waits.deadline(), at(LEASE));
    assert_eq!(apply(&waits, Event::Clock, at(6_000)), Err(Refused::NotDue));
    let begun = step(&waits, begin("w1"), 6_000);
    assert_eq!(begun.deadline(), at(11_000));
    assert_eq!(
        step(&begun, Event::Clock, 11_000).status(),
        Status::TimedOut
    );
}

#[test]
fn a_loss_before_it_began_is_neither_retry_nor_death() {
    let fresh = queued();
    for lost in [died_event("w1", "left"), lost_event("w1"), Event::Clock] {
        let mut before = waiting_in(&fresh, "w1", 0);
        before.deaths = vec![Death::new(&worker("w0"), "left")];
        let back = apply(&before, lost, at(LEASE)).unwrap();
        assert_eq!(back.job.status(), Status::InQueue);
        assert_eq!((back.job.retries, back.job.deaths.len()), (0, 1));
        assert_eq!(back.job.barred, [worker("w1")], "it may begin with it yet");
        assert_eq!(back.effects, [Effect::ClearOutput, Effect::ClearChunks]);
        assert!(back.job.deadline() > at(limits::TTL_MS), "it waits anew");
    }
}

#[test]
fn a_hard_ttl_ends_it_where_it_waits() {
    let given = asked(Asked {
        ttl_ms: Some(10_000),
        ..Asked::default()
    });
    let out = step(&waiting_in(&given, "w1", 5_000), Event::Clock, 10_000);
    assert_eq!(out.status(), Status::TimedOut);
    // It never ran, so all of it was waiting.
    assert_eq!(
        out.state.end().unwrap().attempt,
        Some((worker("w1"), at(10_000)))
    );
    assert_eq!(out.barred, [worker("w1")]);
}

#[test]
fn who_reports_progress_has_begun() {
    let waits = waiting_in(&queued(), "w1", 10);
    let progress = || Event::Progress {
        worker: worker("w1"),
    };
    let begun = apply(&waits, progress(), at(50)).unwrap();
    assert_eq!(begun.effects, [Effect::KeepOutput]);
    assert!(!begun.job.waits_in_worker());
    assert_eq!(started_at(&begun.job), at(50));
    let later = step(&begun.job, progress(), 90);
    assert_eq!(later, begun.job);
}

#[test]
fn an_end_says_since_when_it_ran_as_well_as_anybody_knows() {
    let waits = waiting_in(&queued(), "w1", 10);
    let begun = step(&waits, begin("w1"), 70);
    let ended = |job: &Job, event| step(job, event, 100).state.end().unwrap().attempt.clone();
    let since = |ms| Some((worker("w1"), at(ms)));
    assert_eq!(ended(&waits, completed_since("w1", 40)), since(40));
    // Not before it was there, nor after it ended.
    assert_eq!(ended(&waits, completed_since("w1", 5)), since(10));
    assert_eq!(ended(&waits, completed_since("w1", 200)), since(100));
    assert_eq!(ended(&begun, completed_since("w1", 40)), since(70));
    assert_eq!(ended(&waits, complete("w1")), since(10));
    assert_eq!(
        ended(&taken(&queued(), "w1", 10), completed_since("w1", 40)),
        since(40)
    );
    let failed = Event::Fail {
        worker: worker("w1"),
        error: "boom".to_owned(),
        began_at: Some(at(40)),
    };
    assert_eq!(ended(&waits, failed), since(40));
}

#[test]
fn what_is_known_to_have_begun_is_to_blame() {
    let waits = waiting_in(&queued(), "w1", 10);
    let blamed = begun_since(&waits, at(10));
    let lost = step(&blamed, died_event("w1", "left"), 20);
    assert_eq!((lost.retries, lost.deaths.len()), (1, 1));
    assert_eq!(begun_since(&queued(), at(10)), queued());
    let ended = step(&waits, Event::Cancel, 20);
    assert_eq!(begun_since(&ended, at(30)), ended);
}
