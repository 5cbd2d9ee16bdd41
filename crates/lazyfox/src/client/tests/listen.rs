//! Listening to webhooks and forwarding them, over connections that break.

use std::pin::pin;

use tokio::sync::mpsc::UnboundedSender;

use super::scripted::{Answer, Buffer, DEADLINE, Nobody, Piece, Scripted, json, refused};
use super::{Seat, client, clock, failure_of, parsed};
use crate::client::{report, run};
use crate::clock::Clock;

/// A client that listens, as its test sees it.
struct Scene {
    out: Buffer,
    err: Buffer,
    clock: Clock,
    server: Scripted,
}

/// The answer after which a client stops listening.
fn over() -> Answer {
    refused(
        401,
        r#"{"error":"the key was revoked","code":"unauthorized"}"#,
    )
}

/// Runs the client beside what the test does, after which it must soon hear that it is [`over`].
async fn listening(
    answers: Vec<Answer>,
    arguments: &[&str],
    act: impl AsyncFnOnce(&Scene),
) -> Scene {
    let scene = Scene {
        out: Buffer::new(),
        err: Buffer::new(),
        clock: clock(),
        server: Scripted::start(answers.into_iter().chain([over()]).collect()).await,
    };
    let arguments = [&["listen", "ep"], arguments].concat();
    let cli = parsed(&scene.server, &arguments);
    let mut console = Seat::Script.console(cli.connection.json, &scene.out, &scene.err);
    let run = async {
        let mut run = pin!(run(
            cli.command,
            &cli.connection,
            &mut console,
            &scene.clock
        ));
        tokio::select! {
            biased;
            () = act(&scene) => run.await,
            result = &mut run => panic!("it ended early: {:?}", result.err()),
        }
    };
    let ended = tokio::time::timeout(DEADLINE, run).await;
    let Ok(result) = ended else {
        panic!("it does not end: {}{}", scene.out.text(), scene.err.text());
    };
    let code = report(result, &mut console);
    let said = scene.err.text();
    assert!(
        code == 2 && said.ends_with("set the key in LAZYFOX_API_KEY\n"),
        "{code} {said}"
    );
    scene
}

impl Scene {
    /// Lets the pause after a lost connection pass.
    async fn let_pass(&self, pause_s: u64) {
        self.err
            .says(&format!("trying again in {pause_s} s\n"))
            .await;
        self.clock.advance(pause_s * 1000);
    }
}

fn send(to: &UnboundedSender<Piece>, text: &str) {
    to.send(Piece::Text(text.to_owned()))
        .unwrap_or_else(|_| panic!("nobody takes {text}"));
}

fn try_event(id: &str, number: u32) -> String {
    let headers = format!(
        r#"{{"content-type":"application/json","user-agent":"Lazyfox/0.1.0","webhook-id":"{id}",
        "webhook-timestamp":"1777636984","webhook-signature":"v1,Zm94 v1,aGVu","host":"hooks.example",
        "content-length":"9999","authorization":"Bearer other"}}"#
    );
    let data = format!(
        r#"{{"id":"{id}","job":"job-1","try":{number},"at":1777636984000,"url":"https://a.example/?…",
        "headers":{headers},"body":"{{\"n\": 1.0,\u00e9 \"{number}\"}}"}}"#
    );
    format!("event: try\ndata: {}\n\n", data.replace('\n', ""))
}

fn result_event(id: &str, more: &str) -> String {
    format!(
        "event: result\r\ndata: {{\"id\":\"{id}\",\"job\":\"j\",\"at\":1777636984000,\r\n\
         data: {more}}}\r\n\r\n"
    )
}

#[tokio::test]
async fn each_try_is_a_line_when_its_result_is_known() {
    let (events, answer) = Answer::events();
    send(&events, ": listening\n\n");
    send(&events, &try_event("job-1_1", 1));
    for more in [
        r#""try":1,"durationMs":12,"status":500,"answer":"no","error":"answered 500","state":"pending",
           "nextTryAt":1777636994012"#,
        r#""try":2,"durationMs":10000,"error":"no answer\u001b within 10 s","state":"failed""#,
        r#""try":1,"durationMs":8,"status":200,"answer":"","state":"delivered""#,
    ] {
        send(&events, &result_event("job-1_1", &more.replace('\n', "")));
    }
    send(&events, "event: missed\ndata: {\"count\":3}\n\n");
    send(&events, "event: newer\ndata: ?\n\n: still here\n\n");
    send(&events, "event: result\ndata: {}\n\n");
    drop(events);
    let scene = listening(vec![answer], &[], async |scene| scene.let_pass(1).await).await;
    let request = &scene.server.requests()[0];
    assert_eq!(request.line, "GET /v2/ep/deliveries/listen HTTP/1.1");
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    insta::assert_snapshot!(scene.out.text(), @r"
    2026-05-01 12:03:04  job-1_1  try 1  500  12 ms     answered 500; next try in 10 s
    2026-05-01 12:03:04  job-1_1  try 2  -    10.0 s    no answer\u{1b} within 10 s; given up
    2026-05-01 12:03:04  job-1_1  try 1  200  8 ms      delivered
    ");
    let said = scene.err.text().replace(&scene.server.url, "URL");
    insta::assert_snapshot!(said, @r#"
    listening to the webhooks of ep; times are UTC, Ctrl-C ends it
    3 events were missed; all tries are in lazyfox deliveries ep --url URL
    an event "result" is not understood: missing field `id` at line 1 column 2
    the connection is lost: the server ended it; trying again in 1 s
    error: the key was revoked
           unauthorized, HTTP 401
           set the key in LAZYFOX_API_KEY
    "#);
}

#[tokio::test]
async fn events_are_documents_for_scripts() {
    let (events, answer) = Answer::events();
    send(
        &events,
        "event: try\ndata: {\"id\":\"é\",\ndata:  \"n\":1.0}\n\n",
    );
    send(
        &events,
        "event: missed\ndata: {}\n\nevent: ne\"w\ndata: [1]\n\n",
    );
    drop(events);
    let scene = listening(vec![answer], &["--json"], async |scene| {
        scene.let_pass(1).await
    })
    .await;
    insta::assert_snapshot!(scene.out.text(), @r#"
    {"event":"try","id":"é",  "n":1.0}
    {"event":"missed"}
    {"event":"ne\"w","data":"[1]"}
    "#);
}

#[tokio::test]
async fn webhooks_are_forwarded_as_they_are() {
    let receiver = Scripted::start(vec![
        json("fine"),
        refused(302, "").with_header("location: /x"),
    ])
    .await;
    let (events, answer) = Answer::events();
    send(&events, &try_event("job-1_1", 1));
    send(&events, &try_event("job-2_1", 1));
    let hook = format!("{}/hook?a=b", receiver.url.trim_start_matches("http://"));
    let scene = listening(vec![answer], &["--forward", &hook], async |scene| {
        scene.out.says("forwarded: 302").await;
        drop(events);
        scene.let_pass(1).await;
    })
    .await;
    insta::assert_snapshot!(scene.out.text(), @r"
    2026-05-01 12:03:04  job-1_1  try 1  forwarded: 200 in 0 ms
    2026-05-01 12:03:04  job-2_1  try 1  forwarded: 302 in 0 ms
    ");
    let hello = format!("and forwarding to http://{hook};");
    assert!(scene.err.text().contains(&hello), "{}", scene.err.text());

    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    let request = &requests[0];
    assert_eq!(request.line, "POST /hook?a=b HTTP/1.1");
    assert_eq!(request.body, "{\"n\": 1.0,é \"1\"}");
    for (name, value) in [
        ("content-type", Some("application/json")),
        ("user-agent", Some("Lazyfox/0.1.0")),
        ("webhook-id", Some("job-1_1")),
        ("webhook-timestamp", Some("1777636984")),
        ("webhook-signature", Some("v1,Zm94 v1,aGVu")),
        ("host", Some(receiver.url.trim_start_matches("http://"))),
        ("content-length", Some("17")),
        ("authorization", None),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn a_later_try_is_forwarded_only_if_the_earlier_one_failed() {
    let answers = [200, 500, 302, 204, 500, 200].map(|status| refused(status, ""));
    let receiver = Scripted::start(answers.into()).await;
    let (events, answer) = Answer::events();
    for (id, number) in [
        // Taken at once.
        ("a", 1),
        ("a", 2),
        // Refused, sent elsewhere, and then taken.
        ("b", 1),
        ("b", 2),
        ("b", 3),
        ("b", 4),
        // A new round of what was taken.
        ("a", 1),
        ("a", 2),
        ("a", 3),
    ] {
        send(&events, &try_event(id, number));
    }
    let arguments = ["--forward", &receiver.url, "--json"];
    let scene = listening(vec![answer], &arguments, async |scene| {
        scene.err.says("a  try 2  forwarded: 200 in 0 ms").await;
        drop(events);
        scene.let_pass(1).await;
    })
    .await;
    let requests = receiver.requests();
    let forwarded = requests.iter().map(|it| {
        let id = it.header("webhook-id").unwrap();
        let number = it.body.split('"').nth(3).unwrap();
        format!("{id} {number}")
    });
    let expected = ["a 1", "b 1", "b 2", "b 3", "a 1", "a 2"];
    assert_eq!(forwarded.collect::<Vec<_>>(), expected);
    assert_eq!(
        scene.out.text().lines().count(),
        9,
        "documents alone: {}",
        scene.out.text()
    );
}

#[tokio::test]
async fn a_program_that_hangs_does_not_stop_the_listening() {
    let receiver = Scripted::start(vec![Answer::silence(), json("fine")]).await;
    let (events, answer) = Answer::events();
    send(&events, &try_event("job-1_1", 1));
    let arguments = ["--forward", &receiver.url];
    let scene = listening(vec![answer], &arguments, async |scene| {
        receiver.asked(1).await;
        send(&events, &try_event("job-2_1", 1));
        let done = r#""try":1,"durationMs":8,"status":200,"state":"delivered""#;
        send(&events, &result_event("job-1_1", done));
        scene.out.says("delivered").await;
        scene.clock.advance(30_000);
        scene.out.says("job-2_1  try 1  forwarded").await;
        drop(events);
        scene.let_pass(1).await;
    })
    .await;
    insta::assert_snapshot!(scene.out.text(), @r"
    2026-05-01 12:03:04  job-1_1  try 1  200  8 ms      delivered
    2026-05-01 12:03:34  job-1_1  try 1  forward failed: no answer within 30 s
    2026-05-01 12:03:34  job-2_1  try 1  forwarded: 200 in 0 ms
    ");
}

#[tokio::test]
async fn a_program_that_is_away_is_told_of() {
    let nobody = Nobody::new();
    let (events, answer) = Answer::events();
    send(&events, &try_event("job-1_1", 1));
    let scene = listening(
        vec![answer],
        &["--forward", &nobody.address],
        async |scene| {
            scene.out.says("\n").await;
            drop(events);
            scene.let_pass(1).await;
        },
    )
    .await;
    assert_eq!(
        scene.out.text(),
        "2026-05-01 12:03:04  job-1_1  try 1  forward failed: Connection refused (os error 111)\n"
    );
}

#[tokio::test]
async fn what_a_slow_program_cannot_take_is_said() {
    let receiver = Scripted::start(vec![Answer::silence()]).await;
    let (events, answer) = Answer::events();
    send(&events, &try_event("job-0_1", 1));
    let scene = listening(vec![answer], &["--forward", &receiver.url], async |scene| {
        receiver.asked(1).await;
        for n in 1..=101 {
            send(&events, &try_event(&format!("job-{n}_1"), 1));
        }
        drop(events);
        scene.let_pass(1).await;
    })
    .await;
    let said = scene.err.text();
    let lines: Vec<&str> = said
        .lines()
        .filter(|it| it.contains("not forwarded"))
        .collect();
    let expected = format!(
        "job-101_1 is not forwarded: too many wait already for {}/",
        receiver.url
    );
    assert_eq!(lines, [expected]);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_with_growing_pauses() {
    let (first, first_answer) = Answer::events();
    let (second, second_answer) = Answer::events();
    let busy = refused(503, r#"{"error":"shutting down"}"#);
    let answers = vec![
        first_answer,
        Answer::hang_up(),
        busy,
        json("<html>"),
        Answer::hang_up(),
        Answer::hang_up(),
        refused(429, r#"{"error":"slow down"}"#),
        second_answer,
    ];
    let scene = listening(answers, &[], async |scene| {
        scene.err.says("listening to").await;
        first
            .send(Piece::Cut)
            .unwrap_or_else(|_| panic!("nobody listens"));
        for pause_s in [1, 2, 4, 8] {
            scene.let_pass(pause_s).await;
        }
        scene.err.says("trying again every 10 s").await;
        // What is the same as before is not said again, so nothing tells when the pause begins.
        while scene.server.requests().len() < 8 {
            scene.clock.advance(10_000);
            tokio::task::yield_now().await;
        }
        scene.err.says("listening again").await;
        let done = r#""try":1,"durationMs":8,"status":200,"state":"delivered""#;
        send(&second, &result_event("job-1_1", done));
        scene.out.says("delivered").await;
        drop(second);
        scene
            .err
            .says("the server ended it; trying again in 1 s")
            .await;
        scene.clock.advance(1_000);
    })
    .await;
    assert_eq!(scene.server.requests().len(), 9);
    let said = scene.err.text().replace(&scene.server.url, "URL");
    insta::assert_snapshot!(said, @r#"
    listening to the webhooks of ep; times are UTC, Ctrl-C ends it
    the connection is lost: unexpected EOF during chunk size line; trying again in 1 s
    no connection: connection closed before message completed; trying again in 2 s
    no connection: shutting down; trying again in 4 s
    no connection: "application/json" came instead of text/event-stream; trying again in 8 s
    no connection: connection closed before message completed; trying again every 10 s
    no connection: slow down; trying again every 10 s
    listening again
    the connection is lost: the server ended it; trying again in 1 s
    error: the key was revoked
           unauthorized, HTTP 401
           set the key in LAZYFOX_API_KEY
    "#);
}

#[tokio::test]
async fn a_minute_of_silence_is_the_end_of_a_connection() {
    let (events, answer) = Answer::events();
    let scene = listening(vec![answer], &[], async |scene| {
        scene.err.says("listening to").await;
        for n in 1..=3 {
            // Each is heard, because its result is shown before the clock moves on.
            scene.clock.advance(40_000);
            let more = format!(r#""try":{n},"durationMs":8,"status":200,"state":"delivered""#);
            send(&events, &result_event("job-1_1", &more));
            scene.out.says(&format!("try {n}")).await;
        }
        scene.clock.advance(60_000);
        scene.let_pass(1).await;
    })
    .await;
    assert!(
        scene.err.text().contains("nothing was heard for 60 s"),
        "{}",
        scene.err.text()
    );
    drop(events);
}

#[tokio::test]
async fn the_first_connection_must_work() {
    let nobody = Nobody::new();
    let failure = failure_of(&["lazyfox", "--url", &nobody.address, "listen", "ep"]).await;
    assert_eq!(failure.exit_code(), 3);

    let body = r#"{"error":"there is no endpoint \"ep\"","code":"endpoint_not_found"}"#;
    for (answer, said) in [
        (refused(404, body), "endpoint_not_found, HTTP 404"),
        (
            refused(503, r#"{"error":"shutting down"}"#),
            "shutting down",
        ),
        (json("{}"), "instead of text/event-stream"),
    ] {
        let ran = client(vec![answer], &["listen", "ep"]);
        let ran = tokio::time::timeout(DEADLINE, ran).await.expect("an end");
        assert_eq!((ran.code, ran.out.as_str()), (2, ""));
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    let ran = client(vec![], &["listen", "ep", "--forward", "ftp://a"]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("--forward ftp://a: only http"),
        "{}",
        ran.err
    );
    assert_eq!(ran.server.requests().len(), 0);
}
