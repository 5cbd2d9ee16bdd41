//! A worker that does one job as it is told.

use serde_json::{Value, json};

use crate::http::request;
use crate::server::Home;

/// Waits for the endpoint's next job, streams these chunks and reports this end. Gives back the job.
pub(crate) fn work(home: &Home, name: &str, chunks: &[Value], end: &Value) -> Value {
    let call = |method: &str, target: &str, body: &str| {
        let answer = request(home.port(), method, &format!("/v2/fox/{target}"), &[], body);
        answer.expect("the server answers").json()
    };
    let job = call("GET", &format!("job-take/{name}?&job_in_progress=0"), "");
    let id = job["id"].as_str().expect("an id");
    for chunk in chunks {
        let body = json!({"output": chunk}).to_string();
        call(
            "POST",
            &format!("job-stream/{name}/{id}?&isStream=false"),
            &body,
        );
    }
    call(
        "POST",
        &format!("job-done/{name}/{id}?&isStream=false"),
        &end.to_string(),
    );
    job
}
