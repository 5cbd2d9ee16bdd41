//! Two servers on one database, of which one stands still or dies while it is in charge.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::process;
use crate::server::{DEADLINE, Home, Server};

/// Two servers' homes, with one key.
fn homes(url: &str) -> (Home, Home) {
    let first = home(url, "");
    let key = first.path().join("lazyfox-data/server.key");
    let second = home(url, &format!("key_file = {key:?}\n"));
    (first, second)
}

fn home(url: &str, key: &str) -> Home {
    Home::new(&format!(
        "[server]\nauth = \"none\"\ndatabase_url = {url:?}\n{key}[endpoints.sleepers]\n\
         command = [\"sleep\", \"600\"]\nworkers_max = 2\nscaler = \"REQUEST_COUNT\"\n\
         scaler_value = 1\nidle_timeout_s = 600\ninit_timeout_s = 600\nenv = {{ MARK }}\n"
    ))
}

/// Waits until the workers of the endpoint are so, by what a server says.
fn until(server: &Server<'_>, so: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let shown = server.json("GET", "sleepers/workers", "");
        if so(&shown) {
            return shown;
        }
        assert!(started.elapsed() < DEADLINE, "it stays so: {shown}");
        std::thread::yield_now();
    }
}

fn is_in_charge(shown: &Value) -> bool {
    shown["charge"]["here"] == true
}

#[test]
fn a_server_that_stood_still_starts_nothing_when_it_goes_on() {
    let url = lazyfox_testing::shared().database();
    let (first, second) = homes(&url);
    let (mut a, mut b) = (first.serve(), second.serve());
    until(&a, is_in_charge);
    process::signal(a.pid(), Signal::STOP);
    until(&b, is_in_charge);
    // Both would start a worker now, if they may.
    b.json("POST", "sleepers/run", r#"{"input":1}"#);
    until(&b, |it| it["summary"]["initializing"] == 1);
    process::signal(a.pid(), Signal::CONT);
    let shown = until(&a, |it| it["summary"]["elsewhere"] == 1);
    assert_eq!(shown["charge"]["here"], false, "{shown}");
    assert_eq!(shown["summary"]["total"], 1, "{shown}");
    assert_eq!(first.workers(), Vec::<i32>::new());
    assert!(is_in_charge(&until(&b, |_| true)));
    assert!(a.stop().success());
    assert!(b.stop().success());
}

#[test]
fn the_workers_of_a_server_that_died_have_their_places_until_they_are_gone() {
    let url = lazyfox_testing::shared().database();
    let (first, second) = homes(&url);
    let (mut a, mut b) = (first.serve(), second.serve());
    until(&a, is_in_charge);
    a.json("POST", "sleepers/run", r#"{"input":1}"#);
    until(&a, |it| it["summary"]["initializing"] == 1);
    process::signal(a.pid(), Signal::KILL);
    a.gone();
    until(&b, is_in_charge);
    for _ in 0..3 {
        b.json("POST", "sleepers/run", r#"{"input":1}"#);
    }
    // Two are wanted, and two may be there.
    let shown = until(&b, |it| it["summary"]["initializing"] == 1);
    assert_eq!(shown["summary"]["elsewhere"], 1, "{shown}");
    let scaler = b.json("GET", "sleepers/scaler", "");
    assert_eq!(scaler["decisions"][0]["inputs"]["elsewhere"], 1, "{scaler}");

    // Its next life has its worker back, and lets it go: the charge is another's.
    let mut a = first.serve();
    until(&a, |it| it["stopped"][0].is_object());
    until(&b, |it| it["summary"]["initializing"] == 2);
    assert!(a.stop().success());
    assert!(b.stop().success());
}
