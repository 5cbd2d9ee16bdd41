//! Environments for workers that somebody else starts: who gets one, and what it is good for.

use lazyfox::fleet::Enlisted;
use lazyfox::providers::Release;
use lazyfox_store::Access;
use serde_json::Value;

use crate::http::Request;
use crate::server::{Setup, TestServer, id_of};

tests!(keys: crate::server::Setup::memory().keys();
    only_an_admin_gets_an_environment,
    a_worker_serves_with_what_its_environment_says,
    what_cannot_be_a_worker_is_refused_by_name,
);
tests!(elsewhere: super::elsewhere();
    an_environment_leads_to_where_workers_reach_the_server,
);
on_each_store!(our_own_worker_is_believed);

fn elsewhere() -> Setup {
    Setup::memory().server("worker_url = \"https://fox.test/lazy/\"")
}

async fn ask(s: &TestServer, key: &str, body: &str) -> Value {
    let request = Request::post("/v2/ep/worker-env", body).header("authorization", key);
    s.request(request).await.ok()
}

async fn only_an_admin_gets_an_environment(s: &TestServer) {
    let target = "/v2/ep/worker-env";
    s.post(target, "").await.error(401, "unauthorized");
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let key = s.key("client", access).await;
        let request = Request::post(target, "").header("authorization", &key);
        s.request(request).await.error(403, "forbidden");
    }
    let key = s.key("admin", Access::Admin).await;
    let unknown = Request::post("/v2/none/worker-env", "").header("authorization", &key);
    s.request(unknown).await.error(404, "endpoint_not_found");
    let [one, two] = [ask(s, &key, "").await, ask(s, &key, "{}").await];
    let name = one["worker"].as_str().expect("a name");
    assert_eq!(name.len(), 14, "{name}");
    assert_eq!(one["env"]["RUNPOD_POD_ID"], one["worker"]);
    assert_ne!(one["worker"], two["worker"]);
    assert_ne!(
        one["env"]["RUNPOD_AI_API_KEY"],
        two["env"]["RUNPOD_AI_API_KEY"]
    );
}

async fn a_worker_serves_with_what_its_environment_says(s: &TestServer) {
    let key = s.key("admin", Access::Admin).await;
    let made = ask(s, &key, r#"{"worker":"attic-1"}"#).await;
    assert_eq!(made["worker"], "attic-1");
    let token = made["env"]["RUNPOD_AI_API_KEY"].as_str().expect("a text");
    let worker = s.worker("attic-1").token(token);
    let submit = Request::post("/v2/ep/run", r#"{"input":1}"#).header("authorization", &key);
    let id = id_of(&s.request(submit).await.ok());
    assert_eq!(id_of(&worker.take().await), id);
    worker.done(&id, r#"{"output":2}"#).await;
    // It is no key, and another worker's name is not for it.
    let other = s.worker("attic-2").token(token);
    other.take_saying("").await.error(429, "worker_refused");
    let again = Request::post("/v2/ep/worker-env", "").header("authorization", token);
    s.request(again).await.error(401, "unauthorized");
}

async fn what_cannot_be_a_worker_is_refused_by_name(s: &TestServer) {
    let key = s.key("admin", Access::Admin).await;
    let endpoint = "ep".parse().expect("a name");
    s.app().fleet.enlist(Enlisted {
        worker: "wkours".parse().expect("a name"),
        endpoint,
        release: Release::default(),
        gpus: Vec::new(),
        started_at: s.app().now(),
        why: String::new(),
        preparing: false,
    });
    for (body, code, expected) in [
        (
            r#"{"worker":"a b"}"#,
            "invalid_worker",
            "worker is \"a b\": it must be 1 to 64",
        ),
        (r#"{"worker":""}"#, "invalid_worker", "worker is \"\""),
        (
            r#"{"worker":"wkours"}"#,
            "invalid_worker",
            "was started by this server",
        ),
        (
            r#"{"workerUrl":"fox:1"}"#,
            "invalid_worker",
            "workerUrl is \"fox:1\", it should be",
        ),
        (
            r#"{"workerUrl":"http://a/?x"}"#,
            "invalid_worker",
            "workerUrl is",
        ),
        (
            r#"{"worker":7}"#,
            "invalid_json",
            "\"worker\" and \"workerUrl\", both texts",
        ),
        (r#"{"name":"a"}"#, "invalid_json", "unknown field `name`"),
        (r#"["a","http://b"]"#, "invalid_json", "the body is a list"),
        ("{", "invalid_json", "EOF"),
    ] {
        let request = Request::post("/v2/ep/worker-env", body).header("authorization", &key);
        let error = s.request(request).await.error(400, code);
        assert!(error.contains(expected), "{body}: {error}");
    }
}

async fn an_environment_leads_to_where_workers_reach_the_server(s: &TestServer) {
    let take = |made: &Value| made["env"]["RUNPOD_WEBHOOK_GET_JOB"].clone();
    let made = s.post("/v2/ep/worker-env", r#"{"worker":"w"}"#).await.ok();
    assert_eq!(take(&made), "https://fox.test/lazy/v2/ep/job-take/w?gpu=");
    let body = r#"{"worker":"w","workerUrl":"http://10.0.0.5:8000/"}"#;
    let made = s.post("/v2/ep/worker-env", body).await.ok();
    assert_eq!(take(&made), "http://10.0.0.5:8000/v2/ep/job-take/w?gpu=");
}

/// `lazyfox worker` says who it is in its polls and its heartbeats, and the server acts on what it says.
async fn our_own_worker_is_believed(s: &TestServer) {
    let worker = s.worker("w").version(None);
    let poll = |query: &str| {
        let poll = worker.poll(query);
        poll.header("user-agent", "lazyfox-worker/0.1.0")
    };
    let [first, second] = [s.run(r#"{"input":1}"#).await, s.run(r#"{"input":2}"#).await];
    let jobs = s.request(poll("batch_size=2&job_in_progress=0")).await.ok();
    assert_eq!(jobs.as_array().map(Vec::len), Some(2));
    // A heartbeat renews what it names and nothing else.
    s.advance(30_000).await;
    let query = format!("job_id={second}&runpod_version=lazyfox-0.1.0");
    worker.ping_saying(&query).await.ok();
    s.advance(30_000).await;
    s.expect(&first, "IN_QUEUE").await;
    s.expect(&second, "IN_PROGRESS").await;
    // A poll that says idle gives the rest back.
    let parked = s.open(&poll("job_in_progress=0")).await;
    s.reaches(&second, "IN_QUEUE").await;
    drop(parked);
}
