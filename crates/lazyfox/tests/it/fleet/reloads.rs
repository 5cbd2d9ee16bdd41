//! What becomes of workers and their jobs when the configuration says something else about their endpoint.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use lazyfox::reload;
use lazyfox_core::job::Status;
use lazyfox_store::{Access, Parts};
use serde_json::json;

use super::{names, submit, until_workers};
use crate::http::{Request, guarded};
use crate::server::{Setup, TestServer, id_of};

tests!(on_managed: super::super::managed();
    a_worker_of_a_removed_endpoint_finishes_its_job,
    an_endpoint_that_becomes_external_lets_its_workers_go,
    of_two_reloads_at_once_the_last_text_wins,
);

tests!(two_gpus: super::super::gpus::on_two_gpus();
    an_endpoint_that_becomes_external_has_no_plan_any_more,
);

/// A job that a worker of `managed` works on: who, and which.
async fn one_busy(s: &TestServer) -> (String, String) {
    let id = submit(s, "managed").await;
    let workers = until_workers(s, "managed", |it| it["summary"]["initializing"] == 1).await;
    let [name] = names(&workers).try_into().expect("one worker");
    let taken = s.worker(&name).on("managed").take().await;
    assert_eq!(id_of(&taken), id);
    (name, id)
}

async fn until_all_gone(s: &TestServer) {
    guarded("the workers end", async {
        while !s.app().fleet.all_managed().is_empty() {
            s.app().wakes.scale.notify_one();
            s.get("/v2/ep/health").await.ok();
        }
    })
    .await;
}

async fn a_worker_of_a_removed_endpoint_finishes_its_job(s: &TestServer) {
    let given = s.reconfigure(
        "init_timeout_s = 100",
        "init_timeout_s = 100\nlease_s = 300",
    );
    given.await.ok();
    let (name, id) = one_busy(s).await;
    let removed = s
        .reconfigure("[endpoints.managed]", "[endpoints.renamed]")
        .await;
    assert_eq!(removed.ok()["removed"], json!(["managed"]));
    let worker = s.worker(&name).on("managed");
    let refused = worker.take_saying("job_in_progress=1").await;
    refused.error(429, "worker_refused");
    // Its leases are as long as they were.
    s.advance(250_000).await;
    worker.ping(&[&id]).await;
    s.advance(250_000).await;
    worker.chunk(&id, r#"{"output":1}"#).await;
    let stops = s.request(worker.stop_poll()).await;
    assert_eq!(stops.status, 204, "{}", stops.text());
    worker.done(&id, r#"{"output":"kept"}"#).await;
    until_all_gone(s).await;
    let back = s.reconfigure("[endpoints.renamed]", "[endpoints.managed]");
    assert_eq!(back.await.ok()["added"], json!(["managed"]));
    let job = s.get(format!("/v2/managed/status/{id}")).await.ok();
    assert_eq!(job["status"], "COMPLETED", "{job}");
    assert_eq!(job["output"], "kept");
}

async fn of_two_reloads_at_once_the_last_text_wins(s: &TestServer) {
    let app = s.app();
    let alone = app.endpoints.alone().await;
    let mut first = pin!(reload::reload(app));
    let waits = poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending()));
    assert!(waits.await, "it does not wait for the one before");
    let file = s.dir().join("lazyfox.toml");
    let text = std::fs::read_to_string(&file).expect("the server was started with it");
    let text = text.replace("workers_max = 2", "workers_max = 9");
    std::fs::write(&file, text).expect("a file can be written");
    drop(alone);
    let reloaded = first.await.expect("the file is good");
    assert_eq!(reloaded.changed, ["managed".parse().expect("a name")]);
    let shown = s.get("/v2/managed/scaler").await.ok();
    assert_eq!(shown["settings"]["workersMax"], 9);
}

async fn an_endpoint_that_becomes_external_lets_its_workers_go(s: &TestServer) {
    let (name, id) = one_busy(s).await;
    let command = "[endpoints.managed]\ncommand = [\"sleep\", \"600\"]";
    s.reconfigure(command, "[endpoints.managed]").await.ok();
    let worker = s.worker(&name).on("managed");
    worker.done(&id, r#"{"output":1}"#).await;
    until_all_gone(s).await;
    let job = s.get(format!("/v2/managed/status/{id}")).await.ok();
    assert_eq!(job["status"], "COMPLETED", "{job}");
}

async fn an_endpoint_that_becomes_external_has_no_plan_any_more(s: &TestServer) {
    for _ in 0..3 {
        submit(s, "a").await;
    }
    until_workers(s, "a", |it| it["summary"]["throttled"] == 1).await;
    let command = "[endpoints.a]\ncommand = [\"sleep\", \"600\"]";
    s.reconfigure(command, "[endpoints.a]").await.ok();
    until_workers(s, "a", |it| it["summary"]["throttled"] == 0).await;
    let scaler = s.get("/v2/a/scaler").await.ok();
    assert_eq!(scaler.get("code"), None, "{scaler}");
    assert!(scaler["decisions"][0].is_object(), "{scaler}");
}

#[tokio::test]
async fn a_corrected_password_of_a_registry_is_a_change() {
    let setup = Setup::memory().others(
        "[registries.r]\nserver = \"r.example\"\nusername = \"u\"\npassword_file = \"password\"\n\
         [endpoints.contained]\nimage = \"r.example/i:1\"\nregistry = \"r\"",
    );
    let password = setup.dir().join("password");
    std::fs::write(&password, "wrong").expect("a file can be written");
    let s = setup.start().await;
    let nothing = s.post("/admin/reload", "").await.ok();
    assert_eq!(nothing["changed"], json!([]));
    std::fs::write(&password, "right").expect("a file can be written");
    let reloaded = s.post("/admin/reload", "").await.ok();
    assert_eq!(reloaded["changed"], json!(["contained"]));
    // Workers that run pulled their image; there is nothing to replace.
    assert_eq!(reloaded["releases"], json!([]));
    s.stop().await;
}

#[tokio::test]
async fn results_of_an_endpoint_that_went_before_the_start_are_kept() {
    let setup = Setup::sqlite().keys().others("[endpoints.external]");
    let s = setup.start().await;
    let admin = s.key("admin", Access::Admin).await;
    let with = async |s: &TestServer, request: Request| {
        s.request(request.header("authorization", &admin)).await
    };
    let submitted = with(&s, Request::post("/v2/external/run", r#"{"input":1}"#)).await;
    let id = id_of(&submitted.ok());
    let endpoint = "external".parse().expect("a name");
    let token = s
        .app()
        .key
        .worker_token(&endpoint, &"w1".parse().expect("a name"));
    let taken = s.worker("w1").on("external").token(&token).take().await;
    assert_eq!(id_of(&taken), id);

    let s = s.stop().await.without("[endpoints.external]").start().await;
    let worker = s.worker("w1").on("external").token(&token);
    worker.ping(&[&id]).await;
    worker.done(&id, r#"{"output":"kept"}"#).await;
    let wrong = s.worker("w2").on("external").token(&token);
    let refused = wrong.post("job-done", &id, "{}").await;
    refused.error(401, "unauthorized");
    let job = id.parse().expect("the server made it");
    let kept = s.app().store.load(&endpoint, job, Parts::default()).await;
    let kept = kept.expect("the store answers").expect("it is there");
    assert_eq!(kept.job.status(), Status::Completed);
    s.stop().await;
}
