mod poison;
mod waiting;

use super::*;
use crate::policy::{Asked, Defaults};

const START: Timestamp = Timestamp::from_ms(1_000_000);
const LEASE: u64 = 40_000;

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

fn at(ms: u64) -> Timestamp {
    START.plus_ms(ms)
}

fn asked(asked: Asked) -> Job {
    let terms = Terms::agree(asked, &Defaults::default()).unwrap();
    let id = JobId::new(START, [7; 16], false);
    Job::submitted(id, "ep".parse().unwrap(), terms, true, START)
}

fn queued() -> Job {
    asked(Asked::default())
}

fn step(job: &Job, event: Event, ms: u64) -> Job {
    apply(job, event, at(ms)).unwrap().job
}

fn take_by(by: &str) -> Event {
    Event::Take {
        worker: worker(by),
        lease_ms: LEASE,
        waits: false,
    }
}

fn taken(job: &Job, by: &str, ms: u64) -> Job {
    step(job, take_by(by), ms)
}

/// Handed out to wait inside the worker.
fn waiting_in(job: &Job, by: &str, ms: u64) -> Job {
    let event = Event::Take {
        worker: worker(by),
        lease_ms: LEASE,
        waits: true,
    };
    step(job, event, ms)
}

fn complete(by: &str) -> Event {
    Event::Complete {
        worker: worker(by),
        began_at: None,
    }
}

fn fail(by: &str, error: &str) -> Event {
    Event::Fail {
        worker: worker(by),
        error: error.to_owned(),
        began_at: None,
    }
}

fn lost_event(by: &str) -> Event {
    Event::Lost {
        worker: worker(by),
        how: "exited with code 1".to_owned(),
        died: false,
    }
}

fn died_event(by: &str, how: &str) -> Event {
    Event::Lost {
        worker: worker(by),
        how: how.to_owned(),
        died: true,
    }
}

fn in_each_state() -> Vec<Job> {
    let running = taken(&queued(), "w1", 10);
    vec![
        queued(),
        waiting_in(&queued(), "w1", 10),
        running.clone(),
        step(&running, complete("w1"), 20),
        step(&running, fail("w1", "boom"), 20),
        step(&running, Event::Cancel, 20),
        asked_timed_out(),
    ]
}

fn asked_timed_out() -> Job {
    let job = asked(Asked {
        execution_timeout_ms: Some(5_000),
        ..Asked::default()
    });
    step(&taken(&job, "w1", 10), Event::Clock, 5_010)
}

fn hand_back(since: u64) -> Event {
    Event::HandBack {
        worker: worker("w1"),
        since: at(since),
    }
}

fn every_event() -> Vec<(&'static str, Event)> {
    let w1 = || worker("w1");
    vec![
        ("take by w1", take_by("w1")),
        ("take by w2", take_by("w2")),
        ("hand back by holder", hand_back(10)),
        ("hand back of an earlier attempt", hand_back(9)),
        ("begin by holder", Event::Begin { worker: w1() }),
        (
            "begin by other",
            Event::Begin {
                worker: worker("w2"),
            },
        ),
        (
            "renew by holder",
            Event::Renew {
                worker: w1(),
                lease_ms: LEASE,
            },
        ),
        (
            "renew by other",
            Event::Renew {
                worker: worker("w2"),
                lease_ms: LEASE,
            },
        ),
        ("progress by holder", Event::Progress { worker: w1() }),
        (
            "progress by other",
            Event::Progress {
                worker: worker("w2"),
            },
        ),
        ("complete by holder", complete("w1")),
        ("complete by other", complete("w2")),
        ("fail by holder", fail("w1", "e")),
        ("fail by other", fail("w2", "e")),
        ("holder lost", lost_event("w1")),
        ("other lost", lost_event("w2")),
        ("holder died", died_event("w1", "exited with code 1")),
        ("holder evicted", Event::Evict { worker: w1() }),
        ("clock, nothing due", Event::Clock),
        ("cancel", Event::Cancel),
        ("purge", Event::Purge),
        (
            "unservable",
            Event::Unservable {
                reason: "no worker starts".to_owned(),
            },
        ),
        ("retry", Event::Retry),
        ("wait ended", Event::WaitEnded),
        ("set ttl", Event::SetTtl { ms: 6_000 }),
    ]
}

/// The whole machine: what each event does in each state, as docs/state-machine.md shows it.
#[test]
fn every_event_in_every_state() {
    let mut table = String::new();
    for (name, event) in every_event() {
        let cells: Vec<String> = in_each_state()
            .iter()
            .map(|job| match apply(job, event.clone(), at(30)) {
                Ok(step) if step.job.status() == job.status() => "·".to_owned(),
                Ok(step) => step.job.status().to_string(),
                Err(Refused::Ended(_)) => "ignored".to_owned(),
                Err(Refused::NotRetryable(_)) => "refused".to_owned(),
                Err(Refused::NotHolder) => "not the holder".to_owned(),
                Err(Refused::Begun) => "begun already".to_owned(),
                Err(Refused::NotQueued) => "not waiting".to_owned(),
                Err(Refused::NotDue) => "nothing due".to_owned(),
                Err(Refused::Barred) => "barred".to_owned(),
            })
            .collect();
        table += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    let documented = include_str!("../../../../docs/state-machine.md");
    assert!(
        documented.contains(&table),
        "docs/state-machine.md should contain\n{table}"
    );
}

#[test]
fn a_life_that_goes_well() {
    let running = taken(&queued(), "w1", 10);
    let done = apply(&running, complete("w1"), at(50)).unwrap();
    let end = done.job.state.end().unwrap();
    assert_eq!(done.job.status(), Status::Completed);
    assert_eq!(end.attempt, Some((worker("w1"), at(10))));
    assert_eq!(end.forget_at, at(50 + limits::RETENTION_MS));
    assert_eq!(
        done.effects,
        [
            Effect::KeepOutput,
            Effect::Count(Counter::Completed),
            Effect::WipeSecrets,
            Effect::Deliver
        ]
    );
}

#[test]
fn a_lost_worker_costs_one_retry_and_then_the_job() {
    let first = apply(&taken(&queued(), "w1", 10), lost_event("w1"), at(20)).unwrap();
    assert_eq!(first.job.status(), Status::InQueue);
    assert_eq!(
        (first.job.retries, first.job.barred.as_slice()),
        (1, &[worker("w1")][..])
    );
    assert!(first.effects.contains(&Effect::ClearOutput));
    assert!(first.effects.contains(&Effect::ClearChunks));

    let take = take_by("w1");
    assert_eq!(apply(&first.job, take, at(30)), Err(Refused::Barred));

    let second = step(&taken(&first.job, "w2", 30), lost_event("w2"), 40);
    assert_eq!(second.status(), Status::Failed);
    assert_eq!(
        second.state.end().unwrap().error.as_deref(),
        Some("worker w2 exited with code 1; gave up after 1 retry")
    );
}

#[test]
fn a_lease_that_runs_out_is_a_lost_worker() {
    let running = taken(&queued(), "w1", 0);
    assert_eq!(running.deadline(), at(LEASE));
    assert_eq!(
        apply(&running, Event::Clock, at(LEASE - 1)),
        Err(Refused::NotDue)
    );

    let renewed = step(
        &running,
        Event::Renew {
            worker: worker("w1"),
            lease_ms: LEASE,
        },
        30_000,
    );
    assert_eq!(
        apply(&renewed, Event::Clock, at(LEASE)),
        Err(Refused::NotDue)
    );

    let requeued = step(&renewed, Event::Clock, 30_000 + LEASE);
    assert_eq!((requeued.status(), requeued.retries), (Status::InQueue, 1));
}

#[test]
fn a_completion_from_an_old_attempt_changes_nothing() {
    let requeued = step(&taken(&queued(), "w1", 0), lost_event("w1"), 10);
    let late = complete("w1");
    assert_eq!(
        apply(&requeued, late.clone(), at(20)),
        Err(Refused::NotHolder)
    );
    let second = taken(&requeued, "w2", 30);
    assert_eq!(apply(&second, late, at(40)), Err(Refused::NotHolder));
}

#[test]
fn a_hand_back_is_neither_a_retry_nor_a_bar() {
    let back = step(&taken(&queued(), "w1", 10), hand_back(10), 11);
    assert_eq!(back, queued());
}

#[test]
fn an_eviction_is_no_retry_but_a_bar() {
    let back = step(
        &taken(&queued(), "w1", 10),
        Event::Evict {
            worker: worker("w1"),
        },
        11,
    );
    assert_eq!(
        (back.retries, back.barred.as_slice()),
        (0, &[worker("w1")][..])
    );
}

#[test]
fn the_execution_timeout_counts_each_attempt() {
    let job = asked(Asked {
        execution_timeout_ms: Some(5_000),
        ..Asked::default()
    });
    let second = taken(
        &step(&taken(&job, "w1", 0), lost_event("w1"), 4_000),
        "w2",
        6_000,
    );
    assert_eq!(
        apply(&second, Event::Clock, at(10_999)),
        Err(Refused::NotDue)
    );
    let out = step(&second, Event::Clock, 11_000);
    assert_eq!(out.status(), Status::TimedOut);
    assert_eq!(
        out.state.end().unwrap().error.as_deref(),
        Some("execution timeout after 5000 ms")
    );
}

#[test]
fn a_default_ttl_never_ends_running_work_and_a_given_one_does() {
    let running = taken(&queued(), "w1", limits::TTL_MS - 1);
    assert_eq!(
        apply(&running, Event::Clock, at(limits::TTL_MS)),
        Err(Refused::NotDue)
    );
    assert_eq!(
        step(&queued(), Event::Clock, limits::TTL_MS).status(),
        Status::TimedOut
    );

    let given = asked(Asked {
        ttl_ms: Some(10_000),
        ..Asked::default()
    });
    let out = step(&taken(&given, "w1", 5_000), Event::Clock, 10_000);
    assert_eq!(out.status(), Status::TimedOut);
    assert_eq!(
        out.state.end().unwrap().error.as_deref(),
        Some("ttl of 10000 ms ran out")
    );
    assert_eq!(out.barred, [worker("w1")]);
}

#[test]
fn a_job_that_ran_past_its_default_ttl_waits_anew_when_its_worker_is_lost() {
    let late = limits::TTL_MS + 60_000;
    let running = taken(&queued(), "w1", limits::TTL_MS - 1);
    for event in [
        lost_event("w1"),
        Event::Evict {
            worker: worker("w1"),
        },
    ] {
        let back = step(&running, event, late);
        assert_eq!(apply(&back, Event::Clock, at(late)), Err(Refused::NotDue));
        assert_eq!(back.deadline(), at(late + limits::TTL_MS));
    }
    let given = asked(Asked {
        ttl_ms: Some(10_000),
        ..Asked::default()
    });
    let back = step(&taken(&given, "w1", 1_000), lost_event("w1"), 9_000);
    assert_eq!(back.deadline(), at(10_000), "a given ttl is not moved");
}

#[test]
fn an_expired_job_is_never_taken() {
    let given = asked(Asked {
        ttl_ms: Some(10_000),
        ..Asked::default()
    });
    let take = take_by("w1");
    assert_eq!(apply(&given, take, at(10_000)), Err(Refused::NotQueued));
}

#[test]
fn ttl_expiry_can_forget_the_job_at_once() {
    let defaults = Defaults {
        ttl_expiry_forgets: true,
        ..Defaults::default()
    };
    let terms = Terms::agree(Asked::default(), &defaults).unwrap();
    let job = Job::submitted(
        JobId::new(START, [7; 16], false),
        "ep".parse().unwrap(),
        terms,
        false,
        START,
    );
    let out = step(&job, Event::Clock, limits::TTL_MS);
    assert_eq!(out.deadline(), at(limits::TTL_MS));
}

#[test]
fn retry_starts_a_new_life_with_the_same_terms() {
    let out = asked_timed_out();
    let again = apply(&out, Event::Retry, at(60_000)).unwrap();
    assert_eq!(again.job.status(), Status::InQueue);
    assert_eq!(again.job.queued_at, at(60_000));
    assert_eq!(again.job.expires_at, at(60_000 + limits::TTL_MS));
    assert_eq!(again.job.created_at, START);
    assert_eq!(
        again.job.barred,
        [worker("w1")],
        "w1 may still be working on it"
    );
    assert_eq!(
        again.effects,
        [Effect::ClearOutput, Effect::ClearChunks, Effect::Withdraw]
    );
}

#[test]
fn a_job_that_failed_by_its_own_report_may_return_to_that_worker() {
    let fail = fail("w1", "boom");
    let failed = step(&taken(&queued(), "w1", 0), fail, 10);
    let again = step(&failed, Event::Retry, 20);
    assert_eq!(taken(&again, "w1", 30).status(), Status::InProgress);
}

#[test]
fn secrets_outlive_only_what_can_be_retried() {
    for job in in_each_state()
        .into_iter()
        .filter(|job| job.status().is_terminal())
    {
        let retryable = apply(&job, Event::Retry, at(99)).is_ok();
        let running = taken(&queued(), "w1", 0);
        let event = match job.status() {
            Status::Completed => complete("w1"),
            Status::Failed => fail("w1", ""),
            Status::Cancelled => Event::Cancel,
            Status::TimedOut => Event::Clock,
            Status::InQueue | Status::InProgress => unreachable!("filtered"),
        };
        let effects = apply(&running, event, at(limits::EXECUTION_TIMEOUT_MS))
            .unwrap()
            .effects;
        assert_eq!(
            effects.contains(&Effect::WipeSecrets),
            !retryable,
            "{}",
            job.status()
        );
    }
}

#[test]
fn cancelled_jobs_call_no_webhook() {
    let effects = apply(&queued(), Event::Cancel, at(1)).unwrap().effects;
    assert!(!effects.contains(&Effect::Deliver));
}

#[test]
fn an_awaited_result_is_kept_shorter_unless_the_wait_ended() {
    let sync = Job {
        awaited: true,
        ..queued()
    };
    let complete = complete("w1");
    let answered = step(&taken(&sync, "w1", 0), complete.clone(), 10);
    assert_eq!(answered.deadline(), at(10 + limits::RETENTION_SYNC_MS));

    let unanswered = step(&answered, Event::WaitEnded, 11);
    assert_eq!(unanswered.deadline(), at(10 + limits::RETENTION_MS));

    let gone = step(
        &taken(&step(&sync, Event::WaitEnded, 5), "w1", 6),
        complete,
        10,
    );
    assert_eq!(gone.deadline(), at(10 + limits::RETENTION_MS));
}

#[test]
fn a_ttl_on_status_moves_the_deadline_and_only_shortens_a_kept_result() {
    let sooner = step(&queued(), Event::SetTtl { ms: 6_000 }, 0);
    assert_eq!(
        (sooner.deadline(), sooner.expiry_is_hard),
        (at(6_000), true)
    );

    let done = step(&taken(&queued(), "w1", 0), complete("w1"), 10);
    assert_eq!(
        step(&done, Event::SetTtl { ms: 6_000 }, 20).deadline(),
        at(6_020)
    );
    let longer = step(
        &done,
        Event::SetTtl {
            ms: limits::TTL_MS_MAX,
        },
        20,
    );
    assert_eq!(longer.deadline(), done.deadline());
}

#[test]
fn a_huge_error_is_cut_at_a_character() {
    let error = "é".repeat(limits::ERROR_BYTES);
    let failed = step(&taken(&queued(), "w1", 0), fail("w1", &error), 1);
    let kept = failed.state.end().unwrap().error.clone().unwrap();
    assert!(kept.len() < limits::ERROR_BYTES + 64);
    assert!(kept.ends_with("(524288 bytes in all)"));
}
