//! A job's storage credentials reach its worker, and nothing else ever.

use std::path::Path;

use serde_json::json;

use crate::receiver::Receiver;
use crate::server::TestServer;

on_each_store!(credentials_reach_the_worker_and_nothing_else);

const SECRET: &str = "s3cr3t-Access-Value";

fn holds_secret(bytes: &[u8]) -> bool {
    bytes
        .windows(SECRET.len())
        .any(|window| window == SECRET.as_bytes())
}

async fn credentials_reach_the_worker_and_nothing_else(s: &TestServer) {
    let config = format!(
        r#"{{ "accessId":"id","accessSecret":"{SECRET}","bucketName":"b","endpointUrl":"http://s3","more":[1]}}"#
    );
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let body = format!(r#"{{"input":{{"n":1}},"s3Config":{config},"webhook":"{url}"}}"#);
    let id = s.run(&body).await;
    let worker = s.worker("w1");
    let handout = format!(r#"{{"id":"{id}","input":{{"n":1}},"s3Config":{config}}}"#);
    let taken = worker.take_saying("job_in_progress=1").await;
    assert_eq!(taken.text(), handout);

    s.status(&id).await;
    worker.done(&id, r#"{"error":"no"}"#).await;
    let delivered = receiver.take(200).await;
    assert!(!holds_secret(delivered.body.to_string().as_bytes()));
    assert_eq!(delivered.body["input"], json!({"n": 1}));

    // As long as the job can be retried the worker needs it again.
    s.post(format!("/v2/ep/retry/{id}"), "").await.ok();
    let taken = worker.take_saying("job_in_progress=1").await;
    assert_eq!(taken.text(), handout);
    worker.done(&id, r#"{"output":1}"#).await;
    receiver.take(200).await;

    for target in [
        format!("/v2/ep/status/{id}"),
        format!("/v2/ep/status-sync/{id}"),
        format!("/v2/ep/stream/{id}"),
        "/v2/ep/requests".to_owned(),
        "/v2/ep/health".to_owned(),
    ] {
        s.get(target).await.ok();
    }
    // Nor does an error quote it.
    for broken in [
        body.replace("\"accessId\":\"id\",", ""),
        body.replace("\"bucketName\":\"b\"", "\"bucketName\":7"),
        body.replace(&config, &format!("\"{SECRET}\"")),
        body.replace(&config, &format!("[{SECRET:?}]")),
    ] {
        s.post("/v2/ep/run", broken)
            .await
            .error(400, "invalid_s3_config");
    }
    let with_secret = s
        .replies()
        .iter()
        .filter(|reply| holds_secret(&reply.body))
        .count();
    assert_eq!(with_secret, 2, "only in what the worker took");
    assert_not_on_disk(s.dir());
}

fn assert_not_on_disk(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("the data directory is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            assert_not_on_disk(&path);
        } else {
            let bytes = std::fs::read(&path).expect("its files can be read");
            assert!(!holds_secret(&bytes), "{} holds the secret", path.display());
        }
    }
}
