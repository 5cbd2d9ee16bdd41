//! Bodies on the wire: too large, in pieces, announced, broken off.

use crate::http::Request;
use crate::server::{Setup, TestServer};

tests!(small: super::small();
    a_body_over_the_limit_is_refused_with_the_limit,
    a_body_without_a_length_is_counted_as_it_comes,
    a_client_that_asks_first_is_told_before_it_sends,
    a_body_that_breaks_off_is_no_job,
    a_client_that_writes_all_before_it_reads_gets_its_answer,
);

tests!(memory: crate::server::Setup::memory();
    idle_connections_live_longer_than_a_worker_keeps_them,
    requests_on_one_connection_are_answered_in_order,
    what_is_no_http_is_refused,
);

const LIMIT: usize = 2048;

fn small() -> Setup {
    Setup::memory()
        .server("run_body_bytes = 2048")
        .server("runsync_body_bytes = 4096")
}

fn body_of(bytes: usize) -> String {
    let around = "{\"input\":\"\"}".len();
    format!("{{\"input\":\"{}\"}}", "x".repeat(bytes - around))
}

async fn a_body_over_the_limit_is_refused_with_the_limit(s: &TestServer) {
    for (call, limit) in [("run", LIMIT), ("runsync", 2 * LIMIT)] {
        let reply = s.post(format!("/v2/ep/{call}"), body_of(limit + 1)).await;
        let message = reply.error(413, "payload_too_large");
        assert_eq!(message, format!("body exceeds {limit} bytes"));
        assert_eq!(reply.json()["limit"], limit);
    }
    s.run(body_of(LIMIT)).await;
}

fn chunked(body: &[u8], piece: usize) -> Vec<u8> {
    let mut text =
        b"POST /v2/ep/run HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for piece in body.chunks(piece) {
        text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

async fn a_body_without_a_length_is_counted_as_it_comes(s: &TestServer) {
    for (bytes, piece, status) in [
        (LIMIT, 7, 200),
        (LIMIT, LIMIT, 200),
        (LIMIT + 1, 100, 413),
        (50 * LIMIT, 999, 413),
    ] {
        let mut connection = s.connect().await;
        connection
            .write(&chunked(body_of(bytes).as_bytes(), piece))
            .await;
        let reply = connection.reply().await;
        assert_eq!(
            reply.status,
            status,
            "{bytes} in pieces of {piece}: {}",
            reply.text()
        );
        if status == 413 {
            reply.error(413, "payload_too_large");
            assert_eq!(reply.json()["limit"], LIMIT);
        }
    }
    // The pieces are one body again.
    let worker = s.worker("w1");
    for job in worker.batch(2).await {
        assert_eq!(job["input"].as_str().map(str::len), Some(LIMIT - 12));
    }
}

async fn a_client_that_asks_first_is_told_before_it_sends(s: &TestServer) {
    let head = |bytes: usize| {
        format!(
            "POST /v2/ep/run HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {bytes}\r\n\r\n"
        )
    };
    let mut connection = s.connect().await;
    connection.write(head(LIMIT).as_bytes()).await;
    assert_eq!(connection.reply().await.status, 100);
    connection.write(body_of(LIMIT).as_bytes()).await;
    assert_eq!(connection.reply().await.ok()["status"], "IN_QUEUE");

    let mut connection = s.connect().await;
    connection.write(head(LIMIT + 1).as_bytes()).await;
    connection.reply().await.error(413, "payload_too_large");
    // What follows on this connection may be the body or not, so nothing can.
    assert!(connection.is_closed().await);
}

async fn a_body_that_breaks_off_is_no_job(s: &TestServer) {
    for start in [
        "content-length: 100\r\n\r\n{\"input\":1}",
        "transfer-encoding: chunked\r\n\r\nb\r\n{\"input\":1}\r\n",
    ] {
        let head = format!("POST /v2/ep/run HTTP/1.1\r\nhost: localhost\r\n{start}");
        let mut connection = s.connect().await;
        connection.write(head.as_bytes()).await;
        connection.finish_writing().await;
        // There may be nobody left to read an answer, so there need not be one.
        if !connection.is_closed().await {
            connection.reply().await.error(400, "invalid_json");
        }
        assert_eq!(
            s.get("/v2/ep/health").await.ok()["jobs"]["inQueue"],
            0,
            "{start}"
        );
    }
    let mut connection = s.connect().await;
    let broken = "transfer-encoding: chunked\r\n\r\nzz\r\n{\"input\":1}\r\n";
    let head = format!("POST /v2/ep/run HTTP/1.1\r\nhost: localhost\r\n{broken}");
    connection.write(head.as_bytes()).await;
    let message = connection.reply().await.error(400, "invalid_json");
    assert!(message.contains("broke off"), "{message}");
}

async fn a_client_that_writes_all_before_it_reads_gets_its_answer(s: &TestServer) {
    // More than the sockets hold: the client is still writing when the server knows enough.
    let reply = s.post("/v2/ep/run", body_of(8 * 1024 * 1024)).await;
    reply.error(413, "payload_too_large");
}

async fn idle_connections_live_longer_than_a_worker_keeps_them(s: &TestServer) {
    let mut connection = s.connect().await;
    let request = Request::get("/healthz");
    connection.send(&request).await;
    connection.reply().await.ok();
    // Idle time of a connection is real time, which this runtime can skip.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(75)).await;
    tokio::time::resume();
    connection.send(&request).await;
    connection.reply().await.ok();

    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(100)).await;
    tokio::time::resume();
    assert!(connection.is_closed().await, "it does not live for ever");
}

async fn requests_on_one_connection_are_answered_in_order(s: &TestServer) {
    let mut connection = s.connect().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        connection
            .send(&Request::post("/v2/ep/run", format!("{{\"input\":{n}}}")))
            .await;
    }
    connection.send(&Request::get("/v2/ep/nothing")).await;
    connection.send(&Request::get("/v2/ep/health")).await;
    for _ in 0..3 {
        ids.push(connection.reply().await.ok()["id"].clone());
    }
    connection.reply().await.error(404, "route_not_found");
    assert_eq!(connection.reply().await.ok()["jobs"]["inQueue"], 3);
    let taken = s.worker("w1").batch(3).await;
    let order: Vec<_> = taken.iter().map(|job| job["id"].clone()).collect();
    assert_eq!(order, ids);
}

async fn what_is_no_http_is_refused(s: &TestServer) {
    for text in [
        "\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nx y\r\n\r\n",
    ] {
        let mut connection = s.connect().await;
        connection.write(text.as_bytes()).await;
        if !connection.is_closed().await {
            assert_eq!(connection.reply().await.status, 400, "{text:?}");
        }
    }
    s.get("/healthz").await.ok();
}
