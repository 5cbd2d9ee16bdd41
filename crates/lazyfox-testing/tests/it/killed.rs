//! Nothing stays behind of a test process, however it ends.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::client::GUARD;
use crate::process::Process;

/// A process with a cluster in a static, which no destructor ever ends.
struct Holder {
    process: Child,
    server: Process,
    keeper: Vec<Process>,
    directory: PathBuf,
}

impl Holder {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_scratch-postgres"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut lines = output.lines().map(|line| line.expect("it is text"));
        let mut value = |name: &str| {
            let line = lines.next().expect("it says what it started");
            let value = line.strip_prefix(name).map(|it| it.trim().to_owned());
            value.unwrap_or_else(|| panic!("{name}: {line}"))
        };
        let _ = value("url");
        let directory = PathBuf::from(value("directory"));
        let server: u32 = value("process").parse().expect("it is a number");
        assert!(directory.join("data/postmaster.pid").exists());

        let keeper = Process::children_of(process.id());
        assert_eq!(keeper.len(), 1);
        Self {
            server: Process::find(server).expect("the server runs"),
            keeper,
            directory,
            process,
        }
    }

    fn until_nothing_is_left(self) {
        self.server.until_ended("the server");
        self.keeper[0].until_ended("the keeper");
        assert!(!Path::new(&self.directory).exists());
    }
}

#[test]
fn a_killed_test_takes_its_server_along() {
    let mut holder = Holder::start();
    holder.process.kill().expect("it runs");
    holder.process.wait().expect("it is our child");
    holder.until_nothing_is_left();
}

#[test]
fn a_test_that_is_killed_during_the_start_leaves_nothing_behind_either() {
    let place = tempfile::tempdir().unwrap();
    // Also for the account that the server runs as.
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_scratch-postgres"))
        .env("TMPDIR", place.path())
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    let content = |directory: &Path| fs::read_dir(directory).unwrap().flatten().next();
    let is_making = || content(place.path()).is_some_and(|it| it.path().join("order.log").exists());
    let started = Instant::now();
    while !is_making() {
        assert!(started.elapsed() < GUARD, "it makes no cluster");
        thread::yield_now();
    }
    let keeper = Process::children_of(process.id());
    process.kill().expect("it runs");
    process.wait().expect("it is our child");
    keeper[0].until_ended("the keeper");
    assert!(content(place.path()).is_none());
}

#[test]
fn a_test_that_ends_takes_the_shared_server_along() {
    let mut holder = Holder::start();
    drop(holder.process.stdin.take());
    assert!(holder.process.wait().expect("it is our child").success());
    holder.until_nothing_is_left();
}
