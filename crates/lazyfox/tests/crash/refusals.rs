//! Stores that cannot be used, as a user sees it: one message that says what to do, and code 2.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use crate::server::Home;

const CONFIG: &str = "[server]\nauth = \"none\"\n[endpoints.e]\n";

/// Where `user_version` stands in every SQLite database, as four bytes, the highest first.
const USER_VERSION_AT: u64 = 60;

#[track_caller]
fn refused(home: &Home, expected: &[&str]) {
    let output = home.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(2), ""),
        "{output:?}"
    );
    let error = output.stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: "), "{output:?}");
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

/// A store with a job, whose server has stopped.
fn stopped() -> Home {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    for _ in 0..50 {
        server.json(
            "POST",
            "e/run",
            &format!("{{\"input\":\"{}\"}}", "x".repeat(2000)),
        );
    }
    assert!(server.stop().success());
    drop(server);
    assert!(
        !home.database().with_extension("db-wal").exists(),
        "the store was left open"
    );
    home
}

#[test]
fn store_of_another_server_is_left_alone() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let ready = format!("ready on http://127.0.0.1:{}", home.port());
    assert_eq!(server.said(), [ready], "no key is made where none is used");
    let pid = server.pid().to_string();
    refused(
        &home,
        &["lazyfox-data", &format!("the process {pid}"), "--data"],
    );
    assert_eq!(server.call("POST", "e/run", "{\"input\":1}").status, 200);
    assert!(server.stop().success());
}

#[test]
fn damaged_store_is_not_touched() {
    let home = stopped();
    fs::write(home.database(), "this was a database once ".repeat(1000)).expect("written");
    refused(
        &home,
        &["lazyfox.db", "the file is damaged", "restore a backup"],
    );
    let text = fs::read_to_string(home.database()).expect("it is still text");
    assert!(text.starts_with("this was a database once"));

    // The first page is whole, and with it everything that a quick look sees.
    let home = stopped();
    let file = File::options()
        .write(true)
        .open(home.database())
        .expect("the database");
    let length = file.metadata().expect("its length").len();
    let junk = vec![0x5a; usize::try_from(length - 4096).expect("a small file")];
    file.write_all_at(&junk, 4096).expect("written");
    refused(
        &home,
        &["lazyfox.db", "the file is damaged", "restore a backup"],
    );
}

#[test]
fn store_of_a_newer_release_is_not_touched() {
    let home = stopped();
    let file = File::options()
        .write(true)
        .open(home.database())
        .expect("the database");
    file.write_all_at(&99_u32.to_be_bytes(), USER_VERSION_AT)
        .expect("written");
    let before = fs::read(home.database()).expect("it can be read");
    refused(
        &home,
        &[
            "lazyfox.db",
            "format is number 99",
            "start the newer release",
        ],
    );
    assert_eq!(fs::read(home.database()).expect("it can be read"), before);
}

/// The second server makes itself a key of its own.
#[test]
fn a_server_with_another_key_than_the_others_is_refused() {
    let url = lazyfox_testing::shared().database();
    let config = format!("[server]\nauth = \"none\"\ndatabase_url = {url:?}\n[endpoints.e]\n");
    let (first, second) = (Home::new(&config), Home::new(&config));
    let mut server = first.serve();
    refused(
        &second,
        &[
            "lazyfox-data/server.key is not the key of the other servers",
            "server.key_file",
        ],
    );
    assert!(server.stop().success());
    fs::copy(
        first.path().join("lazyfox-data/server.key"),
        second.path().join("lazyfox-data/server.key"),
    )
    .expect("both are there");
    let mut server = second.serve();
    assert_eq!(server.call("POST", "e/run", "{\"input\":1}").status, 200);
    assert!(server.stop().success());
}
