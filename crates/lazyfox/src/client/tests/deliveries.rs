//! Looking at webhooks and having them sent again.

use clap::Parser as _;

use super::scripted::{json, refused};
use super::{Cli, client};

const PAGE: &str = r#"{"deliveries":[
    {"id":"job-2_1","job":"job-2","state":"pending","url":"https://hooks.example/x?…","bytes":512,
     "createdAt":1777636974000,"nextTryAt":1777636993400,"hold":"hooks.example is silent",
     "tries":[
        {"at":1777636974001,"durationMs":12,"status":500,"answer":"no\n\u001b[2Jfox","error":"answered 500"},
        {"at":1777636984001,"durationMs":10000,"error":"no answer within 10 s"}]},
    {"id":"job-1_2","job":"job-1","state":"delivered","url":"http://127.0.0.1:3000/hook","bytes":80,
     "createdAt":1777636960000,"tries":[{"at":1777636960001,"durationMs":8,"status":204,"answer":""}]}],
    "next":"c 1"}"#;
const LAST_PAGE: &str = r#"{"deliveries":[
    {"id":"j_1","job":"j","state":"pending","createdAt":1777636960000,"nextTryAt":1777636960000,"tries":[]},
    {"id":"j_2","job":"j","state":"failed","tries":[
        {"at":1777636960000,"durationMs":70000,"status":404,"answer":"?","error":"answered 404"}]}]}"#;

#[tokio::test]
async fn deliveries_are_a_table_over_pages() {
    let answers = vec![
        json(PAGE),
        json(r#"{"deliveries":[],"next":"c 2"}"#),
        json(LAST_PAGE),
    ];
    let ran = client(
        answers,
        &["deliveries", "ep", "--all", "--state", "pending"],
    )
    .await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<String> = ran
        .server
        .requests()
        .into_iter()
        .map(|it| it.line)
        .collect();
    assert_eq!(
        lines,
        [
            "GET /v2/ep/deliveries?limit=100&state=pending HTTP/1.1",
            "GET /v2/ep/deliveries?limit=100&state=pending&cursor=c+1 HTTP/1.1",
            "GET /v2/ep/deliveries?limit=100&state=pending&cursor=c+2 HTTP/1.1",
        ]
    );
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines,
        [
            "ID       STATE      TRIES  CREATED (UTC)        LAST TRY               NEXT TRY         URL",
            "job-2_1  pending    2      2026-05-01 12:02:54  no answer within 10 s  in 9 s, on hold  https://hooks.example/x?…",
            "job-1_2  delivered  1      2026-05-01 12:02:40  204 in 8 ms                             http://127.0.0.1:3000/hook",
            "j_1      pending    0      2026-05-01 12:02:40                         now",
            "j_2      failed     1                           answered 404",
        ]
    );

    let ran = client(
        vec![json(PAGE)],
        &["deliveries", "ep", "--limit", "2", "--json"],
    )
    .await;
    assert_eq!(ran.server.requests().len(), 1);
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
    assert!(ran.out.starts_with(r#"{"deliveries":["#), "{}", ran.out);
}

#[tokio::test]
async fn the_deliveries_of_a_job_show_every_try() {
    let ran = client(
        vec![json(PAGE), json(LAST_PAGE)],
        &["deliveries", "ep", "--job", "job-2"],
    )
    .await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(
        ran.server.requests()[0].line,
        "GET /v2/ep/deliveries?limit=50&job=job-2 HTTP/1.1"
    );
    insta::assert_snapshot!(ran.out, @r"
    id         job-2_1
    state      pending
    url        https://hooks.example/x?…
    size       512 bytes
    created    2026-05-01 12:02:54 UTC
    next try   in 9 s
    on hold    hooks.example is silent

    TRIED (UTC)          STATUS  DURATION  REASON                 ANSWER
    2026-05-01 12:02:54  500     12 ms     answered 500           no \u{1b}[2Jfox
    2026-05-01 12:03:04  -       10.0 s    no answer within 10 s

    id         job-1_2
    state      delivered
    url        http://127.0.0.1:3000/hook
    size       80 bytes
    created    2026-05-01 12:02:40 UTC

    TRIED (UTC)          STATUS  DURATION  REASON  ANSWER
    2026-05-01 12:02:40  204     8 ms

    id         j_1
    state      pending
    created    2026-05-01 12:02:40 UTC
    next try   now
    not tried yet

    id         j_2
    state      failed

    TRIED (UTC)          STATUS  DURATION    REASON        ANSWER
    2026-05-01 12:02:40  404     1 min 10 s  answered 404  ?
    ");

    let none = json(r#"{"deliveries":[]}"#);
    let ran = client(vec![none], &["deliveries", "ep", "--job", "job-9"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert_eq!(ran.err, "job job-9 has no such delivery\n");
}

#[tokio::test]
async fn a_refused_list_of_deliveries_says_why() {
    let body = r#"{"error":"there is no endpoint \"ep\"","code":"endpoint_not_found"}"#;
    let ran = client(vec![refused(404, body)], &["deliveries", "ep"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(
        ran.err.contains("endpoint_not_found, HTTP 404"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn one_delivery_is_sent_again() {
    let answer = r#"{"id":"job-1_1","state":"pending"}"#;
    let ran = client(vec![json(answer)], &["redeliver", "ep", "job-1_1"]).await;
    let request = &ran.server.requests()[0];
    assert_eq!(
        request.line,
        "POST /v2/ep/deliveries/job-1_1/redeliver HTTP/1.1"
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, "job-1_1 is pending again\n");

    let ran = client(
        vec![json(answer)],
        &["redeliver", "ep", "job-1_1", "--json"],
    )
    .await;
    assert_eq!(ran.out, format!("{answer}\n"));

    for (status, code) in [(404, "delivery_not_found"), (409, "not_redeliverable")] {
        let body = format!(r#"{{"error":"the fox says no","code":"{code}"}}"#);
        let ran = client(
            vec![refused(status, &body)],
            &["redeliver", "ep", "job-1_1"],
        )
        .await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""));
        let said = format!("error: the fox says no\n       {code}, HTTP {status}\n");
        assert_eq!(ran.err, said);
    }
}

#[tokio::test]
async fn a_time_range_is_sent_again() {
    // Two hours are 7200000 ms, half an hour 1800000.
    let cases: [(&[&str], &str); 3] = [
        (&["--since", "2h"], "from=1777629784000"),
        (
            &["--since=2h", "--until=30m", "--state=all"],
            "from=1777629784000&to=1777635184000&state=all",
        ),
        (
            &["--since", "2026-05-01T14:00:00+02:00", "--until", "0s"],
            "from=1777636800000&to=1777636984000",
        ),
    ];
    for (options, query) in cases {
        let arguments = [&["redeliver", "ep"], options].concat();
        let ran = client(vec![json(r#"{"redelivered":17}"#)], &arguments).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert_eq!(ran.out, "17 deliveries are sent again\n");
        let line = format!("POST /v2/ep/deliveries/redeliver?{query} HTTP/1.1");
        assert_eq!(ran.server.requests()[0].line, line);
    }

    let none = json(r#"{"redelivered":0}"#);
    let ran = client(vec![none], &["redeliver", "ep", "--since", "1d"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("nothing is sent again"), "{}", ran.out);

    let body = r#"{"error":"from is 0","code":"invalid_query"}"#;
    let ran = client(
        vec![refused(400, body)],
        &["redeliver", "ep", "--since", "1d"],
    )
    .await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("invalid_query, HTTP 400"), "{}", ran.err);
}

#[tokio::test]
async fn what_is_sent_again_must_be_said_once() {
    let ran = client(vec![], &["redeliver", "ep"]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("the id of one delivery, or --since"),
        "{}",
        ran.err
    );

    let cases: [(&[&str], &str); 4] = [
        (&["j_1", "--since", "2h"], "cannot be used with"),
        (&["j_1", "--state", "all"], "cannot be used with"),
        (&["--until", "2h"], "--since <TIME>"),
        (&["--since", "2 hours"], "90s, 15m, 2h, 3d"),
    ];
    for (options, expected) in cases {
        let arguments = [&["lazyfox", "redeliver", "ep"], options].concat();
        let said = Cli::try_parse_from(arguments).err().unwrap().to_string();
        assert!(said.contains(expected), "{said}");
    }
    for (options, end) in [(&["--until=2h"][..], "--until"), (&["--state=all"], "now")] {
        let since = if end == "now" {
            "--since=0s"
        } else {
            "--since=30m"
        };
        let arguments = [&["redeliver", "ep", since], options].concat();
        let ran = client(vec![], &arguments).await;
        assert_eq!(ran.code, 2);
        assert!(
            ran.err.contains(&format!("not before {end}")),
            "{}",
            ran.err
        );
        assert_eq!(ran.server.requests().len(), 0);
    }
}
