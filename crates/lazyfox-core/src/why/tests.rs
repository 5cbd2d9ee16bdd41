use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_000_000);

fn ago(ms: i64) -> Timestamp {
    Timestamp::from_ms(NOW.as_ms() - ms)
}

fn in_ms(ms: u64) -> Timestamp {
    NOW.plus_ms(ms)
}

/// An endpoint whose two workers, of three at most, are busy with jobs of 8 s.
fn busy() -> Facts {
    Facts {
        managed: true,
        workers_max: 3,
        busy: 2,
        slots: 1,
        run_ms: Some(8_000),
        start_ms: Some(20_000),
        ..Facts::default()
    }
}

fn check(facts: Facts, cause: Cause, estimate_ms: Option<u64>, text: &str) {
    let why = why(&facts, NOW);
    assert_eq!((why.cause, &*why.text), (cause, text));
    assert_eq!(why.estimate_ms, estimate_ms, "{facts:?}");
}

#[test]
fn an_idle_worker_takes_it() {
    let facts = Facts { idle: 1, ..busy() };
    check(
        facts,
        Cause::Next,
        Some(0),
        "a worker is idle and takes it in a moment",
    );
}

#[test]
fn the_first_worker_is_starting() {
    let facts = Facts {
        busy: 0,
        starting: 1,
        starting_since: Some(ago(14_000)),
        ..busy()
    };
    let text = "no worker is free yet; 1 worker has been starting for 14 s";
    check(facts.clone(), Cause::Starting, Some(6_000), text);
    let facts = Facts {
        starting_step: Some("pulling ocr:1.3: 3 of 8 layers".to_owned()),
        ahead: 2,
        ..facts
    };
    let text = "no worker is free yet; 1 worker has been starting for 14 s: pulling ocr:1.3: 3 of 8 \
                layers; 2 jobs wait before it";
    check(facts, Cause::Starting, Some(22_000), text);
}

#[test]
fn nothing_was_started_yet() {
    let facts = Facts { busy: 0, ..busy() };
    let text = "no worker is there yet; one is about to be started";
    check(facts, Cause::Starting, Some(20_000), text);
}

#[test]
fn workers_are_busy_and_one_more_may_come() {
    let facts = Facts {
        next_step_at: Some(in_ms(2_500)),
        ahead: 5,
        ..busy()
    };
    let text = "all 2 workers are busy; one more is started if it still waits in 2 s; 5 jobs wait \
                before it";
    check(facts, Cause::Busy, Some(20_000), text);
    let text = "all 2 workers are busy; no further one is wanted";
    check(busy(), Cause::Busy, Some(4_000), text);
}

#[test]
fn the_maximum_is_reached() {
    let facts = Facts {
        busy: 3,
        ahead: 1,
        ..busy()
    };
    let text = "all 3 workers are busy, and 3 is the maximum (workers_max); 1 job waits before it";
    check(facts, Cause::AtMaximum, Some(4_000), text);
    let facts = Facts {
        busy: 1,
        workers_max: 1,
        ..busy()
    };
    let text = "the one worker is busy, and 1 is the maximum (workers_max)";
    check(facts, Cause::AtMaximum, Some(4_000), text);
}

#[test]
fn starts_fail() {
    let failing = Failing {
        in_a_row: 1,
        last: "program \"python9\" was not found".to_owned(),
        next_at: Some(in_ms(4_000)),
    };
    let facts = Facts {
        busy: 0,
        failing: Some(failing.clone()),
        ..busy()
    };
    let text = "the last start of a worker failed, and the next is tried in 4 s; last error: program \
                \"python9\" was not found";
    check(facts.clone(), Cause::Unhealthy, None, text);
    let given_up = Failing {
        in_a_row: 8,
        next_at: None,
        ..failing
    };
    let facts = Facts {
        failing: Some(given_up),
        ..facts
    };
    let text = "the last 8 starts of workers failed, and no more are tried until the endpoint is \
                changed or its scaler reset; last error: program \"python9\" was not found";
    check(facts, Cause::GivenUp, None, text);
}

#[test]
fn paused_before_all() {
    let facts = Facts {
        workers_max: 0,
        starting: 1,
        ..busy()
    };
    check(
        facts,
        Cause::Paused,
        None,
        "the endpoint is paused: its workers_max is 0",
    );
}

#[test]
fn no_gpu_is_free() {
    let facts = Facts {
        busy: 0,
        no_room: 1,
        gpus: 2,
        ..busy()
    };
    let text = "a worker needs 2 GPUs, and so many are not free on this machine";
    check(facts, Cause::NoGpu, None, text);
}

#[test]
fn low_priority_waits_and_starts_nobody() {
    let facts = Facts {
        low: true,
        ahead: 2,
        ..busy()
    };
    let text = "it is of low priority: it starts no worker, and all 2 workers are busy; 2 jobs wait \
                before it";
    check(facts.clone(), Cause::LowPriority, Some(12_000), text);
    let facts = Facts {
        busy: 0,
        ahead: 0,
        ..facts
    };
    let text = "it is of low priority, and such a job starts no worker";
    check(facts, Cause::LowPriority, None, text);
}

#[test]
fn who_had_it_before_must_not_have_it() {
    let facts = Facts {
        busy: 0,
        idle: 1,
        barred: 1,
        ..busy()
    };
    let text =
        "the workers that are there had this job before and lost it, so it waits for another";
    check(facts, Cause::Barred, None, text);
}

#[test]
fn somebody_else_has_to_start_a_worker() {
    let facts = Facts {
        managed: false,
        busy: 0,
        ..busy()
    };
    let text = "no worker is connected, and this endpoint's workers are started by somebody else";
    check(facts, Cause::NoWorker, None, text);
}

#[test]
fn without_a_history_there_is_no_estimate() {
    let facts = Facts {
        run_ms: None,
        ..busy()
    };
    assert_eq!(why(&facts, NOW).estimate_ms, None);
    let facts = Facts {
        busy: 0,
        start_ms: None,
        ..busy()
    };
    assert_eq!(why(&facts, NOW).estimate_ms, None);
}

#[test]
fn another_server_starts_the_workers() {
    let elsewhere = Elsewhere {
        who: "another server (a on b) starts the workers".to_owned(),
        workers: 0,
    };
    let facts = Facts {
        busy: 0,
        elsewhere: Some(elsewhere.clone()),
        ..busy()
    };
    let text = "another server (a on b) starts the workers";
    check(facts, Cause::Elsewhere, None, text);
    let facts = Facts {
        elsewhere: Some(Elsewhere {
            workers: 2,
            ..elsewhere
        }),
        ahead: 1,
        ..busy()
    };
    let text = "another server (a on b) starts the workers; 2 workers of other servers are known; \
                1 job waits before it";
    check(facts.clone(), Cause::Elsewhere, None, text);
    // Whoever started it, an idle worker takes it.
    let text = "a worker is idle and takes it in a moment; 1 job waits before it";
    check(Facts { idle: 2, ..facts }, Cause::Next, Some(0), text);
}
