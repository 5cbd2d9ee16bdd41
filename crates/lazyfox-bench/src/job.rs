//! The calls of a job's life that every measurement makes.

use anyhow::Result;

use crate::http::{Connection, read_id};

/// The one endpoint of most measurements.
pub(crate) const ENDPOINT: &str = "bench";

/// What a worker reports: 70 bytes, a small answer.
pub(crate) const RESULT: &[u8] =
    br#"{"output":{"label":"red fox","score":0.937,"seconds":0.012,"ok":true}}"#;

/// Takes a job as this worker; polls on as long as the server has none.
pub(crate) async fn take(http: &mut Connection, worker: &str, id: &mut String) -> Result<()> {
    loop {
        http.get(format_args!(
            "/v2/{ENDPOINT}/job-take/{worker}?gpu=x&job_in_progress=0"
        ));
        let answer = http.exchange().await?;
        if answer.status == 204 {
            continue;
        }
        answer.ensure_ok()?;
        return read_id(answer.body, id);
    }
}

/// Reports a result as this worker.
pub(crate) async fn done(http: &mut Connection, worker: &str, id: &str) -> Result<()> {
    http.post(
        format_args!("/v2/{ENDPOINT}/job-done/{worker}/{id}?gpu=x&isStream=false"),
        RESULT,
    );
    http.expect_ok().await?;
    Ok(())
}

/// A submit whose input has about this many bytes.
pub(crate) fn submit_body(input_bytes: usize) -> Vec<u8> {
    let padding = "x".repeat(input_bytes.saturating_sub(r#"{"pad":""}"#.len()));
    format!(r#"{{"input":{{"pad":"{padding}"}}}}"#).into_bytes()
}

/// The same with a webhook.
pub(crate) fn submit_body_with_webhook(input_bytes: usize, url: &str) -> Vec<u8> {
    let mut body = submit_body(input_bytes);
    let closing = body.pop();
    body.extend_from_slice(format!(r#","webhook":"{url}""#).as_bytes());
    body.extend(closing);
    body
}
