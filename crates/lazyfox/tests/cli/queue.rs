//! Looking at the queue and emptying it.

use serde_json::{Value, json};

use crate::server::Home;
use crate::worker::work;

const CONFIG: &str = "[server]\nauth = \"none\"\n[endpoints.fox]\n";

/// Two waiting jobs, one completed and one failed.
fn fill(home: &Home) {
    for end in [json!({"output": 1}), json!({"error": "no fox\nat all"})] {
        home.run(&["run", "fox", "1"]);
        work(home, "w", &[], &end);
    }
    home.run(&["run", "fox", "1"]);
    home.run(&["run", "fox", "1"]);
}

#[test]
fn health_counts_for_people_and_scripts() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    fill(&home);
    let health = home.run(&["health", "fox"]);
    assert_eq!(health.code, Some(0), "{health:?}");
    let words: Vec<Vec<&str>> = health
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for line in [
        &["jobs"][..],
        &["completed", "1"],
        &["failed", "1"],
        &["inQueue", "2"],
        &["workers"],
    ] {
        assert!(
            words.iter().any(|words| words == line),
            "{line:?} is not in {}",
            health.stdout
        );
    }
    let health = home.run(&["health", "fox", "--json"]);
    let health: Value = serde_json::from_str(&health.stdout).expect("JSON");
    assert_eq!(health["jobs"]["inQueue"], 2, "{health}");
    assert!(server.stop().success());
}

#[test]
fn requests_list_the_newest_first() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    fill(&home);
    let listed = home.run(&["requests", "fox"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let lines: Vec<&str> = listed.stdout.lines().collect();
    let second = lines
        .iter()
        .map(|line| line.split_whitespace().nth(1).expect("a word"));
    let expected = ["STATUS", "IN_QUEUE", "IN_QUEUE", "FAILED", "COMPLETED"];
    assert_eq!(second.collect::<Vec<_>>(), expected, "{}", listed.stdout);
    assert!(
        lines[3].contains("no fox") && !listed.stdout.contains("at all"),
        "{}",
        listed.stdout
    );

    let failed = home.run(&["requests", "fox", "--status", "FAILED", "--json"]);
    let failed: Value = serde_json::from_str(&failed.stdout).expect("one page");
    assert_eq!(
        failed["requests"].as_array().map(Vec::len),
        Some(1),
        "{failed}"
    );
    let one = home.run(&["requests", "fox", "--limit", "1"]);
    assert_eq!(one.stdout.lines().count(), 2, "{one:?}");
    let unknown = home.run(&["requests", "fox", "--status", "SAD"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(
        unknown.stderr.contains("it should be one of IN_QUEUE"),
        "{unknown:?}"
    );
    assert!(server.stop().success());
}

#[test]
fn purge_removes_what_waits_and_asks_first() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    fill(&home);
    let unsure = home.run(&["purge-queue", "fox"]);
    assert_eq!(unsure.code, Some(2), "{unsure:?}");
    assert!(unsure.stderr.contains("say --yes"), "{unsure:?}");
    let purged = home.run(&["purge-queue", "fox", "--yes"]);
    assert_eq!(
        (purged.code, purged.stdout.as_str()),
        (Some(0), "removed 2 waiting jobs\n")
    );
    let health = server.json("GET", "fox/health", "");
    assert_eq!(health["jobs"]["inQueue"], 0, "{health}");
    let again = home.run(&["purge-queue", "fox", "--yes", "--json"]);
    let again: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again, json!({"removed": 0, "status": "completed"}));
    let ended = home.run(&["requests", "fox", "--status", "CANCELLED"]);
    assert_eq!(ended.stdout.lines().count(), 3, "{ended:?}");
    assert!(server.stop().success());
}
