//! SIGHUP: the terminal is closed, and with it what was written to. The server ends as after SIGTERM.

use std::fs::{self, File};
use std::process::Command;

use rustix::process::Signal;

use crate::gate::{self, Gate};
use crate::process;
use crate::server::Home;

const SERVER: &str = "[server]\nauth = \"none\"\nshutdown_s = 20\n";

#[test]
fn a_closed_terminal_stops_the_server_and_leaves_no_worker() {
    let home = Home::new(&format!("{SERVER}{}", gate::endpoint("hands")));
    fs::create_dir(home.path().join("files")).expect("a folder for the worker");
    let gate = Gate::open();
    let listen = format!("127.0.0.1:{}", home.port());
    // Nothing can be written there, as on a terminal that is gone.
    let full = File::options().write(true).open("/dev/full");
    let mut server = home.wait_for(
        &mut home.lazyfox(&["serve", "--listen", &listen]),
        full.expect("the kernel has /dev/full"),
    );
    server.json("POST", "hands/run", &gate.job());
    let running = gate.accept();
    process::signal(server.pid(), Signal::HUP);
    running.release("in time");
    assert_eq!(server.stopped().code(), Some(0));
    assert_eq!(home.workers(), Vec::<i32>::new());
}

#[test]
fn a_server_that_was_started_to_outlive_its_terminal_does() {
    let home = Home::new(SERVER);
    let listen = format!("127.0.0.1:{}", home.port());
    let log = File::create(home.path().join("server.log")).expect("a log file");
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$0\" serve --listen \"$1\""])
        .args([env!("CARGO_BIN_EXE_lazyfox"), &listen])
        .current_dir(home.path());
    let mut server = home.wait_for(&mut command, log);
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("the server runs");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .expect("the kernel says what is ignored");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a number");
    assert_eq!(mask & 1, 1, "SIGHUP is not ignored any more");
    assert!(server.stop().success());
}
