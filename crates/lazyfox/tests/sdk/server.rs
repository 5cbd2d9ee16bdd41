//! The real `lazyfox` binary with the endpoints of one test, started and stopped as a user would.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Answer, request};
use crate::{port, process};

pub(crate) mod endpoint;

pub(crate) use self::endpoint::Endpoint;

/// The bound on every wait: far more than a cold worker on a busy machine takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How long the server may take to stop its workers and itself.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Every worker of a test carries this variable, whatever it does to its process group.
pub(crate) const MARK: &str = "LAZYFOX_TEST_SERVER";

/// A running server; dropping it stops it and makes sure that no worker is left.
pub(crate) struct Server {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Server {
    /// Starts a server with these endpoints and waits until it listens.
    pub(crate) fn start(endpoints: &[Endpoint]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = port::free();
        let child = serve(dir.path(), port, endpoints);
        // From here on a panic stops the child as well.
        let mut server = Self { child, port, dir };
        server.until_ready();
        server
    }

    /// Waits for the announcement of the address.
    fn until_ready(&mut self) {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let (send, receive) = mpsc::channel();
        // A thread of its own, because the pipe must be drained for as long as the server lives.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("ready on ") {
                    // The receiver is gone only when the test has failed already.
                    let _ = send.send(line);
                }
            }
        });
        let line = receive
            .recv_timeout(DEADLINE)
            .expect("the server says that it is ready");
        assert_eq!(line, format!("ready on http://127.0.0.1:{}", self.port));
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }

    /// Kills the server, and nobody else.
    pub(crate) fn kill(&mut self) {
        process::signal(self.pid(), Signal::KILL);
        self.child.wait().expect("the server is our child");
    }

    /// Asks the server to stop, as a service manager does.
    pub(crate) fn ask_to_stop(&self) {
        process::signal(self.pid(), Signal::TERM);
    }

    /// Waits until the server has stopped by itself.
    pub(crate) fn stopped(&mut self) {
        assert!(
            process::ended(self.pid(), STOP_DEADLINE),
            "it does not stop"
        );
        let status = self.child.wait().expect("the server is our child");
        assert!(status.success(), "{status}");
    }

    /// Starts the server once more, where it was.
    pub(crate) fn start_again(&mut self, endpoints: &[Endpoint]) {
        self.child = serve(self.dir.path(), self.port, endpoints);
        self.until_ready();
    }

    /// Lets the server read another configuration, by the command for that.
    pub(crate) fn reload(&self, endpoints: &[Endpoint]) {
        configure(self.dir.path(), endpoints);
        let done = Command::new(env!("CARGO_BIN_EXE_lazyfox"))
            .args(["reload", "--url"])
            .arg(format!("http://127.0.0.1:{}", self.port))
            .current_dir(self.dir.path())
            .output()
            .expect("the command runs");
        assert!(done.status.success(), "{done:?}");
    }

    /// A file in the folder where the endpoint's handler finds its own.
    pub(crate) fn file(&self, endpoint: &str, name: &str) -> PathBuf {
        self.dir.path().join(endpoint).join(name)
    }

    /// What a worker that still runs has written.
    pub(crate) fn log_of(&self, worker: &str) -> String {
        let home = self.dir.path().join("data/workers").join(worker);
        fs::read_to_string(home.join("output.log")).expect("the worker has a log")
    }

    /// The base URL of the job API.
    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v2", self.port)
    }

    /// Calls the job API: `target` begins with the endpoint.
    pub(crate) fn call(&self, method: &str, target: &str, body: &Value) -> Value {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", "Bearer x"),
        ];
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        request(
            self.port,
            method,
            &format!("/v2/{target}"),
            &headers,
            body.as_bytes(),
        )
        .json()
    }

    /// Posts a result just as the worker SDK does, with what the worker was told.
    pub(crate) fn post_result(
        &self,
        template: &str,
        key: &str,
        worker: &str,
        job: &str,
        body: &Value,
    ) -> Answer {
        let url = template
            .replace("$RUNPOD_POD_ID", worker)
            .replace("$ID", job);
        let path = url
            .find("/v2/")
            .expect("the URL holds the path of the job API");
        let target = format!("{}&isStream=false", &url[path..]);
        let kind = "application/x-www-form-urlencoded";
        let headers = [
            ("authorization", key),
            ("content-type", kind),
            ("charset", "utf-8"),
        ];
        request(
            self.port,
            "POST",
            &target,
            &headers,
            body.to_string().as_bytes(),
        )
    }

    /// Submits an input and gives back the job's id.
    pub(crate) fn submit(&self, endpoint: &str, input: &Value) -> String {
        self.submit_whole(endpoint, &json!({ "input": input }))
    }

    /// Submits a request with more than an input.
    pub(crate) fn submit_whole(&self, endpoint: &str, body: &Value) -> String {
        let answer = self.call("POST", &format!("{endpoint}/run"), body);
        assert_eq!(answer["status"], "IN_QUEUE", "{answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    /// The job as it is now.
    pub(crate) fn status(&self, endpoint: &str, job: &str) -> Value {
        self.call("GET", &format!("{endpoint}/status/{job}"), &Value::Null)
    }

    /// Waits for the job's end.
    pub(crate) fn finished(&self, endpoint: &str, job: &str) -> Value {
        self.wait_until(endpoint, job, is_final)
    }

    /// Submits an input and waits for the job's end.
    pub(crate) fn run(&self, endpoint: &str, input: &Value) -> Value {
        let job = self.submit(endpoint, input);
        self.finished(endpoint, &job)
    }

    /// Waits until the job is as wanted; one that has ended otherwise fails the test at once.
    pub(crate) fn wait_until(
        &self,
        endpoint: &str,
        job: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let started = Instant::now();
        let mut state = self.status(endpoint, job);
        loop {
            if wanted(&state) {
                return state;
            }
            assert!(!is_final(&state), "the job ended otherwise: {state}");
            assert!(
                started.elapsed() < DEADLINE,
                "the job did not get there: {state}"
            );
            // The shortest wait that the API allows: it ends early only when the job does.
            let target = format!("{endpoint}/status-sync/{job}?wait=1000");
            state = self.call("GET", &target, &Value::Null);
        }
    }

    /// The endpoint's workers, as the API lists them.
    pub(crate) fn workers(&self, endpoint: &str) -> Value {
        self.call("GET", &format!("{endpoint}/workers"), &Value::Null)
    }

    /// Waits until the list of workers is as wanted.
    pub(crate) fn until_workers(&self, endpoint: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let workers = self.workers(endpoint);
            if wanted(&workers) {
                return workers;
            }
            assert!(started.elapsed() < DEADLINE, "not as wanted: {workers}");
            pause();
        }
    }

    /// Asks the server to stop as a user does, and waits for it.
    fn stop(&mut self) -> Result<(), String> {
        let pid = self.pid();
        process::signal(pid, Signal::TERM);
        let in_time = process::ended(pid, STOP_DEADLINE);
        if !in_time {
            process::signal(pid, Signal::KILL);
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;

        // Whatever happened, the next test must not find this one's workers running.
        let mut left = process::with_variable(&format!("{MARK}={}", mark(self.dir.path())));
        // A process that was killed a moment ago may still be on its way out.
        left.retain(|pid| !process::ended(*pid, Duration::from_secs(2)));
        for pid in &left {
            process::signal(*pid, Signal::KILL);
        }

        if !in_time {
            return Err(format!("the server did not stop within {STOP_DEADLINE:?}"));
        }
        if !status.success() {
            return Err(format!("the server ended with {status}"));
        }
        if !left.is_empty() {
            return Err(format!("the server left workers behind: {left:?}"));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.stop();
        let failing = std::thread::panicking();
        if failing || stopped.is_err() {
            show_logs(self.dir.path());
        }
        match stopped {
            Ok(()) => {}
            Err(message) if failing => eprintln!("{message}"),
            Err(message) => panic!("{message}"),
        }
    }
}

/// Between two looks at what nothing signals: whoever is looked at may need the core.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// Writes the configuration, and makes a folder for each endpoint.
fn configure(dir: &Path, endpoints: &[Endpoint]) {
    let mut text = "[server]\nauth = \"none\"\nwebhook_allow = [\"127.0.0.0/8\"]\n".to_owned();
    for endpoint in endpoints {
        let home = dir.join(endpoint.id());
        fs::create_dir_all(&home).expect("a folder for the endpoint");
        text.push_str(&endpoint.toml(&home, mark(dir)));
    }
    fs::write(dir.join("lazyfox.toml"), text).expect("the configuration is written");
}

/// Starts a server in a folder.
fn serve(dir: &Path, port: u16, endpoints: &[Endpoint]) -> Child {
    configure(dir, endpoints);
    let log = dir.join("server.log");
    let log = fs::File::options().create(true).append(true).open(log);
    Command::new(env!("CARGO_BIN_EXE_lazyfox"))
        .args([
            "serve",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--config",
        ])
        .arg(dir.join("lazyfox.toml"))
        .arg("--data")
        .arg(dir.join("data"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.expect("a log file"))
        .spawn()
        .expect("the server starts")
}

/// What is in the environment of every worker of a server.
fn mark(dir: &Path) -> &str {
    dir.to_str().expect("the temporary folder's path is UTF-8")
}

/// Whether the job has ended.
pub(crate) fn is_final(state: &Value) -> bool {
    match state["status"].as_str() {
        Some("IN_QUEUE" | "IN_PROGRESS") => false,
        Some("COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT") => true,
        _ => panic!("not a status: {state}"),
    }
}

/// The ends of all logs, the server's and the workers', for the reader of a failure.
fn show_logs(dir: &Path) {
    const TAIL_LINES: usize = 60;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            show_logs(&path);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!("--- {}\n{}", path.display(), tail.join("\n"));
        }
    }
}
