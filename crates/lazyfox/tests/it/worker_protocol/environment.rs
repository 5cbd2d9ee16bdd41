//! What a worker is started with leads it to this server, and lets it in.

use std::collections::BTreeMap;

use lazyfox::worker_env;

use crate::http::Request;
use crate::server::{TestServer, id_of};

tests!(keys: crate::server::Setup::memory().keys();
    point_17_the_environment_of_a_worker_is_all_it_needs,
);

async fn point_17_the_environment_of_a_worker_is_all_it_needs(s: &TestServer) {
    let endpoint = "ep".parse().expect("a name");
    let worker = "wk1".parse().expect("a name");
    let settings = s.app().endpoint(&endpoint).expect("it is configured");
    let env = worker_env::variables(s.app(), &endpoint, &settings, &worker);
    let env: BTreeMap<String, String> = env.into_iter().collect();

    let base = s.app().worker_url.clone();
    // Some versions put in the job's id and nothing else, and all append `&…` blindly.
    for (name, path) in [
        ("RUNPOD_WEBHOOK_GET_JOB", "/v2/ep/job-take/wk1?"),
        ("RUNPOD_WEBHOOK_POST_OUTPUT", "/v2/ep/job-done/wk1/$ID?"),
        ("RUNPOD_WEBHOOK_POST_STREAM", "/v2/ep/job-stream/wk1/$ID?"),
        ("RUNPOD_WEBHOOK_PING", "/v2/ep/ping/wk1?"),
    ] {
        assert!(
            env[name].starts_with(&format!("{base}{path}")),
            "{name}={}",
            env[name]
        );
    }
    assert_eq!(env["RUNPOD_POD_ID"], "wk1");
    assert_eq!(env["RUNPOD_ENDPOINT_ID"], "ep");
    assert!(!env["RUNPOD_POD_HOSTNAME"].is_empty());
    // Below 1000 ms the process that pings ends at once.
    let interval_ms: u32 = env["RUNPOD_PING_INTERVAL"].parse().expect("milliseconds");
    assert!((1_000..=10_000).contains(&interval_ms), "{interval_ms}");
    for name in [
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS",
        "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS",
    ] {
        assert_eq!(env[name], "true", "{name}");
    }

    let (key, made) =
        lazyfox::keyring::make("a test", lazyfox_store::Access::Admin, None, s.app().now());
    s.app()
        .store
        .add_key(made)
        .await
        .expect("the store answers");
    let submit = Request::post("/v2/ep/run", r#"{"input":1}"#).header("authorization", &key);
    let id = id_of(&s.request(submit).await.ok());

    // What the SDK makes of it: the key goes bare, the job's id into the URL.
    let token = &env["RUNPOD_AI_API_KEY"];
    let at = |name: &str, more: &str| {
        let url = env[name].replace("$ID", &id);
        format!(
            "{}{more}",
            url.strip_prefix(&base).expect("it is this server's")
        )
    };
    let signed = |request: Request| s.request(request.header("authorization", token));
    let take = at("RUNPOD_WEBHOOK_GET_JOB", "&job_in_progress=0");
    assert_eq!(id_of(&signed(Request::get(take)).await.ok()), id);
    let ping = at(
        "RUNPOD_WEBHOOK_PING",
        &format!("&job_id={id}&runpod_version=1.12.0"),
    );
    signed(Request::get(ping)).await.ok();
    for name in ["RUNPOD_WEBHOOK_POST_STREAM", "RUNPOD_WEBHOOK_POST_OUTPUT"] {
        let post = Request::post(at(name, "&isStream=false"), r#"{"output":"done"}"#);
        signed(post).await.ok();
    }
    let status = Request::get(format!("/v2/ep/status/{id}")).header("authorization", &key);
    assert_eq!(s.request(status).await.ok()["output"], "done");
}
