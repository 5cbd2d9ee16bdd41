//! Everything of a store, carried to another one by a file, and what is refused with nothing written.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http::request;
use crate::server::{Home, Output};
use crate::worker::work;
use crate::{port, process};

const CONFIG: &str = "[server]\nauth = \"none\"\nshutdown_s = 0\nabandoned_s = 0\n\
    webhook_allow = [\"127.0.0.0/8\"]\n[endpoints.fox]\n";

fn post(home: &Home, target: &str, headers: &[(&str, &str)], body: &Value) -> Value {
    let target = format!("/v2/fox/{target}");
    let answer = request(home.port(), "POST", &target, headers, &body.to_string());
    answer.expect("the server answers").json()
}

fn s3_config() -> Value {
    let (url, secret) = ("https://s3.example", "hidden");
    json!({"accessId": "i", "accessSecret": secret, "bucketName": "b", "endpointUrl": url})
}

/// The data directory of a server that was killed: jobs of each state, with what is kept beside them.
fn filled() -> Home {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let nobody = format!("http://127.0.0.1:{}/hook", port::free());
    post(
        &home,
        "run",
        &[],
        &json!({"input": {"z": 1, "a": "é"}, "webhook": nobody}),
    );
    let chunks = [json!("one"), json!({"two": 2})];
    work(&home, "w1", &chunks, &json!({"output": [1.5, null]}));
    post(&home, "run", &[], &json!({"input": 2}));
    work(&home, "w2", &[], &json!({"error": "no fox\nat all"}));
    post(&home, "run", &[], &json!({"input": 3}));
    let taken = request(home.port(), "GET", "/v2/fox/job-take/w3", &[], "");
    assert!(taken.expect("the server answers").body.contains("\"id\""));
    for n in 4..8 {
        post(
            &home,
            "run",
            &[("idempotency-key", &format!("key {n}"))],
            &json!({"input": {"n": n}, "s3Config": s3_config()}),
        );
    }
    assert_eq!(home.run(&["key", "create", "ops"]).code, Some(0));
    // A stop would take the running job back.
    process::signal(server.pid(), Signal::KILL);
    server.gone();
    drop(server);
    home
}

#[track_caller]
fn did(output: &Output, parts: &[&str]) {
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in parts {
        let is_there = output.stdout.contains(part);
        assert!(is_there, "{part:?} is not in {}", output.stdout);
    }
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let expected = (Some(2), "");
    assert_eq!(
        (output.code, output.stdout.as_str()),
        expected,
        "{output:?}"
    );
    for part in parts {
        let is_there = output.stderr.contains(part);
        assert!(is_there, "{part:?} is not in {}", output.stderr);
    }
}

fn lines(path: &PathBuf) -> Vec<String> {
    let text = fs::read_to_string(path).expect("the file is there");
    text.lines().map(|line| format!("{line}\n")).collect()
}

/// A last line that fits these, but for what `change` does to it.
fn ended(lines: &[String], change: impl Fn(&mut Value)) -> String {
    let (last, body) = lines.split_last().expect("there are lines");
    let mut end: Value = serde_json::from_str(last).expect("JSON");
    let mut hash = Sha256::new();
    for line in body {
        hash.update(line);
    }
    let hash = hash.finalize();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    end["end"]["sha256"] = json!(hex);
    change(&mut end);
    format!("{}{end}\n", body.concat())
}

#[test]
fn all_goes_to_postgres_and_back_and_the_files_are_the_same() {
    let home = filled();
    let url = lazyfox_testing::shared().database();
    let made = home.run(&["export", "first.jsonl"]);
    did(
        &made,
        &[
            "exported to first.jsonl\njobs: 7 (4 waiting, 1 running, 2 ended), chunks: 2, deliveries: 1",
            "webhook secrets: 1, API keys: 1",
            "needs the same server.key",
        ],
    );
    let first = home.path().join("first.jsonl");
    let text = lines(&first);
    assert_eq!(text[0], "{\"lazyfox_export\":1}\n");
    assert!(
        text[1].contains("\"input\":\"{\\\"a\\\":\\\"é\\\",\\\"z\\\":1}\""),
        "{}",
        text[1]
    );
    assert!(!text.concat().contains("hidden"), "s3Config is sealed");

    let import = home.run(&["import", "--database-url", &url, "first.jsonl"]);
    did(
        &import,
        &[
            "imported into the database at 127.0.0.1",
            "jobs: 7 ",
            "read back and compared",
        ],
    );
    let export = home.run(&["export", "--database-url", &url, "second.jsonl"]);
    did(&export, &["jobs: 7 "]);
    let import = home.run(&["import", "--data", "moved", "second.jsonl"]);
    did(&import, &["the data directory moved"]);
    did(
        &home.run(&["export", "--data", "moved", "third.jsonl"]),
        &[],
    );
    for name in ["second.jsonl", "third.jsonl"] {
        assert_eq!(lines(&home.path().join(name)), text, "{name}");
    }

    // A server goes on with it: the oldest that waits goes out first, and the new key is good for its
    // secrets.
    let moved = home.path().join("moved");
    let key = home.path().join("lazyfox-data/server.key");
    fs::copy(key, moved.join("server.key")).expect("the key is there");
    home.configure(&CONFIG.replace("[server]", "[server]\ndata = \"moved\""));
    let mut server = home.serve();
    let job = work(&home, "w9", &[], &json!({"output": 1}));
    assert_eq!(job["input"], json!({"n": 4}));
    assert_eq!(job["s3Config"]["accessSecret"], "hidden");
    let known = post(
        &home,
        "run",
        &[("idempotency-key", "key 4")],
        &json!({"input": {"n": 4}, "s3Config": s3_config()}),
    );
    assert_eq!(known["id"], job["id"]);
    assert!(server.stop().success());
}

#[test]
fn a_file_that_is_not_whole_is_refused_and_nothing_written() {
    let home = filled();
    let url = lazyfox_testing::shared().database();
    did(&home.run(&["export", "whole.jsonl"]), &[]);
    let whole = lines(&home.path().join("whole.jsonl"));
    let cut = whole[..whole.len() - 1].concat();
    let torn = &cut[..cut.len() - 10];
    let bytes = cut.replacen("no fox", "no fix", 1) + &whole[whole.len() - 1];
    let count = ended(&whole, |end| {
        end["end"]["counts"]["jobs_waiting"] = json!(5)
    });
    let mut fewer = whole.clone();
    fewer.remove(2);
    let fewer = ended(&fewer, |_| {});
    let unknown = whole[0].clone() + &whole[1].replacen("\"seq\"", "\"sequel\"", 1) + &cut;
    let later = cut.replacen("\"lazyfox_export\":1", "\"lazyfox_export\":2", 1);
    let longer = whole.concat() + "{}\n";
    for (text, why) in [
        (cut.as_str(), "its last one, with the counts, is missing"),
        (torn, "is cut off in line"),
        (&bytes, "is damaged: its checksum is"),
        (&count, "is damaged: it has jobs: 7 (4 waiting"),
        (&fewer, "is damaged: it has jobs: 6"),
        (&unknown, "is damaged: its line 2 cannot be read"),
        (&later, "is of form 2, and this program knows form 1"),
        (&longer, "goes on behind its last line"),
        ("", "is no file of `lazyfox export`"),
        ("{\"input\":1}\n", "is no file of `lazyfox export`"),
    ] {
        fs::write(home.path().join("bad.jsonl"), text).expect("the file is written");
        let into_data = home.run(&["import", "--data", "new", "bad.jsonl"]);
        refused(&into_data, &[why]);
        refused(
            &home.run(&["import", "--database-url", &url, "bad.jsonl"]),
            &[why],
        );
    }
    assert!(!home.path().join("new").exists(), "something was written");
    let tables = "SELECT to_regclass('lazyfox.jobs') IS NULL";
    assert_eq!(lazyfox_testing::shared().psql(&url, tables), "t");
    // It is the file: as it was it goes in.
    did(&home.run(&["import", "--data", "new", "whole.jsonl"]), &[]);
}

#[test]
fn what_the_store_refuses_leaves_it_empty() {
    let home = filled();
    let url = lazyfox_testing::shared().database();
    did(&home.run(&["export", "whole.jsonl"]), &[]);
    let whole = lines(&home.path().join("whole.jsonl"));
    // Whoever writes such a file by hand: the same place twice, and a job that no retry leads to.
    let mut twice = whole.clone();
    twice.insert(7, whole[6].clone());
    let twice = ended(&twice, |end| {
        end["end"]["counts"]["jobs_waiting"] = json!(5)
    });
    let mut wrong = whole.clone();
    wrong[6] = whole[6].replacen("\"retries\":0", "\"retries\":11", 1);
    let wrong = ended(&wrong, |_| {});
    for text in [twice, wrong] {
        fs::write(home.path().join("bad.jsonl"), text).expect("the file is written");
        refused(
            &home.run(&["import", "--data", "new", "bad.jsonl"]),
            &["onstraint"],
        );
        let into_database = home.run(&["import", "--database-url", &url, "bad.jsonl"]);
        refused(&into_database, &["constraint"]);
    }
    let jobs = "SELECT count(*) FROM lazyfox.jobs";
    assert_eq!(lazyfox_testing::shared().psql(&url, jobs), "0");
    did(
        &home.run(&["export", "--data", "new", "empty.jsonl"]),
        &["jobs: 0 "],
    );
    did(&home.run(&["import", "--data", "new", "whole.jsonl"]), &[]);
    did(
        &home.run(&["import", "--database-url", &url, "whole.jsonl"]),
        &[],
    );
}

#[test]
fn only_an_empty_store_is_filled_and_no_file_overwritten() {
    let home = filled();
    let url = lazyfox_testing::shared().database();
    did(&home.run(&["export", "whole.jsonl"]), &[]);
    let before = lines(&home.path().join("whole.jsonl"));
    let is_full = [
        "is not empty (jobs: 7, deliveries: 1, counters: ",
        "API keys: 1)",
    ];
    refused(&home.run(&["import", "whole.jsonl"]), &is_full);
    did(
        &home.run(&["import", "--database-url", &url, "whole.jsonl"]),
        &[],
    );
    refused(
        &home.run(&["import", "--database-url", &url, "whole.jsonl"]),
        &is_full,
    );
    refused(
        &home.run(&["export", "whole.jsonl"]),
        &["cannot make whole.jsonl"],
    );
    assert_eq!(lines(&home.path().join("whole.jsonl")), before);

    let mut server = home.serve();
    let serving = "is serving from it; stop that server first";
    refused(&home.run(&["export", "beside.jsonl"]), &[serving]);
    refused(&home.run(&["import", "whole.jsonl"]), &[serving]);
    assert!(!home.path().join("beside.jsonl").exists());
    assert!(server.stop().success());

    refused(
        &home.run(&["export", "--data", "none", "x.jsonl"]),
        &["there is no store in none"],
    );
    let empty = lazyfox_testing::shared().database();
    let nothing = home.run(&["export", "--database-url", &empty, "x.jsonl"]);
    refused(&nothing, &["there is no store in it"]);
    let both = ["export", "--data", "x", "--database-url", &empty, "x.jsonl"];
    refused(&home.run(&both), &["cannot be used with"]);
    assert!(!home.path().join("x.jsonl").exists());
}
