//! Who may do what: API keys, worker tokens, and nobody else anything.

use lazyfox::keyring;
use lazyfox_core::id::EndpointId;
use lazyfox_store::Access;

use crate::http::{Reply, Request};
use crate::server::{TestServer, id_of};

tests!(keys: crate::server::Setup::memory().keys();
    without_a_valid_key_nothing_answers,
    a_key_comes_bare_or_with_any_spelling_of_bearer,
    a_read_only_key_only_reads,
    a_key_for_one_endpoint_ends_there,
    worker_tokens_are_good_for_one_worker_of_one_endpoint,
    worker_tokens_are_no_keys_and_keys_no_tokens,
    strangers_cannot_make_a_worker_poll_in_a_hot_loop,
);

tests!(no_keys: crate::server::Setup::memory();
    without_keys_web_pages_of_other_sites_are_refused,
    without_keys_the_names_of_this_machine_are_good,
    without_keys_a_request_without_a_host_is_good,
);

tests!(no_keys_with_a_name: crate::server::Setup::memory().server("worker_url = \"http://fox.test:80\"");
    without_keys_the_name_that_workers_use_is_good,
);

tests!(keys_on_disk: crate::server::Setup::sqlite().keys();
    a_revoked_key_is_refused_within_two_seconds,
    a_clock_that_is_set_back_keeps_no_revoked_key_alive,
);

/// Makes a key and returns its text and its id.
async fn key(s: &TestServer, access: Access, endpoints: Option<&[&str]>) -> (String, String) {
    let endpoints = endpoints.map(|names| {
        let ids = names.iter().map(|name| name.parse().expect("a name"));
        ids.collect::<Vec<EndpointId>>()
    });
    let (text, key) = keyring::make("a test", access, endpoints, s.app().now());
    let id = key.id.clone();
    s.app().store.add_key(key).await.expect("the store answers");
    (text, id)
}

fn token(s: &TestServer, endpoint: &str, worker: &str) -> String {
    let (endpoint, worker) = (
        endpoint.parse().expect("a name"),
        worker.parse().expect("a name"),
    );
    s.app().key.worker_token(&endpoint, &worker)
}

async fn with(s: &TestServer, key: &str, request: Request) -> Reply {
    s.request(request.header("authorization", key)).await
}

fn submit() -> Request {
    Request::post("/v2/ep/run", r#"{"input":1}"#)
}

/// Every call of a client, and whether it changes something.
fn calls(endpoint: &str, job: &str) -> Vec<(Request, bool)> {
    let at = |call: &str| format!("/v2/{endpoint}/{call}");
    vec![
        (Request::get(at(&format!("status/{job}"))), false),
        (Request::post(at(&format!("status-sync/{job}")), ""), false),
        (Request::get(at(&format!("stream/{job}"))), false),
        (Request::get(at("health")), false),
        (Request::get(at("requests")), false),
        (Request::get(at(&format!("status/{job}?ttl=60000"))), true),
        (Request::post(at("run"), r#"{"input":1}"#), true),
        (Request::post(at("runsync?wait=1000"), ""), true),
        (Request::post(at(&format!("cancel/{job}")), ""), true),
        (Request::post(at(&format!("retry/{job}")), ""), true),
        (Request::post(at("purge-queue"), ""), true),
    ]
}

/// A job that has ended, so that no call waits for it.
async fn ended_job(s: &TestServer, key: &str) -> String {
    let id = id_of(&with(s, key, submit()).await.ok());
    with(s, key, Request::post(format!("/v2/ep/cancel/{id}"), ""))
        .await
        .ok();
    id
}

async fn without_a_valid_key_nothing_answers(s: &TestServer) {
    let (admin, _) = key(s, Access::Admin, None).await;
    let job = ended_job(s, &admin).await;
    let mut requests = calls("ep", &job);
    requests.extend(calls("no-such-endpoint", &job));
    for target in [
        "/",
        "/v2",
        "/v2/ep/nothing",
        "/metrics",
        "/v2/serverless",
        "/graphql",
    ] {
        // Not even the difference between a route and none shows.
        requests.push((Request::get(target), false));
    }
    requests.push((Request::new("DELETE", "/v2/ep/run"), true));
    for (request, _) in requests {
        let mut wrong = vec![None];
        wrong.extend(["", "Bearer", "Bearer ", "lfx_wrong", "Bearer lfx_wrong"].map(Some));
        wrong.push(Some(&admin[..admin.len() - 1]));
        for key in wrong {
            let reply = match key {
                Some(key) => with(s, key, request.clone()).await,
                None => s.request(request.clone()).await,
            };
            reply.error(401, "unauthorized");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
    for target in ["/healthz", "/readyz"] {
        s.get(target).await.ok();
    }
    with(s, &admin, Request::get("/v2/ep/nothing"))
        .await
        .error(404, "route_not_found");
}

async fn a_key_comes_bare_or_with_any_spelling_of_bearer(s: &TestServer) {
    let (admin, _) = key(s, Access::Admin, None).await;
    for prefix in ["", "Bearer ", "bearer ", "BEARER ", "bEaReR   "] {
        for name in ["Authorization", "authorization", "AUTHORIZATION"] {
            let request = submit().header(name, &format!("{prefix}{admin}"));
            assert_eq!(
                s.request(request).await.ok()["status"],
                "IN_QUEUE",
                "{name}: {prefix}"
            );
        }
    }
    for wrong in [
        format!("Basic {admin}"),
        format!("Bearer{admin}"),
        admin.to_uppercase(),
    ] {
        with(s, &wrong, submit()).await.error(401, "unauthorized");
    }
}

async fn a_read_only_key_only_reads(s: &TestServer) {
    let (admin, _) = key(s, Access::Admin, None).await;
    let (reader, id) = key(s, Access::ReadOnly, None).await;
    let job = ended_job(s, &admin).await;
    for (request, changes) in calls("ep", &job) {
        let reply = with(s, &reader, request.clone()).await;
        if changes {
            let message = reply.error(403, "forbidden");
            assert!(
                message.contains(&id) && message.contains("change"),
                "{message}"
            );
        } else {
            reply.ok();
        }
    }
    with(s, &reader, Request::post("/v2/nothing/run", ""))
        .await
        .error(404, "endpoint_not_found");
}

async fn a_key_for_one_endpoint_ends_there(s: &TestServer) {
    let (admin, _) = key(s, Access::Admin, None).await;
    let job = ended_job(s, &admin).await;
    let (here, _) = key(s, Access::ReadWrite, Some(&["ep", "endp01"])).await;
    let (there, _) = key(s, Access::ReadWrite, Some(&["other"])).await;
    let (nowhere, _) = key(s, Access::ReadWrite, Some(&[])).await;
    with(s, &here, submit()).await.ok();
    for (request, _) in calls("ep", &job) {
        assert_ne!(with(s, &here, request.clone()).await.status, 403);
        for key in [&there, &nowhere] {
            with(s, key, request.clone()).await.error(403, "forbidden");
        }
    }
    // A job is not found through another endpoint, even by who may use both.
    let elsewhere = Request::get(format!("/v2/other/status/{job}"));
    with(s, &admin, elsewhere).await.error(404, "job_not_found");
}

async fn a_revoked_key_is_refused_within_two_seconds(s: &TestServer) {
    let (text, id) = key(s, Access::ReadWrite, None).await;
    let (other, _) = key(s, Access::ReadWrite, None).await;
    with(s, &text, submit()).await.ok();
    // As the command line does it, beside the server.
    let store = &s.app().store;
    assert!(
        store
            .revoke_key(&id, s.app().now())
            .await
            .expect("the store answers")
    );
    s.advance(1_999).await;
    with(s, &text, submit()).await.ok();
    s.advance(1).await;
    with(s, &text, submit()).await.error(401, "unauthorized");
    with(s, &other, submit()).await.ok();
}

/// What a browser says in a page of another site, or of one whose name was bound to this machine.
const FOREIGN: [(&str, &str); 10] = [
    ("origin", "https://evil.example"),
    ("origin", "null"),
    ("origin", "http://localhost.evil.example"),
    ("origin", "http://192.168.1.7:8000"),
    ("host", "evil.example"),
    ("host", "evil.example:8000"),
    ("host", "localhost.evil.example"),
    ("host", "0.0.0.0:8000"),
    ("host", "[::2]:8000"),
    ("host", ""),
];

async fn without_keys_web_pages_of_other_sites_are_refused(s: &TestServer) {
    let id = id_of(&s.request(submit()).await.ok());
    for (name, value) in FOREIGN {
        let mut requests = calls("ep", &id);
        requests.push((Request::get("/v2/ep/nothing"), false));
        requests.push((Request::get("/v2/ep/ping/w1"), false));
        requests.push((
            Request::post(format!("/v2/ep/job-done/w1/{id}"), "{}"),
            true,
        ));
        for (request, _) in requests {
            let reply = s.request(request.header(name, value)).await;
            let message = reply.error(403, "forbidden");
            assert!(message.contains("auth = \"keys\""), "{message}");
        }
        for poll in ["job-take/w1", "job-take-batch/w1", "job-stop/w1"] {
            let request = Request::get(format!("/v2/ep/{poll}")).header(name, value);
            s.request(request).await.error(429, "worker_refused");
        }
    }
    s.expect(&id, "IN_QUEUE").await;
}

async fn without_keys_the_names_of_this_machine_are_good(s: &TestServer) {
    for host in [
        "localhost",
        "LocalHost:8000",
        "fox.localhost:8000",
        "127.0.0.1:8000",
        "127.9.9.9",
        "[::1]:8000",
    ] {
        s.request(submit().header("host", host)).await.ok();
        let origin = format!("http://{host}");
        s.request(submit().header("origin", &origin)).await.ok();
    }
}

async fn without_keys_a_request_without_a_host_is_good(s: &TestServer) {
    let mut connection = s.connect().await;
    connection
        .write(b"GET /v2/ep/health HTTP/1.0\r\n\r\n")
        .await;
    connection.reply().await.ok();
}

async fn without_keys_the_name_that_workers_use_is_good(s: &TestServer) {
    let named = |request: Request| request.header("host", "fox.test");
    let id = id_of(&s.request(named(submit())).await.ok());
    let taken = s.request(named(Request::get("/v2/ep/job-take/w1"))).await;
    assert_eq!(id_of(&taken.ok()), id);
    let page = submit().header("origin", "http://fox.test");
    s.request(page).await.error(403, "forbidden");
}

async fn a_clock_that_is_set_back_keeps_no_revoked_key_alive(s: &TestServer) {
    let (text, id) = key(s, Access::ReadWrite, None).await;
    with(s, &text, submit()).await.ok();
    let store = &s.app().store;
    let revoked = store.revoke_key(&id, s.app().now()).await;
    assert!(revoked.expect("the store answers"));
    s.set_back(1);
    with(s, &text, submit()).await.error(401, "unauthorized");
}

async fn worker_tokens_are_good_for_one_worker_of_one_endpoint(s: &TestServer) {
    let (admin, _) = key(s, Access::Admin, None).await;
    let own = token(s, "ep", "w1");
    let id = id_of(&with(s, &admin, submit()).await.ok());
    for wrong in [
        token(s, "ep", "w2"),
        token(s, "other", "w1"),
        own[..own.len() - 2].to_owned(),
    ] {
        let worker = s.worker("w1").token(&wrong);
        let reply = worker.take_saying("job_in_progress=0").await;
        let message = reply.error(429, "worker_refused");
        assert!(message.contains("RUNPOD_AI_API_KEY"), "{message}");
        worker
            .post("job-done", &id, "{}")
            .await
            .error(401, "unauthorized");
        worker
            .post("job-stream", &id, "{}")
            .await
            .error(401, "unauthorized");
        worker.ping_saying("").await.error(401, "unauthorized");
    }
    for prefix in ["", "Bearer "] {
        let worker = s.worker("w1").token(&format!("{prefix}{own}"));
        assert_eq!(id_of(&worker.take().await), id);
        worker.ping(&[&id]).await;
        worker.chunk(&id, r#"{"output":1}"#).await;
        worker.done(&id, r#"{"error":"again"}"#).await;
        with(s, &admin, Request::post(format!("/v2/ep/retry/{id}"), ""))
            .await
            .ok();
    }
    // The same worker of another endpoint is another worker.
    let elsewhere = Request::get("/v2/other/job-take/w1?job_in_progress=0");
    with(s, &own, elsewhere).await.error(429, "worker_refused");
}

async fn worker_tokens_are_no_keys_and_keys_no_tokens(s: &TestServer) {
    let (admin, _) = key(s, Access::Admin, None).await;
    let own = token(s, "ep", "w1");
    let job = ended_job(s, &admin).await;
    for (request, _) in calls("ep", &job) {
        with(s, &own, request).await.error(401, "unauthorized");
    }
    let worker = s.worker("w1").token(&admin);
    worker
        .take_saying("job_in_progress=0")
        .await
        .error(429, "worker_refused");
    worker
        .post("job-done", &job, "{}")
        .await
        .error(401, "unauthorized");
    worker.ping_saying("").await.error(401, "unauthorized");
}

async fn strangers_cannot_make_a_worker_poll_in_a_hot_loop(s: &TestServer) {
    let own = token(s, "ep", "w1");
    let polls = [
        "job-take/w1",
        "job-take-batch/w1",
        "job-stop/w1",
        "job-take/w%201",
    ];
    for (key, endpoint) in [
        ("", "ep"),
        ("wrong", "ep"),
        (&own, "other"),
        (&own, "nothing"),
    ] {
        for poll in polls {
            let target = format!("/v2/{endpoint}/{poll}?batch_size=2&job_in_progress=0");
            let reply = with(s, key, Request::get(target)).await;
            // The SDK pauses for 5 s after this status and after no other.
            reply.error(429, "worker_refused");
            assert_eq!(reply.header("retry-after"), Some("5"));
        }
    }
}
