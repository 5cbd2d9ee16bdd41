//! A worker whose heartbeats go on and which asks for nothing.

use serde_json::json;

use super::{completes, endpoint, nothing_is_left_of, noting, stopped, text};
use crate::sdk::LATEST;
use crate::server::Server;

/// It has a minute, since it may ask every 25 s only: the longest test of all.
#[test]
fn a_worker_that_asks_for_nothing_any_more_is_replaced() {
    let server = Server::start(&[endpoint(LATEST).env("CAN_BE_DEAF", "1")]);
    let deaf = server.run("fleet", &json!({"mode": "deaf"}));
    assert_eq!(deaf["status"], "COMPLETED", "{deaf}");
    let first = text(&deaf, "workerId").to_owned();
    let file = server.file("fleet", "runs");
    let job = server.submit("fleet", &noting(&file));
    let state = completes(&server, &job);
    assert_ne!(state["workerId"], first.as_str(), "{state}");
    let workers = server.workers("fleet");
    let why = text(&stopped(&workers)[0], "whyStopped");
    assert!(why.contains("it has no job and asks for none"), "{why}");
    nothing_is_left_of(&first);
}
