//! Secrets of webhooks: listed without themselves, made and shown once.

use clap::Parser as _;

use super::scripted::{json, refused};
use super::{Cli, client};

#[tokio::test]
async fn secrets_are_listed_with_their_end() {
    let body = r#"{"secrets":[{"id":"whs_abcd2345","createdAt":1777636984000},
        {"id":"whs_k","createdAt":1777600000000,"validUntil":1777723384000}]}"#;
    let ran = client(vec![json(body)], &["webhook-secret", "ep"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let request = &ran.server.requests()[0];
    assert_eq!(request.line, "GET /v2/ep/webhook-secret HTTP/1.1");
    insta::assert_snapshot!(ran.out, @r"
    ID            CREATED (UTC)        VALID UNTIL (UTC)
    whs_abcd2345  2026-05-01 12:03:04  replaced
    whs_k         2026-05-01 01:46:40  2026-05-02 12:03:04
    ");

    let ran = client(vec![json(body)], &["webhook-secret", "ep", "--json"]).await;
    assert!(ran.out.starts_with(r#"{"secrets":["#) && ran.out.lines().count() == 1);

    let ran = client(vec![json(r#"{"secrets":[]}"#)], &["webhook-secret", "ep"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(
        ran.err.contains("lazyfox webhook-secret ep --new --url"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_new_secret_stands_alone_on_stdout() {
    let made =
        r#"{"id":"whs_n","secret":"whsec_Zm94","createdAt":1777636984000,"previousUntil":UNTIL}"#;
    let later = made.replace("UNTIL", "1777723384000");
    let ran = client(vec![json(&later)], &["webhook-secret", "ep", "--new"]).await;
    let request = &ran.server.requests()[0];
    assert_eq!(request.line, "POST /v2/ep/webhook-secret HTTP/1.1");
    assert_eq!((ran.code, ran.out.as_str()), (0, "whsec_Zm94\n"));
    insta::assert_snapshot!(ran.err, @r"
    whs_n signs the webhooks of ep from now on: receivers check webhook-signature with it
    the previous one stays valid until 2026-05-02 12:03:04 UTC; receivers need the new one by then
    this is the only time it is shown:
    ");

    let options = ["webhook-secret", "ep", "--new", "--overlap", "0s"];
    let at_once = made.replace("UNTIL", "1777636984000");
    let ran = client(vec![json(&at_once)], &options).await;
    let request = &ran.server.requests()[0];
    assert_eq!(
        request.line,
        "POST /v2/ep/webhook-secret?overlap=0 HTTP/1.1"
    );
    assert!(ran.err.contains("worthless at once"), "{}", ran.err);

    let first = made.replace(r#","previousUntil":UNTIL"#, "");
    let ran = client(vec![json(&first)], &["webhook-secret", "ep", "--new"]).await;
    assert_eq!(ran.out, "whsec_Zm94\n");
    assert!(!ran.err.contains("previous"), "{}", ran.err);

    let ran = client(
        vec![json(&first)],
        &["webhook-secret", "ep", "--new", "--json"],
    )
    .await;
    assert_eq!((ran.out, ran.err.as_str()), (format!("{first}\n"), ""));
}

#[tokio::test]
async fn a_refused_secret_leaves_stdout_empty() {
    let body = r#"{"error":"this key may not make secrets","code":"forbidden"}"#;
    let ran = client(vec![refused(403, body)], &["webhook-secret", "ep", "--new"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("forbidden, HTTP 403"), "{}", ran.err);

    for options in [
        &["--overlap", "1h"][..],
        &["--new", "--overlap", "tomorrow"],
    ] {
        let arguments = [&["lazyfox", "webhook-secret", "ep"], options].concat();
        assert!(Cli::try_parse_from(arguments).is_err());
    }
}
