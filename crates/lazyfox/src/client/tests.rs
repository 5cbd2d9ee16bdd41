//! The client against a server that follows a script.

mod deliveries;
mod listen;
mod logs;
mod queue;
pub(crate) mod scripted;
mod webhook_secret;

use clap::{CommandFactory as _, Parser};
use lazyfox_core::time::Timestamp;
use scripted::{Answer, Buffer, Nobody, Scripted, json, refused};

use super::console::Console;
use super::failure::Failure;
use super::{ClientCommand, Connection};
use crate::clock::Clock;

/// When the tests take place: 2026-05-01 12:03:04.
const NOW_MS: i64 = 1_777_636_984_000;

/// About the program.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: ClientCommand,
}

/// What a run of the client left behind.
struct Ran {
    code: u8,
    out: String,
    err: String,
    server: Scripted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seat {
    Script,
    Terminal,
}

impl Seat {
    fn console(self, json: bool, out: &Buffer, err: &Buffer) -> Console {
        Console {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            out_is_terminal: self == Self::Terminal,
            err_is_terminal: self == Self::Terminal,
            colours: self == Self::Terminal,
            json,
            progress_shown: false,
        }
    }
}

fn parsed(server: &Scripted, arguments: &[&str]) -> Cli {
    let program = ["lazyfox", "--url", &server.url, "--key", "secret"];
    Cli::try_parse_from(program.iter().chain(arguments)).unwrap()
}

async fn client_at(seat: Seat, answers: Vec<Answer>, arguments: &[&str]) -> Ran {
    let server = Scripted::start(answers).await;
    let cli = parsed(&server, arguments);
    let (out, err) = (Buffer::new(), Buffer::new());
    let mut console = seat.console(cli.connection.json, &out, &err);
    let result = super::run(cli.command, &cli.connection, &mut console, &clock()).await;
    let code = super::report(result, &mut console);
    Ran {
        code,
        out: out.text(),
        err: err.text(),
        server,
    }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_ms(NOW_MS))
}

/// How a command line ends that cannot go well.
async fn failure_of(arguments: &[&str]) -> Failure {
    let cli = Cli::try_parse_from(arguments).unwrap();
    let mut console = Console::standard(false);
    let result = super::run(cli.command, &cli.connection, &mut console, &clock()).await;
    result.unwrap_err()
}

async fn client(answers: Vec<Answer>, arguments: &[&str]) -> Ran {
    client_at(Seat::Script, answers, arguments).await
}

const QUEUED: &str = r#"{"id":"job-1","status":"IN_QUEUE"}"#;
const DONE: &str =
    r#"{"id":"job-1","status":"COMPLETED","delayTime":412,"executionTime":8730,"output":7}"#;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
    // The doc comments of what is flattened in must not replace the program's own.
    assert_eq!(
        Cli::command().get_about().unwrap().to_string(),
        "About the program"
    );
    assert!(Cli::try_parse_from(["lazyfox", "status", "ep", "../health"]).is_err());
    assert!(Cli::try_parse_from(["lazyfox", "requests", "ep", "--limit", "0"]).is_err());
    assert!(Cli::try_parse_from(["lazyfox", "run", "ep", "-5"]).is_ok());
}

#[tokio::test]
async fn input_is_wrapped_unless_it_is_a_request_and_its_text_is_kept() {
    for (argument, body) in [
        (
            r#"{"b": 1.0, "a":1e400}"#,
            r#"{"input":{"b": 1.0, "a":1e400}}"#,
        ),
        (
            "  12345678901234567890.10 \n",
            r#"{"input":12345678901234567890.10}"#,
        ),
        (r#"["\u0041"]"#, r#"{"input":["\u0041"]}"#),
        (
            r#"{ "input" : {"z":1,"a":2}, "x": [ ] }"#,
            r#"{ "input" : {"z":1,"a":2}, "x": [ ] }"#,
        ),
        (r#"{"input":null}"#, r#"{"input":null}"#),
    ] {
        let ran = client(vec![json(QUEUED)], &["run", "ep", argument]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        let request = &ran.server.requests()[0];
        assert_eq!(request.line, "POST /v2/ep/run HTTP/1.1");
        assert_eq!(request.body, body);
        assert_eq!(request.header("authorization"), Some("Bearer secret"));
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn input_comes_from_a_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input.json");
    std::fs::write(&path, "{\n  \"seed\": 1.50\n}\n").unwrap();
    let argument = format!("@{}", path.display());
    let ran = client(vec![json(QUEUED)], &["run", "ep", &argument]).await;
    assert_eq!(
        ran.server.requests()[0].body,
        "{\"input\":{\n  \"seed\": 1.50\n}}"
    );

    let ran = client(vec![], &["run", "ep", "@/no/such/file"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("cannot read /no/such/file"), "{}", ran.err);
}

#[tokio::test]
async fn text_that_is_no_json_is_explained_and_not_sent() {
    let ran = client(vec![], &["run", "ep", "a fox"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("INPUT is not JSON"), "{}", ran.err);
    assert_eq!(ran.server.requests().len(), 0);
}

#[tokio::test]
async fn options_are_put_beside_the_input_and_win() {
    let ran = client(
        vec![json(QUEUED)],
        &[
            "run",
            "ep",
            r#"{"input":1.0,"policy":{"ttl":1,"x":2e1},"webhook":"http://old"}"#,
            "--webhook=http://new",
            "--execution-timeout=5000",
            "--ttl=60000",
            "--low-priority",
            r#"--s3-config={"accessId":"a", "accessSecret":"b"}"#,
            "--idempotency-key=k1",
        ],
    )
    .await;
    let request = &ran.server.requests()[0];
    assert_eq!(
        request.body,
        r#"{"input":1.0,"policy":{"executionTimeout":5000,"lowPriority":true,"ttl":60000,"x":2e1},"#
            .to_owned()
            + r#""s3Config":{"accessId":"a", "accessSecret":"b"},"webhook":"http://new"}"#
    );
    assert_eq!(request.header("idempotency-key"), Some("k1"));
}

#[tokio::test]
async fn waiting_polls_until_the_job_is_finished() {
    let running = r#"{"id":"job-1","status":"IN_PROGRESS","output":"step 3 of 20"}"#;
    let answers = vec![json(QUEUED), json(running), json(DONE)];
    let ran = client_at(Seat::Terminal, answers, &["run", "ep", "1", "--wait"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<String> = ran
        .server
        .requests()
        .iter()
        .map(|r| r.line.clone())
        .collect();
    assert_eq!(
        lines,
        [
            "POST /v2/ep/run HTTP/1.1",
            "GET /v2/ep/status-sync/job-1?wait=1000 HTTP/1.1",
            "GET /v2/ep/status-sync/job-1?wait=1000 HTTP/1.1",
        ]
    );
    // The script answers at once, so the client paused after each, and drew its line meanwhile.
    assert!(ran.err.contains("\r\x1b[KIN_PROGRESS 0."), "{:?}", ran.err);
    assert!(ran.err.contains("s  step 3 of 20"), "{:?}", ran.err);
    assert!(ran.err.ends_with("\r\x1b[K"), "{:?}", ran.err);
    assert_eq!(
        ran.out,
        "id         job-1\nstatus     COMPLETED\ndelay      412 ms\nexecution  8.7 s\n\n7\n"
    );
}

#[tokio::test]
async fn a_script_gets_one_document_and_no_progress() {
    let done =
        "{\"id\":\"job-1\",\"status\":\"COMPLETED\",\n \"output\":{\"b\":1.0,\"a\":1e400}}\n";
    let ran = client(
        vec![json(QUEUED), json(done)],
        &["runsync", "ep", "1", "--json"],
    )
    .await;
    assert_eq!(
        ran.server.requests()[0].line,
        "POST /v2/ep/runsync?wait=1000 HTTP/1.1"
    );
    assert_eq!(
        ran.server.requests()[1].line,
        "GET /v2/ep/status-sync/job-1?wait=50000 HTTP/1.1"
    );
    assert_eq!(
        ran.out,
        "{\"id\":\"job-1\",\"status\":\"COMPLETED\",  \"output\":{\"b\":1.0,\"a\":1e400}}\n"
    );
    assert_eq!(ran.err, "");
}

#[tokio::test]
async fn a_server_that_restarts_is_waited_for() {
    let answers = vec![
        json(QUEUED),
        Answer::hang_up(),
        refused(503, r#"{"error":"shutting down"}"#).with_header("Retry-After: 0"),
        json(DONE),
    ];
    let ran = client(answers, &["status", "ep", "job-1", "--wait"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.server.requests().len(), 4);
}

#[tokio::test]
async fn timeout_ends_the_waiting_and_not_the_job() {
    let ran = client(
        vec![json(QUEUED)],
        &["runsync", "ep", "1", "--timeout", "0"],
    )
    .await;
    assert_eq!(ran.code, 4);
    assert!(ran.out.contains("IN_QUEUE"));
    assert!(ran.err.contains("job job-1 keeps running"), "{}", ran.err);
    assert!(
        ran.err
            .contains("lazyfox status ep job-1 --wait --url http://127.0.0.1:")
    );

    let answers = vec![json(QUEUED), Answer::silence()];
    let ran = client(answers, &["runsync", "ep", "1", "--timeout", "1"]).await;
    assert_eq!(ran.code, 4);
}

#[tokio::test]
async fn exit_codes_tell_how_the_job_ended() {
    for (state, code) in [
        ("COMPLETED", 0),
        ("IN_QUEUE", 0),
        ("IN_PROGRESS", 0),
        ("FAILED", 1),
        ("TIMED_OUT", 1),
        ("CANCELLED", 1),
    ] {
        let body = format!(r#"{{"id":"job-1","status":"{state}"}}"#);
        let ran = client(vec![json(&body)], &["status", "ep", "job-1"]).await;
        assert_eq!(ran.code, code, "{state}");
        let ran = client(vec![json(&body)], &["cancel", "ep", "job-1"]).await;
        assert_eq!(ran.code, 0, "{state}");
        assert_eq!(ran.err.contains("too late"), state != "CANCELLED");
    }
}

#[tokio::test]
async fn refusals_are_told_with_text_code_and_status() {
    let body = r#"{"error":"job not found or expired","code":"job_not_found"}"#;
    let ran = client(vec![refused(404, body)], &["retry", "ep", "job-1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert_eq!(
        ran.err,
        "error: job not found or expired\n       job_not_found, HTTP 404\n"
    );

    let busy = refused(429, r#"{"error":"slow down"}"#).with_header("Retry-After: 7");
    let ran = client(vec![busy], &["health", "ep"]).await;
    assert_eq!(
        ran.err,
        "error: slow down\n       HTTP 429; try again in 7 s\n"
    );

    let moved = refused(301, "<html>").with_header("Location: https://fox.example/");
    let ran = client(vec![moved], &["health", "ep"]).await;
    assert!(ran.err.contains("https://fox.example/"), "{}", ran.err);

    let ran = client(vec![json("<html>hello</html>")], &["health", "ep"]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("does not answer like a Lazyfox server"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart_from_one_that_fell_silent() {
    let nobody = Nobody::new();
    let url = format!("http://{}", nobody.address);
    let failure = failure_of(&["lazyfox", "--url", &url, "run", "ep", "1"]).await;
    assert_eq!(failure.exit_code(), 3);
    let text = failure.text().unwrap();
    assert!(text.contains(&url) && text.contains("refused") && text.contains("LAZYFOX_URL"));
    assert!(!text.contains("idempotency"), "{text}");

    let ran = client(vec![Answer::hang_up()], &["run", "ep", "1"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("--idempotency-key"), "{}", ran.err);
}

#[tokio::test]
async fn errors_of_handlers_are_unpacked() {
    let error = [
        r#"{\"error_type\":\"<class 'ValueError'>\",\"error_message\":\"seed missing\","#,
        r#"\"error_traceback\":\"Traceback:\\n  File \\\"h.py\\\"\\n\"}"#,
    ]
    .concat();
    let body = format!(r#"{{"id":"job-1","status":"FAILED","error":"{error}"}}"#);
    let ran = client(vec![json(&body)], &["status", "ep", "job-1"]).await;
    assert_eq!(
        ran.out,
        "id         job-1\nstatus     FAILED\nerror      ValueError: seed missing\n\n\
         Traceback:\n  File \"h.py\"\n"
    );

    for (error, shown) in [
        (r#""plain text""#, "plain text"),
        (r#""{\"odd\":1}""#, r#"{"odd":1}"#),
        (r#"{"message":"an object"}"#, r#"{"message":"an object"}"#),
        (r#""\u001b[2Jgone""#, r"\u{1b}[2Jgone"),
    ] {
        let body = format!(r#"{{"id":"job-1","status":"FAILED","error":{error}}}"#);
        let ran = client(vec![json(&body)], &["status", "ep", "job-1"]).await;
        assert!(
            ran.out.ends_with(&format!("error      {shown}\n")),
            "{}",
            ran.out
        );
    }
}

#[tokio::test]
async fn output_is_indented_without_being_rewritten() {
    let output = r#"{"z":[1.0,{}, [ ]],"a":"b\"{,}\\","n":12345678901234567890}"#;
    let body = format!(r#"{{"id":"job-1","status":"COMPLETED","output":{output}}}"#);
    let ran = client(vec![json(&body)], &["status", "ep", "job-1"]).await;
    let shown = ran.out.split_once("\n\n").unwrap().1;
    insta::assert_snapshot!(shown, @r#"
    {
      "z": [
        1.0,
        {},
        []
      ],
      "a": "b\"{,}\\",
      "n": 12345678901234567890
    }
    "#);
}

#[tokio::test]
async fn the_stream_ends_when_the_job_has_and_nothing_is_left() {
    let answers = || {
        vec![
            json(r#"{"status":"IN_QUEUE","stream":[]}"#),
            json(r#"{"status":"IN_PROGRESS","stream":[{"output":"Hel\nlo"},{"output":{"a":1}}]}"#),
            json(r#"{"status":"COMPLETED","stream":[{"output":2.50}]}"#),
            json(r#"{"status":"COMPLETED","stream":[]}"#),
        ]
    };
    let ran = client(answers(), &["stream", "ep", "job-1"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, "\"Hel\\nlo\"\n{\"a\":1}\n2.50\n");
    assert_eq!(ran.server.requests().len(), 4);

    let ran = client_at(Seat::Terminal, answers(), &["stream", "ep", "job-1"]).await;
    assert_eq!(ran.out, "Hel\nlo\n{\n  \"a\": 1\n}\n2.50\n");

    let ran = client(answers(), &["stream", "ep", "job-1", "--json"]).await;
    assert_eq!(ran.out.lines().count(), 3, "{}", ran.out);
}

#[tokio::test]
async fn a_stream_of_a_failed_job_says_why() {
    let answers = vec![
        json(r#"{"status":"FAILED","stream":[{"output":1}]}"#),
        json(r#"{"status":"FAILED","stream":[]}"#),
        json(r#"{"id":"job-1","status":"FAILED","error":"out of memory"}"#),
    ];
    let ran = client(answers, &["stream", "ep", "job-1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, "1\n"));
    assert_eq!(ran.err, "FAILED: out of memory\n");
}

#[tokio::test]
async fn addresses_are_taken_as_people_type_them() {
    for suffix in ["", "/", "/v2", "/v2/"] {
        let server = Scripted::start(vec![json(QUEUED)]).await;
        let url = format!("{}{suffix}", server.url.trim_start_matches("http://"));
        let cli = Cli::try_parse_from(["lazyfox", "--url", &url, "run", "ep", "1"]).unwrap();
        let mut console = Console {
            out: Box::new(std::io::sink()),
            err: Box::new(std::io::sink()),
            ..Console::standard(false)
        };
        super::run(cli.command, &cli.connection, &mut console, &clock())
            .await
            .unwrap();
        assert_eq!(
            server.requests()[0].line,
            "POST /v2/ep/run HTTP/1.1",
            "{url}"
        );
    }
    let failure = failure_of(&["lazyfox", "--url", "ftp://a", "health", "ep"]).await;
    assert_eq!(failure.exit_code(), 2);
}

#[tokio::test]
async fn a_key_that_cannot_be_sent_is_named() {
    let failure = failure_of(&["lazyfox", "--key", "a\nb", "health", "ep"]).await;
    assert_eq!(failure.exit_code(), 2);
    assert!(failure.text().unwrap().contains("the API key"));
}

#[tokio::test]
async fn https_finds_a_provider_and_the_systems_certificates() {
    // Building the client is the point; nobody listens.
    let nobody = Nobody::new();
    let url = format!("https://{}", nobody.address);
    let failure = failure_of(&["lazyfox", "--url", &url, "health", "ep"]).await;
    assert_eq!(failure.exit_code(), 3);
    assert!(failure.text().unwrap().contains("refused"));
}
