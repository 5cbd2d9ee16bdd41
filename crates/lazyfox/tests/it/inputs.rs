//! Inputs reach the worker byte for byte.

use crate::http::Request;
use crate::server::{TestServer, id_of};

on_each_store!(
    inputs_arrive_byte_for_byte,
    a_body_of_just_the_limit_arrives_whole,
    outputs_are_answered_byte_for_byte,
);

/// JSON that parsers and printers like to change.
const ODD: [&str; 24] = [
    "{}",
    "[]",
    "\"\"",
    "0",
    "false",
    "-0",
    "{ \"b\" : 1 ,\r\n\t\"a\":[ 1.0 , 2 ] }",
    "1e400",
    "-1E-400",
    "100000000000000000000000000000000000001",
    "0.1000000000000000055511151231257827",
    "\"\\ud800\"",
    "{\"\\udfff\":\"\\ud83d\\ude00 \u{1f600}\"}",
    "{\"a\":1,\"a\":2}",
    "{\"x\":null}",
    "[null]",
    "\"\\u0000\\/\\b\"",
    "\"\u{7f}\u{2028}\u{feff}é\"",
    "{\"input\":{\"input\":{}}}",
    "{\"id\":\"x\",\"webhook\":\"no URL\"}",
    "{\"\":{\"\":\"\"}}",
    "[[[[[[[[[[]]]]]]]]]]",
    "\"NaN\"",
    "[1,\n\n\n2]",
];

async fn inputs_arrive_byte_for_byte(s: &TestServer) {
    let worker = s.worker("w1");
    for input in ODD {
        let id = s
            .run(format!("\n{{ \"x\":1, \"input\" : {input} , \"y\":[]}}\t"))
            .await;
        let taken = worker.take_saying("job_in_progress=1").await;
        assert_eq!(
            taken.text(),
            format!("{{\"id\":\"{id}\",\"input\":{input}}}")
        );
        worker.done(&id, "{}").await;
        s.expect(&id, "COMPLETED").await;
    }
}

async fn outputs_are_answered_byte_for_byte(s: &TestServer) {
    let worker = s.worker("w1");
    for output in ODD {
        let id = s.run(r#"{"input":1}"#).await;
        worker.take().await;
        worker.done(&id, format!("{{\"output\": {output}}}")).await;
        let status = s.get(format!("/v2/ep/status/{id}")).await;
        assert_eq!(status.status, 200);
        let field = format!(",\"output\":{output},\"status\":\"COMPLETED\"");
        assert!(
            status.text().contains(&field),
            "{output} in {}",
            status.text()
        );
    }
}

async fn a_body_of_just_the_limit_arrives_whole(s: &TestServer) {
    let worker = s.worker("w1");
    for (call, limit) in [("run", 10 * 1024 * 1024), ("runsync", 20 * 1024 * 1024)] {
        let around = "{\"input\":\"\"}".len();
        let input = "é".repeat((limit - around) / 2);
        let body = format!("{{\"input\":\"{input}\"}}");
        assert_eq!(body.len(), limit);
        let target = format!("/v2/ep/{call}");
        let mut caller = s.open(&Request::post(&target, &body)).await;
        let job = worker.take().await;
        assert!(
            job["input"] == input.as_str(),
            "{call}: another input arrived"
        );
        worker.done(&id_of(&job), "{}").await;
        caller.reply().await.ok();

        let reply = s.post(&target, format!("{body} ")).await;
        let message = reply.error(413, "payload_too_large");
        assert!(message.contains(&limit.to_string()), "{message}");
        assert_eq!(reply.json()["limit"], limit);
    }
}
