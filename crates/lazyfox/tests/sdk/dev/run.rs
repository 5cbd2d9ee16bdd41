//! Runs `lazyfox dev` as a person would, and reads along.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::request;
use crate::process;
use crate::sdk::{self, LATEST};
use crate::server::{DEADLINE, MARK};

/// For what has been killed already.
pub(super) const MOMENT: Duration = Duration::from_secs(5);

/// A folder for handlers and data; what is started here carries its mark.
pub(super) struct Place {
    dir: TempDir,
}

/// What a command left.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Sent {
    /// The only thing on standard output.
    pub(super) fn document(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Place {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(super) fn folder(&self) -> String {
        self.dir
            .path()
            .to_str()
            .expect("the temporary folder's path is UTF-8")
            .to_owned()
    }

    /// Who may look into the data directory.
    pub(super) fn data_mode(&self) -> u32 {
        let data = std::fs::metadata(self.dir.path().join("data"));
        data.expect("it was made").permissions().mode() & 0o777
    }

    /// Writes a handler.
    pub(super) fn handler(&self, text: &str) -> String {
        let path = self.dir.path().join("handler.py");
        std::fs::write(&path, text).expect("the handler is written");
        format!("{}/handler.py", self.folder())
    }

    /// What was started here and still runs.
    pub(super) fn workers(&self) -> Vec<i32> {
        process::with_variable(&format!("{MARK}={}", self.folder()))
    }

    /// The command; nothing is installed, because the Python has the SDK.
    fn command(&self, handler: &str, arguments: &[&str]) -> Command {
        let mark = format!("{MARK}={}", self.folder());
        let data = format!("{}/data", self.folder());
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazyfox"));
        command.args(["dev", handler, "--data", &data, "--env", &mark]);
        if !arguments.contains(&"--python") {
            command.args(["--python", &sdk::python(LATEST)]);
        }
        command
            .args(arguments)
            .args([
                "--env",
                "PYTHONDONTWRITEBYTECODE=1",
                "--env",
                "RUNPOD_SKIP_GPU_CHECK=true",
            ])
            // A credential in ~/.runpod would replace the one that the worker is given.
            .env("HOME", self.folder())
            .env_remove("LAZYFOX_LOG")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs one job to its end.
    pub(super) fn send(&self, handler: &str, input: &str, arguments: &[&str]) -> Sent {
        let mut command = self.command(handler, arguments);
        let child = command.args(["--send", input]).spawn().expect("it starts");
        let pid = i32::try_from(child.id()).expect("a process id fits");
        // Both pipes are drained meanwhile, on the threads that this starts.
        let output = std::thread::scope(|scope| {
            let output = scope.spawn(move || child.wait_with_output().expect("it is our child"));
            if !process::ended(pid, DEADLINE) {
                process::signal(pid, Signal::KILL);
            }
            output.join().expect("no panic")
        });
        assert_eq!(self.workers(), Vec::<i32>::new(), "left running");
        Sent {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("it prints UTF-8"),
        }
    }

    /// Serves on a free port.
    pub(super) fn dev(&self, handler: &str, arguments: &[&str]) -> Dev {
        let listen = ["--listen", "127.0.0.1:0"];
        let mut dev = Dev::start(self, handler, &[&listen, arguments].concat());
        let line = dev.until("  Endpoint  http://127.0.0.1:");
        let address = line.split("127.0.0.1:").nth(1).expect("it is in the line");
        let (port, endpoint) = address.split_once("/v2/").expect("a URL of an endpoint");
        dev.port = port.parse().expect("a port");
        dev.endpoint = endpoint.to_owned();
        dev
    }
}

/// A `lazyfox dev` that runs until it is told to stop.
pub(super) struct Dev {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
    mark: String,
    port: u16,
    endpoint: String,
}

impl Dev {
    pub(super) fn start(place: &Place, handler: &str, arguments: &[&str]) -> Self {
        let mut child = place
            .command(handler, arguments)
            .spawn()
            .expect("it starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (send, lines) = mpsc::channel();
        // Drained to the end, also when nobody listens any more.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self {
            child,
            lines,
            said: Vec::new(),
            mark: format!("{MARK}={}", place.folder()),
            port: 0,
            endpoint: String::new(),
        }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Waits for a line that contains this.
    pub(super) fn until(&mut self, part: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(DEADLINE) else {
                panic!("{part:?} was not said:\n{}", self.said.join("\n"));
            };
            self.said.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    fn call(&self, target: &str, body: &str) -> Value {
        let target = format!("/v2/{}/{target}", self.endpoint);
        let headers = [("content-type", "application/json")];
        request(self.port, "POST", &target, &headers, body.as_bytes()).json()
    }

    pub(super) fn run(&self, body: &str) -> String {
        self.call("run", body)["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    pub(super) fn runsync(&self, body: &str) -> Value {
        self.call("runsync?wait=50000", body)
    }

    pub(super) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for its end.
    pub(super) fn code(&mut self) -> Option<i32> {
        assert!(
            process::ended(self.pid(), DEADLINE),
            "it does not end:\n{}",
            self.said.join("\n")
        );
        self.child.wait().expect("it is our child").code()
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Only a test that failed leaves anything here.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in process::with_variable(&self.mark) {
            process::signal(pid, Signal::KILL);
        }
    }
}
