//! Keys: shown once, kept as a hash, changed beside a running server.

use std::fs;

use rustix::process::Signal;

use crate::http::{Answer, request};
use crate::process;
use crate::server::{Home, Output};

const CONFIG: &str = "[endpoints.a]\n[endpoints.b]\n";

fn call(home: &Home, key: &str, method: &str, target: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let body = if method == "POST" {
        "{\"input\":1}"
    } else {
        ""
    };
    let answer = request(
        home.port(),
        method,
        &format!("/v2/{target}"),
        &headers,
        body,
    );
    answer.expect("the server answers")
}

/// What requests with this key get.
fn statuses(home: &Home, key: &str, method: &str, targets: [&str; 2]) -> [u16; 2] {
    targets.map(|target| call(home, key, method, target).status)
}

/// The key that a first start announces.
fn announced(said: &[String]) -> Option<String> {
    let line = said.iter().find(|line| line.contains("admin key"))?;
    Some(line.rsplit(' ').next()?.to_owned())
}

fn key(home: &Home, arguments: &[&str]) -> Output {
    let output = home.run(&[&["key"], arguments].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    output
}

/// Makes a key and gives back its text and its id.
fn create(home: &Home, arguments: &[&str]) -> (String, String) {
    let output = key(home, &[&["create"], arguments].concat());
    let text = output.stdout.trim_end().to_owned();
    assert!(
        text.starts_with("lfx_") && !text.contains('\n'),
        "{output:?}"
    );
    let id = output
        .stderr
        .split(' ')
        .nth(1)
        .expect("made KEY")
        .to_owned();
    assert!(id.starts_with("key_"), "{output:?}");
    (text, id)
}

#[test]
fn first_key_is_shown_once_and_kept_as_a_hash() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let first = announced(server.said()).expect("the first start makes a key");
    // It is on disk before it is shown; else this would lock everybody out.
    process::signal(server.pid(), Signal::KILL);
    server.gone();

    let mut server = home.serve();
    assert_eq!(announced(server.said()), None, "{:?}", server.said());
    assert_eq!(call(&home, &first, "POST", "a/run").status, 200);
    assert_eq!(call(&home, "lfx_wrong", "POST", "a/run").status, 401);
    assert_eq!(server.call("GET", "a/health", "").status, 401);
    let open = |path| {
        request(home.port(), "GET", path, &[], "")
            .expect("an answer")
            .status
    };
    assert_eq!(
        (open("/healthz"), open("/readyz"), open("/v2/x/run")),
        (200, 200, 401)
    );
    assert!(server.stop().success());

    let data = home.path().join("lazyfox-data");
    assert!(home.database().exists());
    let secret = first.trim_start_matches("lfx_").as_bytes();
    for entry in fs::read_dir(&data).expect("the data directory") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).unwrap_or_default();
        let found = bytes.windows(secret.len()).any(|part| part == secret);
        assert!(!found, "the key stands in {}", path.display());
    }
    let log = fs::read_to_string(home.path().join("server.log")).expect("the log");
    assert!(!log.contains(&first), "the key stands in the log");
}

#[test]
fn keys_are_scoped_and_made_beside_the_running_server() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let (scoped, scoped_id) = create(&home, &["web shop", "--endpoint", "a"]);
    let (reader, reader_id) = create(&home, &["dashboard", "--read-only"]);
    let (admin, _) = create(&home, &["me", "--admin"]);

    let change = |key: &str| statuses(&home, key, "POST", ["a/run", "b/run"]);
    assert_eq!(change(&scoped), [200, 403]);
    assert_eq!(change(&reader), [403, 403]);
    assert_eq!(change(&admin), [200, 200]);
    let look = |key: &str| statuses(&home, key, "GET", ["a/health", "b/requests"]);
    assert_eq!(look(&scoped), [200, 403]);
    assert_eq!(look(&reader), [200, 200]);

    let listed = key(&home, &["list"]).stdout;
    let has = |id: &str, parts: [&str; 4]| {
        let line = listed.lines().find(|line| line.starts_with(id));
        parts
            .iter()
            .all(|part| line.is_some_and(|line| line.contains(part)))
    };
    assert!(
        has(&scoped_id, ["read-write", " a ", "valid", "web shop"]),
        "{listed}"
    );
    assert!(
        has(&reader_id, ["read-only", " all ", "valid", "dashboard"]),
        "{listed}"
    );
    // The three, the first one, and the heading.
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(!listed.contains("lfx_"), "{listed}");
    assert!(server.stop().success());
}

#[test]
fn revoked_key_is_worthless_within_seconds() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let (revoked, id) = create(&home, &["old"]);
    let (kept, _) = create(&home, &["new"]);
    let job = call(&home, &revoked, "POST", "a/run").json();
    key(&home, &["revoke", &id]);
    // Known keys are believed for two seconds, as the help says. Between two tries a wait for a job that
    // nobody takes is held for one.
    let wait = format!(
        "a/status-sync/{}?wait=1000",
        job["id"].as_str().expect("an id")
    );
    let mut tries = 0;
    while call(&home, &revoked, "GET", "a/health").status != 401 {
        assert!(tries < 5, "the key still works");
        tries += 1;
        assert_eq!(call(&home, &kept, "GET", &wait).status, 200);
    }
    assert_eq!(call(&home, &kept, "GET", "a/health").status, 200);
    let unknown = home.run(&["key", "revoke", "key_none"]);
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("there is no key key_none"),
        "{unknown:?}"
    );
    assert!(server.stop().success());
    assert!(key(&home, &["list"]).stdout.contains("revoked"));
}

#[test]
fn key_needs_a_store_and_names_what_is_missing() {
    let home = Home::new(CONFIG);
    let refused = |arguments: &[&str], expected: &str| {
        let output = home.run(&[&["key"], arguments].concat());
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(2), ""),
            "{output:?}"
        );
        assert!(
            output.stderr.contains(expected),
            "{expected:?} is not in {}",
            output.stderr
        );
    };
    refused(&["list"], "there is no store in");
    refused(
        &["create", "x", "--admin", "--read-only"],
        "cannot be used with",
    );
    refused(&["create", "x", "--endpoint", "a b"], "--endpoint");
    refused(
        &["list", "--config", "none.toml"],
        "cannot read the configuration none.toml",
    );
}
