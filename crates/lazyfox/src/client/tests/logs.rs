//! Looking at logs, over connections that break.

use std::pin::pin;

use super::scripted::{Answer, Buffer, DEADLINE, Piece, Scripted, json, refused};
use super::{Seat, client_at, clock, failure_of, parsed};
use crate::client::{report, run};

const LINES: &str = r#"id: 6
: listening

id: 7
data: {"ts":"2026-05-01T12:03:01.123Z","source":"system","worker":"wk1","line":"starting: 1 waiting, 0 running"}

id: 8
data: {"ts":"2026-05-01T12:03:02.000Z","source":"worker","worker":"wk1","line":"Loading…\u001b[2J"}

id: 9
data: {"ts":"2026-04-30T12:03:03.456Z","source":"worker","worker":"wk1","job":"j-1","level":"INFO","line":"{\"requestId\": \"j-1\", \"message\": \"Started.\", \"level\": \"INFO\"}"}

id: 10
data: {"ts":"2026-05-01T12:03:04.000Z","source":"worker","worker":"wk1","job":"j-1","level":"ERROR","line":"{\"requestId\": \"j-1\", \"message\": \"no\\nfox\", \"level\": \"ERROR\"}"}

event: missed
data: {"from":"2026-05-01T12:03:04.000Z","to":"2026-05-01T12:03:05.000Z"}

id: 99
data: {"ts":"?","source":"newer","worker":"wk2","job":"j-1","line":"plain"}

event: newer
data: ?

data: ?

"#;

/// The whole of a stream.
fn events(text: &str) -> Answer {
    let (pieces, answer) = Answer::events();
    let sent = pieces.send(Piece::Text(text.to_owned()));
    sent.unwrap_or_else(|_| panic!("it waits for its pieces"));
    answer
}

#[tokio::test]
async fn lines_are_for_people() {
    let ran = client_at(Seat::Script, vec![events(LINES)], &["logs", "ep"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r"
    12:03:01.123 wk1 SYS   starting: 1 waiting, 0 running
    12:03:02.000 wk1 Loading…\u{1b}[2J
    2026-04-30 12:03:03.456 wk1 j-1 INFO  Started.
    12:03:04.000 wk1 j-1 ERROR no
        fox
    ? wk2 j-1 plain
    ");
    insta::assert_snapshot!(ran.err, @r#"
    lines from 2026-05-01T12:03:04.000Z to 2026-05-01T12:03:05.000Z are missing: the log was cut
    an event "message" is not understood: expected value at line 1 column 1
    "#);
    let request = &ran.server.requests()[0];
    assert_eq!(request.line, "GET /v2/ep/logs?follow=false HTTP/1.1");
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    assert_eq!(request.header("last-event-id"), None);
}

#[tokio::test]
async fn colours_are_for_terminals() {
    let ran = client_at(Seat::Terminal, vec![events(LINES)], &["logs", "ep"]).await;
    insta::assert_snapshot!(ran.out.replace('\u{1b}', "^"), @r"
    ^[2m12:03:01.123^[0m ^[36mwk1^[0m ^[34mSYS  ^[0m starting: 1 waiting, 0 running
    ^[2m12:03:02.000^[0m ^[36mwk1^[0m Loading…\u{1b}[2J
    ^[2m2026-04-30 12:03:03.456^[0m ^[36mwk1^[0m j-1 INFO  Started.
    ^[2m12:03:04.000^[0m ^[36mwk1^[0m j-1 ^[31mERROR^[0m no
        fox
    ^[2m?^[0m ^[36mwk2^[0m j-1 plain
    ");
}

#[tokio::test]
async fn scripts_get_documents_or_the_bare_lines() {
    let ran = client_at(Seat::Script, vec![events(LINES)], &["logs", "ep", "--json"]).await;
    let expected: Vec<&str> = LINES
        .lines()
        .filter_map(|line| line.strip_prefix("data: {\"ts\""))
        .collect();
    let seen: Vec<&str> = ran
        .out
        .lines()
        .map(|line| line.strip_prefix("{\"ts\"").expect("a document"))
        .collect();
    assert_eq!(seen, expected);
    let ran = client_at(
        Seat::Terminal,
        vec![events(LINES)],
        &["logs", "ep", "--raw"],
    )
    .await;
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines[..2],
        ["starting: 1 waiting, 0 running", "Loading…\u{1b}[2J"]
    );
    assert!(lines[2].starts_with("{\"requestId\""), "{}", lines[2]);
}

#[tokio::test]
async fn what_is_wanted_is_asked_for() {
    let arguments = [
        "logs", "ep", "--worker", "wk1", "--job", "j-1", "--source", "system", "--tail", "7",
    ];
    let ran = client_at(Seat::Script, vec![events("")], &arguments).await;
    let query = "worker=wk1&job=j-1&source=system&tail=7&follow=false";
    let expected = format!("GET /v2/ep/logs?{query} HTTP/1.1");
    assert_eq!(ran.server.requests()[0].line, expected);
    let arguments = ["logs", "ep", "--since", "2026-05-01T12:03:04+02:00"];
    let ran = client_at(Seat::Script, vec![events("")], &arguments).await;
    let query = "since=2026-05-01T12%3A03%3A04%2B02%3A00&follow=false";
    let expected = format!("GET /v2/ep/logs?{query} HTTP/1.1");
    assert_eq!(ran.server.requests()[0].line, expected);
}

#[tokio::test]
async fn an_end_that_comes_too_early_is_told() {
    let (pieces, answer) = Answer::events();
    for piece in [Piece::Text(LINES.to_owned()), Piece::Cut] {
        let sent = pieces.send(piece);
        sent.unwrap_or_else(|_| panic!("it waits for its pieces"));
    }
    let ran = client_at(Seat::Script, vec![answer], &["logs", "ep"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("the connection is lost"), "{}", ran.err);
    assert!(ran.out.contains("plain"), "{}", ran.out);

    let ran = client_at(Seat::Script, vec![json("{}")], &["logs", "ep"]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("instead of text/event-stream"),
        "{}",
        ran.err
    );
    let unknown = r#"{"error":"there is no endpoint \"ep\"","code":"endpoint_not_found"}"#;
    let answers = vec![refused(404, unknown)];
    let ran = client_at(Seat::Script, answers, &["logs", "ep", "--follow"]).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    let nobody = super::Nobody::new();
    let failure = failure_of(&["lazyfox", "--url", &nobody.address, "logs", "ep"]).await;
    assert_eq!(failure.exit_code(), 3);
}

#[tokio::test]
async fn following_goes_on_where_it_was_lost() {
    let (first, first_answer) = Answer::events();
    let (second, second_answer) = Answer::events();
    let over = refused(
        401,
        r#"{"error":"the key was revoked","code":"unauthorized"}"#,
    );
    let busy = refused(503, r#"{"error":"shutting down"}"#);
    let answers = vec![first_answer, Answer::hang_up(), busy, second_answer, over];
    let server = Scripted::start(answers).await;
    let (out, err, clock) = (Buffer::new(), Buffer::new(), clock());
    let cli = parsed(&server, &["logs", "ep", "--follow", "--since", "10m"]);
    let mut console = Seat::Script.console(false, &out, &err);
    let act = async {
        first.send(Piece::Text(LINES.to_owned())).ok().unwrap();
        out.says("plain").await;
        first.send(Piece::Cut).ok().unwrap();
        for pause_s in [1, 2, 4] {
            err.says(&format!("trying again in {pause_s} s\n")).await;
            clock.advance(pause_s * 1000);
        }
        err.says("following again").await;
        // A place alone counts too.
        let place = "id: 100\n: still here\n\n".to_owned();
        second.send(Piece::Text(place)).ok().unwrap();
        drop(second);
        err.says("the server ended it; trying again in 1 s").await;
        clock.advance(1_000);
    };
    let run = async {
        let mut run = pin!(run(cli.command, &cli.connection, &mut console, &clock));
        tokio::select! {
            biased;
            () = act => run.await,
            result = &mut run => panic!("it ended early: {:?}", result.err()),
        }
    };
    let ended = tokio::time::timeout(DEADLINE, run).await.expect("an end");
    assert_eq!(report(ended, &mut console), 2);
    let requests = server.requests();
    let line = "GET /v2/ep/logs?since=10m&follow=true HTTP/1.1";
    assert!(requests.iter().all(|it| it.line == line), "{requests:?}");
    let places: Vec<_> = requests
        .iter()
        .map(|it| it.header("last-event-id"))
        .collect();
    let expected = [None, Some("99"), Some("99"), Some("99"), Some("100")];
    assert_eq!(places, expected);
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    for (arguments, said) in [
        (&["--tail", "5001"][..], "5001 is not in 0..=5000"),
        (&["--since", "soon"], "say how long ago"),
        (&["--since", "1m", "--tail", "1"], "cannot be used with"),
        (&["--raw", "--json"], "cannot be used with"),
        (&["--source", "both"], "possible values"),
        (&["--worker", "a/b"], "only letters"),
    ] {
        let arguments = [&["lazyfox", "logs", "ep"], arguments].concat();
        let refused = <super::Cli as clap::Parser>::try_parse_from(arguments.clone());
        let text = refused.err().map(|error| error.to_string());
        let text = text.unwrap_or_else(|| panic!("{arguments:?} is taken"));
        assert!(text.contains(said), "{text}");
    }
}
