//! What bad input gets: a refusal that says what is wrong with what, and what would be right.

use crate::server::TestServer;

tests!(memory: crate::server::Setup::memory();
    bodies_that_are_no_submission,
    policies_that_cannot_be,
    webhooks_that_cannot_be,
    s3_configs_that_lack_something,
    queries_that_cannot_be,
    what_does_not_exist,
    what_python_cannot_decode_is_refused_at_the_edge,
);

/// Submits a body and checks that it is refused with this code and a message that names all of these.
async fn refused(s: &TestServer, body: impl AsRef<[u8]>, code: &str, named: &[&str]) {
    for call in ["run", "runsync"] {
        let reply = s.post(format!("/v2/ep/{call}"), &body).await;
        let message = reply.error(400, code);
        for part in named {
            let shown = String::from_utf8_lossy(body.as_ref());
            assert!(
                message.contains(part),
                "{part:?} is not in {message:?} for {shown:.200}"
            );
        }
        assert_eq!(reply.header("x-job-id"), None);
    }
    assert_eq!(s.get("/v2/ep/health").await.ok()["jobs"]["inQueue"], 0);
}

async fn bodies_that_are_no_submission(s: &TestServer) {
    refused(s, "", "invalid_json", &["empty", "object"]).await;
    refused(s, " \r\n\t", "invalid_json", &["empty"]).await;
    refused(
        s,
        "{\n  \"input\": ?\n}",
        "invalid_json",
        &["line 2", "column 12"],
    )
    .await;
    refused(
        s,
        "{\"input\":1",
        "invalid_json",
        &["EOF", "line 1", "column 10"],
    )
    .await;
    refused(
        s,
        "{\"input\":1} x",
        "invalid_json",
        &["line 1", "column 13"],
    )
    .await;
    refused(s, "{'input':1}", "invalid_json", &["line 1", "column 2"]).await;
    refused(s, "{\"input\":NaN}", "invalid_json", &["line 1"]).await;
    refused(s, "{\"input\":01}", "invalid_json", &["line 1"]).await;
    refused(s, "input=1", "invalid_json", &["line 1", "column 1"]).await;
    for other in ["[]", "[{\"input\":1}]", "null", "\"input\"", "7", "true"] {
        refused(s, other, "invalid_json", &["JSON object", "\"input\""]).await;
    }
    for missing in [
        "{}",
        "{\"Input\":1}",
        "{\"input\":null}",
        "{\"input\" : null , \"x\":1}",
    ] {
        refused(s, missing, "missing_input", &["input", "required", "null"]).await;
    }
    refused(
        s,
        "{\"input\":1,\"input\":2}",
        "invalid_json",
        &["duplicate", "`input`", "line 1"],
    )
    .await;
}

async fn policies_that_cannot_be(s: &TestServer) {
    let execution = "policy.executionTimeout";
    let ttl = "policy.ttl";
    let ranges = [("5000", "604800000"), ("10000", "604800000")];
    for (field, name, (min, max)) in [
        (execution, "executionTimeout", ranges[0]),
        (ttl, "ttl", ranges[1]),
    ] {
        for value in ["0", "-1", "4999", "604800001", "9223372036854775807"] {
            let body = format!(r#"{{"input":1,"policy":{{"{name}":{value}}}}}"#);
            refused(s, body, "invalid_policy", &[field, value, min, max]).await;
        }
        for value in [
            "\"60000\"",
            "true",
            "[]",
            "{}",
            "60000.5",
            "1e400",
            "-1e999",
        ] {
            let body = format!(r#"{{"input":1,"policy":{{"{name}":{value}}}}}"#);
            refused(s, body, "invalid_policy", &[field, value, "whole number"]).await;
        }
    }
    for value in ["1", "\"true\"", "[]", "{\"a\":1}"] {
        let body = format!(r#"{{"input":1,"policy":{{"lowPriority":{value}}}}}"#);
        let named = ["policy.lowPriority", value, "true or false"];
        refused(s, body, "invalid_policy", &named).await;
    }
    for value in ["7", "\"\"", "[1]", "true"] {
        let body = format!(r#"{{"input":1,"policy":{value}}}"#);
        refused(s, body, "invalid_policy", &["policy", value, "object"]).await;
    }
    // At the ends of the ranges, null for what is not said, whole numbers with a point, and keys
    // of a later version are all good.
    for policy in [
        r#"{"executionTimeout":5000,"ttl":10000,"lowPriority":false}"#,
        r#"{"executionTimeout":604800000,"ttl":604800000}"#,
        r#"{"executionTimeout":null,"ttl":null,"lowPriority":null}"#,
        r#"{"executionTimeout":6e4,"ttl":60000.0,"later":"\ud800"}"#,
        "{}",
        "null",
    ] {
        let id = s.run(format!(r#"{{"input":1,"policy":{policy}}}"#)).await;
        s.expect(&id, "IN_QUEUE").await;
    }
}

async fn webhooks_that_cannot_be(s: &TestServer) {
    for value in [
        "7",
        "{}",
        "[\"http://h/\"]",
        "\"\"",
        "\"example.com/hook\"",
        "\"/hook\"",
        "\"ftp://example.com/\"",
        "\"file:///etc/passwd\"",
        "\"http://\"",
        "\"javascript:alert(1)\"",
        "\"http://h:99999/\"",
    ] {
        for name in ["webhook", "webhookV2"] {
            let body = format!(r#"{{"input":1,"{name}":{value}}}"#);
            let named = ["webhook", value, "http or https URL"];
            refused(s, body, "invalid_webhook", &named).await;
        }
    }
    for url in ["http://user@h/", "http://user:pass@h/"] {
        let body = format!(r#"{{"input":1,"webhook":"{url}"}}"#);
        refused(s, body, "invalid_webhook", &["user name or password"]).await;
    }
    let long = format!("http://h/{}", "x".repeat(2048));
    let body = format!(r#"{{"input":1,"webhook":"{long}"}}"#);
    refused(s, body, "invalid_webhook", &["2057 bytes", "2048"]).await;
}

async fn s3_configs_that_lack_something(s: &TestServer) {
    let names = ["accessId", "accessSecret", "bucketName", "endpointUrl"];
    for lacking in names {
        let others = names.iter().filter(|name| **name != lacking);
        let fields: Vec<String> = others.map(|name| format!("\"{name}\":\"v\"")).collect();
        let fields = fields.join(",");
        for value in ["", ",\"X\":\"\"", ",\"X\":7", ",\"X\":null"] {
            let value = value.replace('X', lacking);
            let body = format!(r#"{{"input":1,"s3Config":{{{fields}{value}}}}}"#);
            let field = format!("s3Config.{lacking}");
            refused(s, body, "invalid_s3_config", &[&field]).await;
        }
    }
    for value in ["7", "\"x\"", "[]"] {
        let body = format!(r#"{{"input":1,"s3Config":{value}}}"#);
        refused(s, body, "invalid_s3_config", &["s3Config", "object"]).await;
    }
    let long = format!("{{\"accessId\":\"{}\"}}", "x".repeat(16 * 1024));
    let body = format!(r#"{{"input":1,"s3Config":{long}}}"#);
    refused(s, body, "invalid_s3_config", &["16399", "16384"]).await;
    // What else is in it is the worker's to read.
    let odd = r#"{"accessId":"i","accessSecret":"s","bucketName":"b","endpointUrl":"u","x":[1e400,"\ud800"]}"#;
    s.run(format!(r#"{{"input":1,"s3Config":{odd}}}"#)).await;
}

async fn queries_that_cannot_be(s: &TestServer) {
    for wait in ["", "soon", "NaN", "inf", "1s", "0x10", "%00", "1,000"] {
        for call in ["runsync", "status-sync/x", "stream/x"] {
            let reply = s
                .post(format!("/v2/ep/{call}?wait={wait}"), r#"{"input":1}"#)
                .await;
            // A job that cannot exist is told first, and that is as good.
            if reply.status != 404 {
                let message = reply.error(400, "invalid_query");
                for part in ["wait", "1000", "300000"] {
                    assert!(message.contains(part), "{call} {wait}: {message}");
                }
            }
        }
    }
    assert_eq!(s.get("/v2/ep/health").await.ok()["jobs"]["inQueue"], 0);
    let id = s.run(r#"{"input":1}"#).await;
    for call in ["status-sync", "stream"] {
        let reply = s.get(format!("/v2/ep/{call}/{id}?wait=soon")).await;
        let message = reply.error(400, "invalid_query");
        assert!(message.contains("\"soon\""), "{message}");
    }
    for (ttl, named) in [
        ("0", "604800000"),
        ("604800001", "604800000"),
        ("-1", "-1"),
        ("x", "x"),
    ] {
        let reply = s.get(format!("/v2/ep/status/{id}?ttl={ttl}")).await;
        let message = reply.error(400, "invalid_query");
        assert!(
            message.contains("ttl") && message.contains(named),
            "{message}"
        );
    }
    s.expect(&id, "IN_QUEUE").await;
}

async fn what_does_not_exist(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    let reserved = ["serverless", "templates", "pods", "flash", "openapi.json"];
    let strange = [
        "nothing", "EP", "%00", "ep%00", "ep%20", "%C3%A9", "..", "%2e%2e",
    ];
    for endpoint in reserved.iter().chain(&strange) {
        for call in ["run", "purge-queue"] {
            let reply = s
                .post(format!("/v2/{endpoint}/{call}"), r#"{"input":1}"#)
                .await;
            reply.error(404, "endpoint_not_found");
        }
        for call in [
            format!("status/{id}"),
            "health".to_owned(),
            "requests".to_owned(),
        ] {
            let reply = s.get(format!("/v2/{endpoint}/{call}")).await;
            reply.error(404, "endpoint_not_found");
        }
    }
    let upper = id.to_uppercase();
    let sync = format!("sync-{id}");
    for job in [
        "x",
        "%00",
        "00000000-0000-7000-8000-000000000000",
        &upper,
        &sync,
    ] {
        for call in ["status", "status-sync", "stream", "cancel", "retry"] {
            let reply = s.post(format!("/v2/ep/{call}/{job}"), "").await;
            reply.error(404, "job_not_found");
        }
    }
}

async fn what_python_cannot_decode_is_refused_at_the_edge(s: &TestServer) {
    let nested = |depth: usize| format!("{{\"input\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    for depth in [512, 10_000, 1_000_000] {
        let all = (depth + 1).to_string();
        refused(s, nested(depth), "invalid_json", &[&all, "512"]).await;
    }
    let open = format!("{{\"x\":{}", "[".repeat(10_000));
    refused(s, open, "invalid_json", &["10001"]).await;
    let not_text: [(&[u8], [&str; 3]); 7] = [
        (b"{\"input\":\n\"\xff\"}", ["UTF-8", "line 2", "column 2"]),
        (
            b"{\"input\":\"\xed\xa0\x80\"}",
            ["UTF-8", "line 1", "column 11"],
        ),
        (
            b"{\"input\":\"\0\"}",
            ["control character", "line 1", "column 10"],
        ),
        (b"\0", ["value", "line 1", "column 1"]),
        (b"{\"input\":1}\0", ["trailing", "line 1", "column 12"]),
        (
            b"\xef\xbb\xbf{\"input\":1}",
            ["value", "line 1", "column 1"],
        ),
        (b"{\"input\":\"\\ud80\"}", ["escape", "line 1", "column"]),
    ];
    for (body, named) in not_text {
        refused(s, body, "invalid_json", &named).await;
    }

    let deepest = s.run(nested(511)).await;
    assert_eq!(s.worker("w1").take_saying("").await.status, 200);
    s.worker("w1").done(&deepest, "{}").await;
    s.expect(&deepest, "COMPLETED").await;
}
