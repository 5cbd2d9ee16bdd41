//! Signs of life: what renews a lease, what proves a job lost, and what follows.

use serde_json::json;

use crate::server::{Setup, TestServer, id_of};

on_each_store!(
    point_07_a_heartbeat_renews_the_jobs_it_names,
    point_07_heartbeats_that_cannot_be_believed_renew_everything,
    point_07_an_unhealthy_worker_gets_no_further_jobs,
    a_silent_worker_loses_its_job_twice_and_then_it_failed,
    a_machine_that_slept_costs_no_job_its_worker,
    an_idle_poll_disowns_what_is_not_just_on_its_way,
    versions_that_lose_track_disown_nothing,
    a_job_that_runs_too_long_times_out,
    a_default_ttl_ends_no_running_job_and_a_given_one_does,
);

tests!(no_retries: super::no_retries();
    without_retries_a_lost_job_failed_at_once,
);
tests!(forgetful: super::forgetful();
    expired_jobs_can_be_forgotten_at_once,
);

fn no_retries() -> Setup {
    Setup::memory().endpoint("retries_max = 0")
}

fn forgetful() -> Setup {
    Setup::memory().endpoint("ttl_expiry = \"not_found\"")
}

const LEASE_MS: u64 = 40_000;

async fn point_07_a_heartbeat_renews_the_jobs_it_names(s: &TestServer) {
    let worker = s.worker("w1").version(Some("1.12.0"));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(s.run(r#"{"input":1}"#).await);
    }
    worker.batch(3).await;
    for _ in 0..3 {
        s.advance(LEASE_MS / 2).await;
        worker.ping(&[&ids[0], &ids[1]]).await;
    }
    s.expect(&ids[0], "IN_PROGRESS").await;
    s.expect(&ids[1], "IN_PROGRESS").await;
    let lost = s.expect(&ids[2], "IN_QUEUE").await;
    assert_eq!(lost["retries"], 1);
    // Its work is not wasted on one that still has it, though late.
    worker.done(&ids[2], r#"{"output":"late"}"#).await;
    s.expect(&ids[2], "IN_QUEUE").await;
    s.advance(LEASE_MS - 1).await;
    s.expect(&ids[0], "IN_PROGRESS").await;
    s.advance(1).await;
    s.expect(&ids[0], "IN_QUEUE").await;
}

async fn a_machine_that_slept_costs_no_job_its_worker(s: &TestServer) {
    let worker = s.worker("w1").version(Some("1.12.0"));
    let id = s.run(r#"{"input":1}"#).await;
    worker.take().await;
    s.suspend(8 * 3_600_000).await;
    s.expect(&id, "IN_PROGRESS").await;
    s.advance(LEASE_MS - 1).await;
    s.expect(&id, "IN_PROGRESS").await;
    s.advance(1).await;
    assert_eq!(s.expect(&id, "IN_QUEUE").await["retries"], 1);
}

async fn point_07_heartbeats_that_cannot_be_believed_renew_everything(s: &TestServer) {
    for (name, version) in [
        ("old", Some("1.7.13")),
        ("late", Some("1.10.0")),
        ("mute", None),
    ] {
        let worker = s.worker(name).version(version);
        let id = s.run(r#"{"input":1}"#).await;
        worker.take().await;
        for named in [vec![], vec!["another"], vec![]] {
            s.advance(LEASE_MS - 1).await;
            worker.ping(&named).await;
        }
        let job = s.expect(&id, "IN_PROGRESS").await;
        assert_eq!(job.get("retries"), None, "{name}");
        s.advance(LEASE_MS).await;
        s.expect(&id, "IN_QUEUE").await;
        s.post("/v2/ep/purge-queue", "").await.ok();
    }
    // A heartbeat of another worker is none of this one.
    let id = s.run(r#"{"input":1}"#).await;
    s.worker("w1").take().await;
    s.advance(LEASE_MS - 1).await;
    s.worker("w2").ping(&[&id]).await;
    s.advance(1).await;
    s.expect(&id, "IN_QUEUE").await;
}

async fn point_07_an_unhealthy_worker_gets_no_further_jobs(s: &TestServer) {
    let ill = s.worker("ill");
    let mut poll = ill.park().await;
    let query = "status=unhealthy&check=gpu&reason=no+CUDA&runpod_version=1.12.0";
    ill.ping_saying(query).await.ok();
    let workers = s.get("/v2/ep/health").await.ok()["workers"].clone();
    assert_eq!(
        (&workers["unhealthy"], &workers["idle"]),
        (&json!(1), &json!(0))
    );
    let id = s.run(r#"{"input":1}"#).await;
    s.advance(1_000).await;
    assert_eq!(poll.reply().await.status, 204);
    assert_eq!(id_of(&s.worker("well").take().await), id);
}

async fn a_silent_worker_loses_its_job_twice_and_then_it_failed(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    let first = s.worker("w1");
    first.take().await;
    first
        .done(&id, r#"{"status":"IN_PROGRESS","output":"half"}"#)
        .await;
    s.advance(LEASE_MS - 1).await;
    s.expect(&id, "IN_PROGRESS").await;
    s.advance(1).await;
    let queued = s.expect(&id, "IN_QUEUE").await;
    let created = queued["createdAt"].clone();
    let again = json!({"id": id, "status": "IN_QUEUE", "retries": 1, "createdAt": created});
    assert_eq!(queued, again, "nothing is left of the attempt");

    let second = s.worker("w2");
    s.advance(1_000).await;
    second.take().await;
    let running = s.expect(&id, "IN_PROGRESS").await;
    assert_eq!(running["delayTime"], LEASE_MS + 1_000);
    s.advance(LEASE_MS).await;
    let failed = s.expect(&id, "FAILED").await;
    assert_eq!(
        failed["error"],
        "worker w2 gave no sign of life for the length of its lease; gave up after 1 retry"
    );
    assert_eq!(
        (&failed["retries"], &failed["executionTime"]),
        (&json!(1), &json!(LEASE_MS))
    );
    for late in [first, second] {
        late.done(&id, r#"{"output":"late"}"#).await;
    }
    assert_eq!(s.status(&id).await, failed);
}

async fn without_retries_a_lost_job_failed_at_once(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    s.worker("w1").take().await;
    s.advance(LEASE_MS).await;
    let failed = s.expect(&id, "FAILED").await;
    let error = failed["error"].as_str().expect("a string");
    assert!(
        error.contains("w1") && error.ends_with("automatic retries are off"),
        "{error}"
    );
    assert_eq!(failed.get("retries"), None);
}

async fn an_idle_poll_disowns_what_is_not_just_on_its_way(s: &TestServer) {
    for version in ["1.6.2", "1.7.4", "1.10.1", "1.12.0", "2.0.0rc2"] {
        let name = format!("w-{}", version.replace('.', "-"));
        let worker = s.worker(&name).version(Some(version));
        let id = s.run(r#"{"input":1}"#).await;
        worker.take().await;
        // One poll may overtake the answer to another, so a fresh job is no proof.
        s.advance(5_000).await;
        let _early = worker.park_saying("job_in_progress=0").await;
        s.expect(&id, "IN_PROGRESS").await;
        // What it says is compared once a second.
        s.advance(1_000).await;
        let _busy = worker.park_saying("job_in_progress=1").await;
        s.expect(&id, "IN_PROGRESS").await;
        let _idle = worker.park_saying("job_in_progress=0").await;
        s.reaches(&id, "IN_QUEUE").await;
        // Not to the worker that lost it: it parks, and another one gets it.
        let other = s.worker(&format!("{name}-2"));
        assert_eq!(id_of(&other.take().await), id, "{version}");
        s.advance(5_001).await;
        let _idle = other.park_saying("job_in_progress=0").await;
        let failed = s.reaches(&id, "FAILED").await;
        let error = failed["error"].as_str().expect("a string");
        assert!(error.contains("without the job that it held"), "{error}");
    }
}

async fn versions_that_lose_track_disown_nothing(s: &TestServer) {
    for (n, version) in [
        Some("1.7.0"),
        Some("1.7.1"),
        Some("1.7.13"),
        Some("1.10.0"),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let worker = s.worker(&format!("w{n}")).version(version);
        let id = s.run(r#"{"input":1}"#).await;
        worker.take().await;
        s.advance(10_000).await;
        let _idle = worker.park_saying("job_in_progress=0").await;
        s.expect(&id, "IN_PROGRESS").await;
        worker.done(&id, r#"{"output":1}"#).await;
        s.expect(&id, "COMPLETED").await;
    }
}

async fn a_job_that_runs_too_long_times_out(s: &TestServer) {
    let id = s
        .run(r#"{"input":1,"policy":{"executionTimeout":50000}}"#)
        .await;
    s.advance(7_000).await;
    let first = s.worker("w1");
    first.take().await;
    s.advance(30_000).await;
    // Each attempt has the whole time.
    s.advance(10_000).await;
    let second = s.worker("w2");
    second.take().await;
    s.advance(30_000).await;
    second.ping(&[&id]).await;
    s.advance(19_999).await;
    s.expect(&id, "IN_PROGRESS").await;
    s.advance(1).await;
    let ended = s.expect(&id, "TIMED_OUT").await;
    assert_eq!(ended["error"], "execution timeout after 50000 ms");
    assert_eq!(ended["executionTime"], 50_000);
    second.done(&id, r#"{"output":"late"}"#).await;
    assert_eq!(s.status(&id).await, ended);
    let health = s.get("/v2/ep/health").await.ok();
    assert_eq!(
        (&health["jobs"]["failed"], &health["jobs"]["timedOut"]),
        (&json!(1), &json!(1))
    );
}

async fn a_default_ttl_ends_no_running_job_and_a_given_one_does(s: &TestServer) {
    let unlimited = s
        .run(r#"{"input":1,"policy":{"executionTimeout":604800000}}"#)
        .await;
    let worker = s.worker("w1");
    worker.take().await;
    let waiting = s.run(r#"{"input":1}"#).await;
    let day_ms = 24 * 60 * 60 * 1_000;
    // In steps, as a worker would say that it lives.
    for _ in 0..day_ms / 30_000 {
        s.app().clock.advance(30_000);
        worker.ping(&[&unlimited]).await;
    }
    s.advance(0).await;
    s.expect(&unlimited, "IN_PROGRESS").await;
    let ended = s.expect(&waiting, "TIMED_OUT").await;
    assert_eq!(ended["error"], format!("ttl of {day_ms} ms ran out"));

    let given = s.run(r#"{"input":1,"policy":{"ttl":10000}}"#).await;
    worker.take().await;
    s.advance(9_999).await;
    s.expect(&given, "IN_PROGRESS").await;
    s.advance(1).await;
    let ended = s.expect(&given, "TIMED_OUT").await;
    assert_eq!(ended["error"], "ttl of 10000 ms ran out");
}

async fn expired_jobs_can_be_forgotten_at_once(s: &TestServer) {
    let id = s.run(r#"{"input":1,"policy":{"ttl":10000}}"#).await;
    s.advance(9_999).await;
    s.expect(&id, "IN_QUEUE").await;
    s.advance(1).await;
    s.expect_gone(&id).await;
}
