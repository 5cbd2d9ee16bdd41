//! The public clients: scripts that use everything they offer and fail at the first surprise.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::process;
use crate::sdk::{self, LATEST};
use crate::server::{DEADLINE, Endpoint, Server};

#[test]
fn python_client_gets_what_it_expects() {
    let server = endpoints_for_clients();
    run_python(&server, "clients/client_sync.py");
}

#[test]
fn python_asyncio_client_gets_what_it_expects() {
    let server = endpoints_for_clients();
    run_python(&server, "clients/client_asyncio.py");
}

#[test]
fn javascript_client_gets_what_it_expects() {
    let server = endpoints_for_clients();
    let mut node = Command::new("node");
    node.args([
        sdk::file("clients/client.mjs"),
        server.base_url(),
        sdk::js(),
    ]);
    run(node);
}

fn endpoints_for_clients() -> Server {
    Server::start(&[
        Endpoint::new("sync", LATEST, "sync_handler.py"),
        Endpoint::new("async", LATEST, "async_handler.py"),
        Endpoint::new("stream", LATEST, "stream_handler.py"),
    ])
}

fn run_python(server: &Server, script: &str) {
    let mut python = Command::new(sdk::python(LATEST));
    python
        .arg(sdk::file(script))
        .env("RUNPOD_ENDPOINT_BASE_URL", server.base_url())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run(python);
}

/// Runs a client to its end, and shows what it wrote if that was not success.
fn run(mut command: Command) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // A file and not a pipe, so that nobody has to read while the client runs.
    let log = dir.path().join("client.log");
    let file = fs::File::create(&log).expect("a log file");
    let mut child = command
        // A credential in ~/.runpod would be used instead of the script's.
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file)
        .spawn()
        .expect("the client starts");
    let pid = i32::try_from(child.id()).expect("a process id fits");
    let in_time = process::ended(pid, DEADLINE);
    if !in_time {
        process::signal(pid, Signal::KILL);
    }
    let status = child.wait().expect("the client can be waited for");
    let output = fs::read_to_string(&log).unwrap_or_default();
    assert!(
        in_time && status.success(),
        "{command:?} ({status})\n{output}"
    );
}
