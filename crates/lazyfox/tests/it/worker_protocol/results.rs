//! Results: taken in any dress, never refused, and only from who holds the job.

use serde_json::{Value, json};

use crate::http::{Reply, Request};
use crate::server::{Setup, TestServer, id_of};

on_each_store!(
    point_05_each_result_of_a_handler_ends_its_job_as_it_should,
    point_05_a_result_that_is_no_json_fails_the_job_with_the_reason,
    point_05_only_the_holder_ends_a_job_and_only_once,
    point_05_what_comes_after_the_end_changes_nothing,
);

tests!(in_memory: crate::server::Setup::memory();
    point_05_content_types_do_not_matter,
    point_05_a_result_of_20_mib_passes,
);

tests!(small: super::small();
    point_05_a_result_that_is_too_large_fails_the_job_and_is_answered_200,
);

pub(super) fn small() -> Setup {
    Setup::memory().server("result_bytes = 65536")
}

/// A running job of this worker.
pub(super) async fn running(s: &TestServer, name: &str) -> String {
    let id = s.run(r#"{"input":1}"#).await;
    assert_eq!(id_of(&s.worker(name).take().await), id);
    id
}

async fn point_05_each_result_of_a_handler_ends_its_job_as_it_should(s: &TestServer) {
    let traceback = json!({"error_type": "<class 'ValueError'>"}).to_string();
    let packed = json!({"error": traceback}).to_string();
    let none = Value::Null;
    for (body, output, error) in [
        (
            r#"{"output": {"echo": 1}}"#,
            Some(json!({"echo": 1})),
            &none,
        ),
        (r#"{"output": [1,2]}"#, Some(json!([1, 2])), &none),
        (
            "{\"output\": \"héllo ☃ 😀\"}",
            Some(json!("héllo ☃ 😀")),
            &none,
        ),
        (r#"{"output": true}"#, Some(json!(true)), &none),
        (r#"{"output": null}"#, Some(json!(null)), &none),
        ("{}", None, &none),
        (r#"{"output": []}"#, Some(json!([])), &none),
        (r#"{"output": 1, "error": null}"#, Some(json!(1)), &none),
        (
            r#"{"output": {"v": NaN, "i": [Infinity, -Infinity], "s": "NaN"}}"#,
            Some(json!({"v": null, "i": [null, null], "s": "NaN"})),
            &none,
        ),
        (
            r#"{"status": "COMPLETED", "output": 1}"#,
            Some(json!(1)),
            &none,
        ),
        (r#"{"extra": [1], "output": 1}"#, Some(json!(1)), &none),
        (r#"{"output": 1, "stopPod": null}"#, Some(json!(1)), &none),
        (r#"{"output": 1, "stopPod": "no"}"#, Some(json!(1)), &none),
        (r#"{"output": 1, "status": 5}"#, Some(json!(1)), &none),
        (
            r#"{"output": 1, "status": "a\u0041"}"#,
            Some(json!(1)),
            &none,
        ),
        (
            r#"{"output": {"partial": 1}, "error": "soft"}"#,
            Some(json!({"partial": 1})),
            &json!("soft"),
        ),
        (&packed, None, &json!(traceback)),
        (r#"{"error": ""}"#, None, &json!("")),
        (r#"{"error": {"code": 7}}"#, None, &json!("{\"code\": 7}")),
        (r#"{"error": [1, "x"]}"#, None, &json!("[1, \"x\"]")),
        (r#"{"error": 7.50}"#, None, &json!("7.50")),
        (r#"{"error": true}"#, None, &json!("true")),
        (r#"{"error": false}"#, None, &json!("false")),
        (r#"{"error": NaN}"#, None, &none),
    ] {
        let id = running(s, "w1").await;
        s.worker("w1").done(&id, body).await;
        let status = if error.is_null() {
            "COMPLETED"
        } else {
            "FAILED"
        };
        let job = s.expect(&id, status).await;
        assert_eq!(job.get("output"), output.as_ref(), "{body}");
        assert_eq!(job.get("error").unwrap_or(&none), error, "{body}");
    }
}

async fn point_05_a_result_that_is_no_json_fails_the_job_with_the_reason(s: &TestServer) {
    let bodies: [&[u8]; 10] = [
        b"",
        b"output",
        b"{\"output\": ",
        b"{\"output\": 1} x",
        b"{\"output\": \"\xff\"}",
        b"{\"output\": tru}",
        b"[]",
        b"[{\"x\":1}, null, null, false]",
        b"\"output\"",
        b"null",
    ];
    for body in bodies {
        let id = running(s, "w1").await;
        s.worker("w1").done(&id, body).await;
        let error = s.expect(&id, "FAILED").await["error"].clone();
        let error = error.as_str().expect("a string").to_owned();
        assert!(error.starts_with("the worker's result is not"), "{error}");
    }
}

async fn point_05_content_types_do_not_matter(s: &TestServer) {
    let worker = s.worker("w1");
    for content_type in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "image/png",
        "",
        "no/such; x",
    ] {
        let id = running(s, "w1").await;
        let target = format!("{}/{id}?isStream=true", worker.path("job-done"));
        // A stale request id of an earlier job is what the SDK sends too.
        let request = Request::post(target, r#"{"output":1}"#)
            .header("content-type", content_type)
            .header("x-request-id", "another-job");
        assert_eq!(s.request(request).await.status, 200);
        assert_eq!(
            s.expect(&id, "COMPLETED").await["output"],
            1,
            "{content_type}"
        );
    }
}

async fn point_05_a_result_of_20_mib_passes(s: &TestServer) {
    let limit = 20 * 1024 * 1024;
    let id = running(s, "w1").await;
    let output = format!("\"{}\"", "x".repeat(limit - 2));
    s.worker("w1")
        .done(&id, format!("{{\"output\": {output}}}"))
        .await;
    let status = s.get(format!("/v2/ep/status/{id}")).await;
    assert!(status.text().contains(&output), "another output is kept");

    let id = running(s, "w1").await;
    let output = format!("\"{}\"", "x".repeat(limit - 1));
    s.worker("w1")
        .done(&id, format!("{{\"output\": {output}}}"))
        .await;
    let job = s.expect(&id, "FAILED").await;
    assert_eq!(
        job["error"],
        "output of 20971521 bytes exceeds the limit of 20971520 bytes"
    );
}

async fn done_in_chunks(s: &TestServer, id: &str, body: &str) -> Reply {
    let path = s.worker("w1").path("job-done");
    let mut text = format!(
        "POST {path}/{id} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for piece in body.as_bytes().chunks(60_000) {
        let piece = std::str::from_utf8(piece).expect("the test sends ASCII");
        text.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    text.push_str("0\r\n\r\n");
    let mut connection = s.connect().await;
    connection.write(text.as_bytes()).await;
    connection.reply().await
}

async fn point_05_a_result_that_is_too_large_fails_the_job_and_is_answered_200(s: &TestServer) {
    const LIMIT: usize = 65_536;
    // Just over, and so far over that it is not even read whole.
    for bytes in [LIMIT + 1, LIMIT + 1024 * 1024 + 1, 40 * LIMIT] {
        for in_chunks in [false, true] {
            let id = running(s, "w1").await;
            let body = format!("{{\"output\":\"{}\"}}", "x".repeat(bytes - 2));
            if in_chunks {
                assert_eq!(done_in_chunks(s, &id, &body).await.status, 200);
            } else {
                s.worker("w1").done(&id, &body).await;
            }
            let job = s.expect(&id, "FAILED").await;
            let error = job["error"].as_str().expect("a string").to_owned();
            assert!(
                error.contains("exceeds the limit of 65536 bytes"),
                "{error}"
            );
            assert_eq!(job.get("output"), None);
        }
    }
    let id = running(s, "w1").await;
    let body = format!("{{\"output\":\"{}\"}}", "x".repeat(LIMIT - 2));
    assert_eq!(done_in_chunks(s, &id, &body).await.status, 200);
    s.expect(&id, "COMPLETED").await;
}

async fn point_05_only_the_holder_ends_a_job_and_only_once(s: &TestServer) {
    let id = running(s, "w1").await;
    for (name, job) in [
        ("w2", id.as_str()),
        ("w1", "no-such-job"),
        ("w1", "%00"),
        ("w2", "x"),
    ] {
        for report in [
            r#"{"output":"foreign"}"#,
            r#"{"error":"foreign"}"#,
            "not JSON",
        ] {
            s.worker(name).done(job, report).await;
        }
    }
    s.worker("w1")
        .on("other")
        .done(&id, r#"{"output":"elsewhere"}"#)
        .await;
    let job = s.expect(&id, "IN_PROGRESS").await;
    assert_eq!(job.get("output"), None);

    s.worker("w1").done(&id, r#"{"output":"first"}"#).await;
    let ended = s.expect(&id, "COMPLETED").await;
    s.advance(5).await;
    for report in [
        r#"{"output":"first"}"#,
        r#"{"output":"second"}"#,
        r#"{"error":"e"}"#,
        "{}",
    ] {
        s.worker("w1").done(&id, report).await;
        assert_eq!(s.status(&id).await, ended, "{report}");
    }
    let completed = s.get("/v2/ep/health").await.ok()["jobs"]["completed"].clone();
    assert_eq!(completed, 1);
    // A job that waits is nobody's to end.
    let waiting = s.run(r#"{"input":1}"#).await;
    s.worker("w1").done(&waiting, r#"{"output":1}"#).await;
    s.expect(&waiting, "IN_QUEUE").await;
}

async fn point_05_what_comes_after_the_end_changes_nothing(s: &TestServer) {
    for (how, name) in [("CANCELLED", "w1"), ("TIMED_OUT", "w2"), ("FAILED", "w3")] {
        let id = running(s, name).await;
        let worker = s.worker(name);
        match how {
            "CANCELLED" => drop(s.post(format!("/v2/ep/cancel/{id}"), "").await.ok()),
            "TIMED_OUT" => {
                s.get(format!("/v2/ep/status/{id}?ttl=1000")).await.ok();
                s.advance(1_000).await;
            }
            _ => worker.done(&id, r#"{"error":"own"}"#).await,
        }
        let ended = s.expect(&id, how).await;
        s.advance(5).await;
        for late in [
            r#"{"output":"late"}"#,
            r#"{"error":"late"}"#,
            r#"{"status":"IN_PROGRESS","output":"late"}"#,
            "{}",
        ] {
            worker.done(&id, late).await;
            assert_eq!(s.status(&id).await, ended, "{how}: {late}");
        }
    }
}
