//! Endpoints share the GPUs of the machine.

use serde_json::json;

use super::{names, submit, until_workers};
use crate::server::{Setup, TestServer};

tests!(two_gpus: super::on_two_gpus();
    endpoints_share_the_gpus,
    an_idle_worker_gives_way_to_an_endpoint_that_needs_its_gpu,
    nobody_gives_way_to_an_endpoint_that_can_never_fit,
    an_endpoint_that_can_never_fit_is_in_nobodys_way,
);

pub(super) fn on_two_gpus() -> Setup {
    Setup::memory().server("gpus = [\"0\", \"1\"]").others(
        "[endpoints.a]\ncommand = [\"sleep\", \"600\"]\ngpus = 1\nworkers_max = 3\nidle_timeout_s = 600\n\
         scaler = \"REQUEST_COUNT\"\nscaler_value = 1\n\
         [endpoints.b]\ncommand = [\"sleep\", \"600\"]\ngpus = 1\n",
    )
}

async fn endpoints_share_the_gpus(s: &TestServer) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(submit(s, "a").await);
    }
    let workers = until_workers(s, "a", |it| it["summary"]["total"] == 2).await;
    let all = workers["workers"].as_array().expect("a list");
    let mut gpus: Vec<_> = all.iter().map(|it| it["gpus"][0].to_string()).collect();
    gpus.sort();
    assert_eq!(gpus, ["\"0\"", "\"1\""]);
    assert_eq!(workers["summary"]["throttled"], 1);
    let health = s.get("/v2/a/health").await.ok();
    assert_eq!(health["workers"]["throttled"], 1);
    let id = submit(s, "b").await;
    until_workers(s, "b", |it| it["summary"]["throttled"] == 1).await;
    let told = s.get(format!("/v2/b/why/{id}")).await.ok();
    assert_eq!(told["code"], "no_gpu");
}

async fn an_idle_worker_gives_way_to_an_endpoint_that_needs_its_gpu(s: &TestServer) {
    let ids = [submit(s, "a").await, submit(s, "a").await];
    let workers = until_workers(s, "a", |it| it["summary"]["total"] == 2).await;
    for (name, id) in names(&workers).iter().zip(&ids) {
        let worker = s.worker(name).on("a");
        worker.take_saying("job_in_progress=1").await.ok();
        worker.done(id, r#"{"output":1}"#).await;
    }
    submit(s, "b").await;
    until_workers(s, "b", |it| it["summary"]["total"] == 1).await;
    let gone = until_workers(s, "a", |it| it["stopped"][0].is_object()).await;
    let why = gone["stopped"][0]["whyStopped"].as_str().expect("a reason");
    assert!(why.contains("b needs its GPUs"), "{why}");
    assert_eq!(gone["summary"]["total"], 1);
}

async fn nobody_gives_way_to_an_endpoint_that_can_never_fit(s: &TestServer) {
    s.reconfigure(
        "[endpoints.b]\ncommand = [\"sleep\", \"600\"]\ngpus = 1",
        "[endpoints.b]\ncommand = [\"sleep\", \"600\"]\ngpus = 3",
    )
    .await
    .ok();
    let id = submit(s, "a").await;
    let workers = until_workers(s, "a", |it| it["summary"]["total"] == 1).await;
    let worker = s.worker(&names(&workers)[0]).on("a");
    worker.take().await;
    worker.done(&id, r#"{"output":1}"#).await;
    submit(s, "b").await;
    until_workers(s, "b", |it| it["summary"]["throttled"] == 1).await;
    s.advance(1_000).await;
    let a = until_workers(s, "a", |it| it["summary"]["idle"] == 1).await;
    assert_eq!(a["stopped"], json!([]));
}

async fn an_endpoint_that_can_never_fit_is_in_nobodys_way(s: &TestServer) {
    s.reconfigure(
        "[endpoints.b]\ncommand = [\"sleep\", \"600\"]\ngpus = 1",
        "[endpoints.b]\ncommand = [\"sleep\", \"600\"]\ngpus = 1\n\
         [endpoints.a-huge]\ncommand = [\"sleep\", \"600\"]\ngpus = 3",
    )
    .await
    .ok();
    submit(s, "a-huge").await;
    until_workers(s, "a-huge", |it| it["summary"]["throttled"] == 1).await;
    let ids = [submit(s, "a").await, submit(s, "a").await];
    let workers = until_workers(s, "a", |it| it["summary"]["total"] == 2).await;
    for (name, id) in names(&workers).iter().zip(&ids) {
        let worker = s.worker(name).on("a");
        worker.take_saying("job_in_progress=1").await.ok();
        worker.done(id, r#"{"output":1}"#).await;
    }
    submit(s, "b").await;
    until_workers(s, "b", |it| it["summary"]["total"] == 1).await;
}
