//! How a worker comes by jobs.

use std::collections::BTreeSet;

use crate::http::Connection;
use crate::server::{Setup, TestServer, id_of};

on_each_store!(
    point_02_an_empty_poll_is_held_20_to_25_s_and_then_204,
    point_02_a_job_wakes_a_parked_poll_at_once,
    point_02_each_job_wakes_one_poll,
    point_02_a_poll_that_broke_off_takes_no_job_along,
    point_02_a_job_whose_answer_nobody_read_comes_back,
    point_04_one_job_is_an_object_and_several_are_an_array,
    point_04_a_batch_is_as_large_as_asked_at_most,
);

tests!(in_memory: crate::server::Setup::memory();
    point_02_the_ends_of_empty_polls_are_spread,
    point_02_one_worker_may_poll_several_times_at_once,
);

tests!(short: super::short_leases();
    a_job_that_comes_back_passes_by_its_former_worker,
);

fn short_leases() -> Setup {
    Setup::memory().endpoint("lease_s = 10")
}

async fn point_02_an_empty_poll_is_held_20_to_25_s_and_then_204(s: &TestServer) {
    let worker = s.worker("w1");
    for query in ["job_in_progress=0", "batch_size=4&job_in_progress=1"] {
        let mut poll = worker.park_saying(query).await;
        s.advance(19_999).await;
        s.get("/healthz").await.ok();
        assert!(poll.is_silent(), "{query}");
        s.advance(5_001).await;
        let reply = poll.reply().await;
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{query}");
        worker.until_parked(0).await;
    }
}

async fn point_02_the_ends_of_empty_polls_are_spread(s: &TestServer) {
    let mut parked = Vec::new();
    for n in 0..10 {
        parked.push(s.worker(&format!("w{n}")).park().await);
    }
    s.advance(19_999).await;
    let mut answered_at = BTreeSet::new();
    for tenth in 0..=50 {
        s.get("/healthz").await.ok();
        let (silent, answered): (Vec<_>, Vec<_>) =
            parked.into_iter().partition(Connection::is_silent);
        parked = silent;
        if !answered.is_empty() {
            answered_at.insert(tenth);
        }
        s.advance(100).await;
    }
    assert!(
        parked.is_empty(),
        "{} are held for more than 25 s",
        parked.len()
    );
    assert!(
        answered_at.len() > 1,
        "ten workers must not come back all at once"
    );
}

async fn point_02_a_job_wakes_a_parked_poll_at_once(s: &TestServer) {
    let worker = s.worker("w1");
    let mut poll = worker.park_saying("job_in_progress=0").await;
    let id = s.run(r#"{"input":[1]}"#).await;
    // The clock stands still, so this is not the end of the hold.
    let reply = poll.reply().await;
    assert_eq!(reply.text(), format!(r#"{{"id":"{id}","input":[1]}}"#));
    assert_eq!(reply.header("content-type"), Some("application/json"));

    let mut poll = worker.park_saying("batch_size=3&job_in_progress=1").await;
    let id = s.run(r#"{"input":2}"#).await;
    let reply = poll.reply().await;
    assert_eq!(reply.text(), format!(r#"[{{"id":"{id}","input":2}}]"#));
}

async fn point_02_each_job_wakes_one_poll(s: &TestServer) {
    let mut polls = Vec::new();
    for name in ["w1", "w2", "w3"] {
        polls.push(s.worker(name).park().await);
    }
    let elsewhere = s.worker("w4").on("other").park().await;
    let mut submitted = BTreeSet::new();
    for _ in 0..3 {
        submitted.insert(s.run(r#"{"input":1}"#).await);
    }
    let mut taken = BTreeSet::new();
    for poll in &mut polls {
        taken.insert(id_of(&poll.reply().await.ok()));
    }
    assert_eq!(taken, submitted);
    s.get("/healthz").await.ok();
    assert!(elsewhere.is_silent());
}

async fn point_02_one_worker_may_poll_several_times_at_once(s: &TestServer) {
    // As SDK 1.4 to 1.7.0 do with several slots.
    let worker = s.worker("w1").version(Some("1.6.2"));
    let mut polls = Vec::new();
    for _ in 0..4 {
        polls.push(worker.park().await);
    }
    worker.until_parked(4).await;
    let mut submitted = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for _ in 0..polls.len() {
        submitted.insert(s.run(r#"{"input":1}"#).await);
    }
    for poll in &mut polls {
        taken.insert(id_of(&poll.reply().await.ok()));
    }
    assert_eq!(taken, submitted);
}

async fn point_02_a_poll_that_broke_off_takes_no_job_along(s: &TestServer) {
    for n in 0..20 {
        let gone = s.worker(&format!("gone{n}")).park().await;
        let later = s.worker(&format!("later{n}"));
        if n % 2 == 0 {
            // Nobody else waits when the job comes.
            drop(gone);
            let id = s.run(r#"{"input":1}"#).await;
            assert_eq!(id_of(&later.take().await), id);
        } else {
            let mut poll = later.park().await;
            drop(gone);
            let id = s.run(r#"{"input":1}"#).await;
            assert_eq!(id_of(&poll.reply().await.ok()), id);
        }
    }
    // Nothing had to be found out by a lease.
    let jobs = s.get("/v2/ep/health").await.ok()["jobs"].clone();
    assert_eq!(
        (&jobs["inProgress"], &jobs["retried"]),
        (&20.into(), &0.into())
    );
}

async fn a_job_that_comes_back_passes_by_its_former_worker(s: &TestServer) {
    let former = s.worker("w1");
    let id = s.run(r#"{"input":1}"#).await;
    former.take().await;
    // It waits longest, but may still be at the job.
    let first = former.park().await;
    let mut second = s.worker("w2").park().await;
    s.advance(10_000).await;
    assert_eq!(id_of(&second.reply().await.ok()), id);
    assert!(first.is_silent());
}

async fn point_02_a_job_whose_answer_nobody_read_comes_back(s: &TestServer) {
    // The answer is on its way when the worker goes: only silence tells.
    let id = s.run(r#"{"input":1}"#).await;
    let deaf = s.worker("deaf");
    let poll = s.open(&deaf.poll("job_in_progress=0")).await;
    let job = s.reaches(&id, "IN_PROGRESS").await;
    assert_eq!(job["workerId"], "deaf");
    drop(poll);
    let mut other = s.worker("w1").park().await;
    s.advance(39_999).await;
    s.get("/healthz").await.ok();
    // Its own hold is long over; the job is not for it yet.
    assert_eq!(other.reply().await.status, 204);
    let mut other = s.worker("w1").park().await;
    s.advance(1).await;
    assert_eq!(id_of(&other.reply().await.ok()), id);
    assert_eq!(s.expect(&id, "IN_PROGRESS").await["retries"], 1);
    s.worker("w1").done(&id, "{}").await;

    // A worker that asks again with empty hands says so itself.
    let id = s.run(r#"{"input":2}"#).await;
    let poll = s.open(&deaf.poll("job_in_progress=0")).await;
    s.reaches(&id, "IN_PROGRESS").await;
    drop(poll);
    s.advance(5_001).await;
    let _again = deaf.park_saying("job_in_progress=0").await;
    s.reaches(&id, "IN_QUEUE").await;
    assert_eq!(id_of(&s.worker("w1").take().await), id);
}

async fn point_04_one_job_is_an_object_and_several_are_an_array(s: &TestServer) {
    let worker = s.worker("w1");
    for input in ["{}", "[]", "0", "\"\"", "false"] {
        let id = s.run(format!("{{\"input\":{input}}}")).await;
        let reply = worker.take_saying("").await;
        // Neither key is ever left out, however empty the input.
        assert_eq!(reply.text(), format!(r#"{{"id":"{id}","input":{input}}}"#));
        assert!(
            id.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "{id}"
        );

        let id = s.run(format!("{{\"input\":{input}}}")).await;
        let reply = worker.take_saying("batch_size=2").await;
        assert_eq!(
            reply.text(),
            format!(r#"[{{"id":"{id}","input":{input}}}]"#)
        );
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
}

async fn point_04_a_batch_is_as_large_as_asked_at_most(s: &TestServer) {
    let mut submitted = Vec::new();
    for n in 0..115 {
        submitted.push(s.run(format!("{{\"input\":{n}}}")).await);
    }
    let worker = s.worker("w1");
    let mut taken = Vec::new();
    for (size, got) in [
        ("4", 4),
        ("1", 1),
        ("0", 1),
        ("", 1),
        ("x", 1),
        ("-2", 1),
        ("9999", 100),
    ] {
        let reply = worker
            .take_saying(&format!("batch_size={size}&job_in_progress=1"))
            .await;
        let jobs = reply.ok();
        let jobs = jobs.as_array().expect("an array");
        assert_eq!(jobs.len(), got, "batch_size={size}");
        taken.extend(jobs.iter().map(id_of));
    }
    // The singular call is for one job, whatever it says.
    taken.push(id_of(
        &worker.take_saying("job_in_progress=1&x=5").await.ok(),
    ));
    taken.extend(worker.batch(50).await.iter().map(id_of));
    assert_eq!(taken, submitted, "each once, in order");
}
