//! What is shown of workers, why a job waits, and what happens when settings change while the server runs.
//!
//! `managed` starts processes that do nothing; the test speaks for them.

mod gpus;

use std::time::Instant;

use serde_json::{Value, json};

use crate::http::{GUARD, Request, guarded};
use crate::server::{Setup, TestServer, id_of};

mod reloads;

on_each_store!(
    workers_show_what_they_do,
    a_job_is_told_why_it_waits,
    decisions_are_shown_with_what_they_were_made_from,
    wrong_numbers_are_refused_by_name,
    one_name_cannot_work_for_two_endpoints,
);

tests!(managed: super::managed();
    a_worker_that_is_started_shows_why_and_what_it_runs,
    a_changed_maximum_takes_effect_at_once_and_holds_on,
    changes_at_the_same_time_are_all_kept,
    a_worker_that_shall_stop_gives_back_what_it_does_not_work_on,
    a_paused_endpoint_says_so,
    idle_workers_of_an_older_release_are_replaced_and_busy_ones_finish_first,
    a_release_whose_workers_never_ask_leaves_the_old_ones,
    a_wrong_configuration_changes_nothing,
    endpoints_come_and_go_with_the_configuration,
    failed_starts_are_told_and_can_be_tried_again,
    many_starts_that_fail_at_once_are_one_failure,
    a_busy_worker_whose_new_jobs_would_wait_is_kept_back_and_nothing_stands_still,
);

fn managed() -> Setup {
    Setup::sqlite().others(
        "[endpoints.managed]\ncommand = [\"sleep\", \"600\"]\nworkers_max = 2\nidle_timeout_s = 60\n\
         init_timeout_s = 100\n",
    )
}

async fn workers_of(s: &TestServer, endpoint: &str) -> Value {
    s.get(format!("/v2/{endpoint}/workers")).await.ok()
}

/// Waits until the list of workers is so.
async fn until_workers(s: &TestServer, endpoint: &str, so: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let workers = workers_of(s, endpoint).await;
        if so(&workers) {
            return workers;
        }
        assert!(started.elapsed() < GUARD, "it stays so: {workers}");
        // What a pass does on its timer it does as soon as it is woken.
        s.app().wakes.scale.notify_one();
    }
}

fn names(workers: &Value) -> Vec<String> {
    let workers = workers["workers"].as_array().expect("a list");
    workers.iter().map(id_of).collect()
}

async fn submit(s: &TestServer, endpoint: &str) -> String {
    let body = r#"{"input":1}"#;
    id_of(&s.post(format!("/v2/{endpoint}/run"), body).await.ok())
}

async fn patch(s: &TestServer, endpoint: &str, change: &Value) -> crate::http::Reply {
    let target = format!("/v2/{endpoint}/scaler");
    let request = Request::new("PATCH", target).body(change.to_string());
    s.request(request).await
}

async fn workers_show_what_they_do(s: &TestServer) {
    let workers = workers_of(s, "ep").await;
    assert_eq!(workers["workers"], json!([]));
    let worker = s.worker("w1");
    let _poll = worker.park().await;
    let workers = workers_of(s, "ep").await;
    let shown = &workers["workers"][0];
    assert_eq!(shown["status"], "IDLE");
    assert_eq!(shown["isExternal"], true);
    assert_eq!(shown["sdk"], "1.12.0");
    assert_eq!(workers["summary"]["idle"], 1);

    let id = s.run(r#"{"input":1}"#).await;
    let busy = s.worker("w2");
    let shown = until_workers(s, "ep", |it| it["summary"]["running"] == 1).await;
    assert_eq!(shown["workers"][0]["jobs"], json!([id]));
    busy.ping_saying("gpu=x&status=unhealthy&check=disk&reason=full")
        .await;
    worker.done(&id, r#"{"output":1}"#).await;
    worker
        .ping_saying("gpu=x&status=unhealthy&check=disk&reason=full")
        .await;
    let shown = workers_of(s, "ep").await;
    assert_eq!(shown["workers"][0]["status"], "UNHEALTHY");
    assert_eq!(shown["workers"][0]["note"], "disk: full");
}

async fn a_job_is_told_why_it_waits(s: &TestServer) {
    let why = async |id: &str| s.get(format!("/v2/ep/why/{id}")).await.ok();
    let id = s.run(r#"{"input":1}"#).await;
    let second = s.run(r#"{"input":1}"#).await;
    let low = s.run(r#"{"input":1,"policy":{"lowPriority":true}}"#).await;
    let told = why(&second).await;
    assert_eq!(told["code"], "no_worker");
    assert_eq!(told["ahead"], 1);
    let worker = s.worker("w1").version(Some("2.0.0"));
    assert_eq!(id_of(&worker.take().await), id);
    assert_eq!(why(&id).await["code"], "running");
    s.advance(8_000).await;
    let told = why(&second).await;
    assert_eq!(told["code"], "busy", "{told}");
    assert_eq!(told["waitedMs"], 8_000);
    assert_eq!(told.get("estimateMs"), None, "nothing is known of its time");
    worker.done(&id, r#"{"output":1}"#).await;
    assert_eq!(why(&id).await["code"], "ended");
    assert_eq!(id_of(&worker.take().await), second);
    let told = why(&low).await;
    assert_eq!(told["code"], "low_priority");
    assert_eq!(told["estimateMs"], 4_000, "half of what one took");
    s.get("/v2/ep/why/00000000-0000-7000-8000-000000000000")
        .await
        .error(404, "job_not_found");
}

async fn decisions_are_shown_with_what_they_were_made_from(s: &TestServer) {
    let shown = s.get("/v2/ep/scaler").await.ok();
    assert_eq!(shown["settings"]["workersMax"], 3);
    assert_eq!(shown["settings"]["scalerType"], "QUEUE_DELAY");
    assert_eq!(shown["decisions"], json!([]), "nobody scales it");
    s.get("/v2/ep/scaler?limit=0")
        .await
        .error(400, "invalid_query");
}

async fn wrong_numbers_are_refused_by_name(s: &TestServer) {
    for (change, part) in [
        (json!({"workersMax": -1}), "workersMax"),
        (json!({"workersMin": 4}), "workersMin is 4"),
        (json!({"image": "x"}), "image"),
    ] {
        let refused = patch(s, "ep", &change).await;
        let text = refused.error(400, "invalid_settings");
        assert!(text.contains(part), "{text}");
    }
    let shown = s.get("/v2/ep/scaler").await.ok();
    assert_eq!(shown["changed"], json!({}));
}

async fn one_name_cannot_work_for_two_endpoints(s: &TestServer) {
    let worker = s.worker("box1");
    let id = s.run(r#"{"input":1}"#).await;
    assert_eq!(id_of(&worker.take().await), id);
    s.advance(6_000).await;
    let other = s.worker("box1").on("other");
    let refused = other.take_saying("job_in_progress=0").await;
    let text = refused.error(429, "worker_refused");
    assert!(text.contains("a worker of ep is called box1"), "{text}");
    other.ping(&[]).await;
    other.ping(&[]).await;
    let job = s.expect(&id, "IN_PROGRESS").await;
    assert_eq!(job.get("retries"), None, "{job}");
    worker.done(&id, r#"{"output":1}"#).await;
    s.expect(&id, "COMPLETED").await;
}

async fn a_worker_that_is_started_shows_why_and_what_it_runs(s: &TestServer) {
    submit(s, "managed").await;
    let workers = until_workers(s, "managed", |it| it["summary"]["initializing"] == 1).await;
    let shown = &workers["workers"][0];
    assert_eq!(shown["command"], json!(["sleep", "600"]));
    assert_eq!(shown["version"], 1);
    assert_eq!(shown["whyStarted"], "1 job waits and there is no worker");
    let scaler = s.get("/v2/managed/scaler").await.ok();
    let decision = &scaler["decisions"][0];
    assert_eq!(decision["inputs"]["queued"], 1, "{scaler}");
    s.advance(100_000).await;
    let workers = until_workers(s, "managed", |it| it["stopped"][0].is_object()).await;
    let gone = &workers["stopped"][0];
    assert_eq!(gone["status"], "UNHEALTHY");
    assert_eq!(gone["signal"], 9);
    let why = gone["whyStopped"].as_str().expect("a reason");
    assert!(why.contains("init timeout"), "{why}");
}

async fn a_changed_maximum_takes_effect_at_once_and_holds_on(s: &TestServer) {
    let changed = patch(s, "managed", &json!({"workersMin": 2})).await.ok();
    assert_eq!(changed["settings"]["workersMin"], 2);
    until_workers(s, "managed", |it| it["summary"]["initializing"] == 2).await;
    for name in names(&workers_of(s, "managed").await) {
        s.worker(&name).on("managed").introduce().await;
    }
    patch(s, "managed", &json!({"workersMin": 0, "workersMax": 1}))
        .await
        .ok();
    until_workers(s, "managed", |it| it["summary"]["total"] == 1).await;
    let kept = s.app().store.overrides().await.expect("the store answers");
    assert_eq!(kept.len(), 1);
    patch(
        s,
        "managed",
        &json!({"workersMin": null, "workersMax": null}),
    )
    .await
    .ok();
    let kept = s.app().store.overrides().await.expect("the store answers");
    assert_eq!(kept, []);
}

#[tokio::test]
async fn changed_numbers_survive_a_restart() {
    let s = managed().start().await;
    patch(&s, "managed", &json!({"workersMax": 7, "idleTimeout": 9}))
        .await
        .ok();
    let s = s.restart().await;
    let shown = s.get("/v2/managed/scaler").await.ok();
    assert_eq!(shown["settings"]["workersMax"], 7);
    assert_eq!(shown["changed"], json!({"workersMax": 7, "idleTimeout": 9}));
    s.stop().await;
}

async fn changes_at_the_same_time_are_all_kept(s: &TestServer) {
    for value in 5..15 {
        let (a, b) = (json!({"workersMax": value}), json!({"idleTimeout": value}));
        let (one, other) = tokio::join!(patch(s, "managed", &a), patch(s, "managed", &b));
        let _ = (one.ok(), other.ok());
        let all = json!({"workersMax": value, "idleTimeout": value});
        let shown = s.get("/v2/managed/scaler").await.ok();
        assert_eq!(shown["changed"], all);
        let kept = s.app().store.overrides().await.expect("the store answers");
        let kept: Value = serde_json::from_str(&kept[0].1).expect("JSON is kept");
        assert_eq!(kept, all);
    }
}

async fn a_worker_that_shall_stop_gives_back_what_it_does_not_work_on(s: &TestServer) {
    let (busy, _, id) = one_busy_one_idle(s).await;
    let busy = s.worker(&busy).on("managed");
    let sick = "gpu=x&status=unhealthy&check=disk&reason=full";
    assert_eq!(busy.ping_saying(sick).await.status, 200);
    // What was handed out so long ago is not on its way any more, and its lease goes on.
    s.advance(6_000).await;
    let _poll = s.open(&busy.poll("job_in_progress=0")).await;
    let taken = s.worker("another").on("managed").take().await;
    assert_eq!(id_of(&taken), id);
}

async fn a_paused_endpoint_says_so(s: &TestServer) {
    patch(s, "managed", &json!({"workersMax": 0})).await.ok();
    let id = submit(s, "managed").await;
    let told = s.get(format!("/v2/managed/why/{id}")).await.ok();
    assert_eq!(told["code"], "paused");
    assert_eq!(workers_of(s, "managed").await["summary"]["total"], 0);
    patch(s, "managed", &json!({"workersMax": 1})).await.ok();
    until_workers(s, "managed", |it| it["summary"]["total"] == 1).await;
    let told = s.get(format!("/v2/managed/why/{id}")).await.ok();
    assert_eq!(told["code"], "starting");
}

/// Two workers that asked for work; the first holds a job.
async fn one_busy_one_idle(s: &TestServer) -> (String, String, String) {
    patch(s, "managed", &json!({"workersMin": 2})).await.ok();
    let workers = until_workers(s, "managed", |it| it["summary"]["initializing"] == 2).await;
    let names = names(&workers);
    let [busy, idle] = names.try_into().expect("two workers");
    s.worker(&idle).on("managed").introduce().await;
    let id = submit(s, "managed").await;
    let taken = s.worker(&busy).on("managed").take().await;
    assert_eq!(id_of(&taken), id);
    (busy, idle, id)
}

async fn idle_workers_of_an_older_release_are_replaced_and_busy_ones_finish_first(s: &TestServer) {
    let (busy, idle, job) = one_busy_one_idle(s).await;
    let reloaded = s.reconfigure("\"600\"", "\"601\"").await.ok();
    let release = json!([{"endpoint": "managed", "version": 2}]);
    assert_eq!(reloaded["releases"], release);
    // One more than the maximum, so that nobody is missed.
    let workers = until_workers(s, "managed", |it| it["summary"]["initializing"] == 1).await;
    let fresh = names(&workers)
        .into_iter()
        .find(|it| *it != busy && *it != idle);
    let fresh = fresh.expect("a third one");
    let status = |workers: &Value, name: &str| {
        let all = workers["workers"].as_array().expect("a list");
        all.iter()
            .find(|it| it["id"] == *name)
            .map(|it| it["status"].clone())
    };
    assert_eq!(status(&workers, &idle), Some("OUTDATED".into()));
    assert_eq!(status(&workers, &busy), Some("RUNNING".into()));
    s.worker(&fresh).on("managed").introduce().await;
    until_workers(s, "managed", |it| status(it, &idle).is_none()).await;
    // The busy one is left alone until its job is done.
    assert_eq!(
        status(&workers_of(s, "managed").await, &busy),
        Some("RUNNING".into())
    );
    s.worker(&busy)
        .on("managed")
        .done(&job, r#"{"output":1}"#)
        .await;
    let second = until_workers(s, "managed", |it| it["summary"]["initializing"] == 1).await;
    let starting = |name: &String| status(&second, name) == Some("INITIALIZING".into());
    let newest = names(&second).into_iter().find(starting);
    let newest = newest.expect("one that starts");
    s.worker(&newest).on("managed").introduce().await;
    let end = until_workers(s, "managed", |it| status(it, &busy).is_none()).await;
    let all = end["workers"].as_array().expect("a list");
    let versions: Vec<_> = all.iter().map(|it| it["version"].clone()).collect();
    assert_eq!(versions, [json!(2), json!(2)]);
}

async fn a_release_whose_workers_never_ask_leaves_the_old_ones(s: &TestServer) {
    let (one, two, job) = one_busy_one_idle(s).await;
    let one = s.worker(&one).on("managed");
    one.done(&job, r#"{"output":1}"#).await;
    s.reconfigure("\"600\"", "\"0\"").await.ok();
    let workers = until_workers(s, "managed", |it| it["lastStartFailure"].is_string()).await;
    let why = workers["lastStartFailure"].as_str().expect("a reason");
    assert!(why.contains("exited with code 0"), "{why}");
    let two = s.worker(&two).on("managed");
    // Long enough for all starts that are tried before they are given up.
    for _ in 0..40 {
        s.advance(45_000).await;
        one.introduce().await;
        two.introduce().await;
        s.app().wakes.scale.notify_one();
        let now = workers_of(s, "managed").await;
        let names = names(&now);
        assert!(
            names.contains(&one.name) && names.contains(&two.name),
            "{now}"
        );
    }
}

async fn a_wrong_configuration_changes_nothing(s: &TestServer) {
    let refused = s.reconfigure("workers_max = 2", "workers_max = -2").await;
    let text = refused.error(409, "invalid_config");
    assert!(text.contains("workers_max"), "{text}");
    let shown = s.get("/v2/managed/scaler").await.ok();
    assert_eq!(shown["settings"]["workersMax"], 2);
    let reloaded = s
        .reconfigure("workers_max = -2", "workers_max = 5")
        .await
        .ok();
    assert_eq!(reloaded["changed"], json!(["managed"]));
    assert_eq!(reloaded["releases"], json!([]));
    let shown = s.get("/v2/managed/scaler").await.ok();
    assert_eq!(shown["settings"]["workersMax"], 5);
}

async fn endpoints_come_and_go_with_the_configuration(s: &TestServer) {
    submit(s, "managed").await;
    until_workers(s, "managed", |it| it["summary"]["total"] == 1).await;
    let reloaded = s
        .reconfigure("[endpoints.managed]", "[endpoints.renamed]")
        .await
        .ok();
    assert_eq!(reloaded["added"], json!(["renamed"]));
    assert_eq!(reloaded["removed"], json!(["managed"]));
    s.get("/v2/managed/workers")
        .await
        .error(404, "endpoint_not_found");
    guarded("the worker of the endpoint that is gone ends", async {
        while !s.app().fleet.all_managed().is_empty() {
            s.app().wakes.scale.notify_one();
            s.get("/v2/renamed/health").await.ok();
        }
    })
    .await;
    submit(s, "renamed").await;
    until_workers(s, "renamed", |it| it["summary"]["total"] == 1).await;
}

async fn failed_starts_are_told_and_can_be_tried_again(s: &TestServer) {
    s.reconfigure("\"sleep\", \"600\"", "\"no-such-program\"")
        .await
        .ok();
    let id = submit(s, "managed").await;
    until_workers(s, "managed", |it| it["lastStartFailure"].is_string()).await;
    let told = s.get(format!("/v2/managed/why/{id}")).await.ok();
    assert_eq!(told["code"], "unhealthy");
    let text = told["text"].as_str().expect("a sentence");
    assert!(text.contains("no-such-program"), "{text}");
    let stopped = &workers_of(s, "managed").await["stopped"];
    assert_eq!(stopped.as_array().map(Vec::len), Some(1), "{stopped}");
    s.post("/v2/managed/scaler/reset", "").await.ok();
    let two = |it: &Value| it["stopped"].as_array().is_some_and(|all| all.len() == 2);
    until_workers(s, "managed", two).await;
}

async fn many_starts_that_fail_at_once_are_one_failure(s: &TestServer) {
    s.reconfigure(
        "\"sleep\", \"600\"]\nworkers_max = 2",
        "\"no-such-program\"]\nworkers_max = 20\nscaler = \"REQUEST_COUNT\"\nscaler_value = 1",
    )
    .await
    .ok();
    for _ in 0..12 {
        submit(s, "managed").await;
    }
    until_workers(s, "managed", |it| it["lastStartFailure"].is_string()).await;
    let shown = guarded("the pass looks at what became of its starts", async {
        loop {
            let shown = s.get("/v2/managed/scaler").await.ok();
            if shown["code"] != "request_count" {
                return shown;
            }
            s.app().wakes.scale.notify_one();
        }
    })
    .await;
    assert_eq!(shown["code"], "hold_off", "{shown}");
    assert_eq!(shown["decisions"][0]["inputs"]["failedStarts"], 1);
}

async fn a_busy_worker_whose_new_jobs_would_wait_is_kept_back_and_nothing_stands_still(
    s: &TestServer,
) {
    let first = submit(s, "managed").await;
    let workers = until_workers(s, "managed", |it| it["summary"]["initializing"] == 1).await;
    let worker = s.worker(&names(&workers)[0]).on("managed");
    let worker = worker.version(Some("1.7.13"));
    assert_eq!(id_of(&worker.take().await), first);
    let mut poll = worker.park().await;
    let second = submit(s, "managed").await;
    s.get("/v2/managed/health").await.ok();
    let waits = s.get(format!("/v2/managed/status/{second}")).await.ok();
    assert_eq!(waits["status"], "IN_QUEUE");
    worker.done(&first, r#"{"output":1}"#).await;
    assert_eq!(id_of(&poll.reply().await.ok()), second);
    worker.done(&second, r#"{"output":1}"#).await;
}
