//! Webhooks: what reaches the receiver, when, and what is kept of it.

mod again;
mod guard;
mod life;
mod listen;
mod others;
mod receivers;
mod schedule;
mod signed;
mod tls;

use serde_json::Value;

use crate::http::guarded;
use crate::server::TestServer;

/// Submits a job that a worker finishes with this report.
async fn finished(s: &TestServer, url: &str, report: &str) -> String {
    finished_on(s, "ep", url, report).await
}

async fn finished_on(s: &TestServer, endpoint: &'static str, url: &str, report: &str) -> String {
    let body = format!(r#"{{"input":{{"a": 1}},"webhook":"{url}"}}"#);
    let accepted = s.post(format!("/v2/{endpoint}/run"), body).await.ok();
    let id = crate::server::id_of(&accepted);
    let name = format!("w1-{endpoint}");
    let worker = s.worker(&name).on(endpoint);
    worker.take().await;
    s.advance(100).await;
    worker.done(&id, report).await;
    id
}

/// What is known of a job's deliveries, the newest first.
async fn deliveries(s: &TestServer, job: &str) -> Vec<Value> {
    let list = s.get(format!("/v2/ep/deliveries?job={job}")).await.ok();
    let deliveries = list["deliveries"].as_array();
    deliveries.expect("a list").clone()
}

/// Waits until a job's newest delivery has so many tries and this state, and returns it.
async fn reaches(s: &TestServer, job: &str, state: &str, tries: usize) -> Value {
    let mut last = Vec::new();
    guarded(&format!("{job} is {state} after {tries} tries"), async {
        loop {
            last = deliveries(s, job).await;
            if let Some(newest) = last.first()
                && newest["state"] == state
                && newest["tries"].as_array().map(Vec::len) == Some(tries)
            {
                return newest.clone();
            }
        }
    })
    .await
}

/// Whether nothing is under way and nothing is due: then nobody is called before the clock is moved.
async fn is_quiet(s: &TestServer) -> bool {
    let traffic = s.app().traffic().clone();
    let idle = traffic.under_way() == 0;
    let outbox = s.app().store.outbox(traffic, s.app().now()).await;
    idle && outbox.expect("the store answers").due.is_empty()
}

/// The error of the last try.
fn last_error(delivery: &Value) -> &str {
    let tries = delivery["tries"].as_array().expect("a list");
    let last = tries.last().expect("a try was made");
    last["error"].as_str().expect("it was no success")
}
