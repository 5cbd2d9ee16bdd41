//! The real `lazyfox` binary with the endpoints of one test, started and stopped as a user would.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Answer, request};
use crate::{process, sdk};

pub(crate) mod permit;

/// The bound on every wait: far more than a cold worker on a busy machine takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How long the server may take to stop its workers and itself.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Every worker of a test carries this variable, whatever it does to its process group.
pub(crate) const MARK: &str = "LAZYFOX_TEST_SERVER";

/// An endpoint of the configuration file.
pub(crate) struct Endpoint {
    id: &'static str,
    command: [String; 2],
    env: Vec<(&'static str, String)>,
    settings: Vec<(&'static str, u64)>,
}

impl Endpoint {
    /// An endpoint with at most one worker, which runs a file of `handlers` with this SDK version.
    pub(crate) fn new(id: &'static str, version: &str, handler: &str) -> Self {
        let handler = sdk::file(&format!("handlers/{handler}"));
        Self {
            id,
            command: [sdk::python(version), handler],
            env: vec![],
            settings: vec![],
        }
    }

    /// Adds a variable to the worker's environment.
    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Sets a number of the endpoint's configuration.
    pub(crate) fn set(mut self, name: &'static str, value: u64) -> Self {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value));
        self
    }

    fn toml(&self, home: &Path, mark: &str) -> String {
        let home = home.to_str().expect("the temporary folder's path is UTF-8");
        let mut env = vec![
            (MARK, mark.to_owned()),
            // A credential in ~/.runpod would replace the one that the server gives its worker.
            ("HOME", home.to_owned()),
            // The checkout stays as it is.
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            // The SDK's own checks want the Internet, 4 GB and a tenth of the disk.
            ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true".to_owned()),
            ("RUNPOD_SKIP_GPU_CHECK", "true".to_owned()),
            // The default is DEBUG, which would push everything of interest out of a log's tail.
            ("RUNPOD_LOG_LEVEL", "INFO".to_owned()),
        ];
        env.extend(self.env.iter().cloned());
        let env: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name} = {}", quoted(value)))
            .collect();

        let mut text = format!(
            "[endpoints.{}]\ncommand = [{}, {}]\nworking_dir = {}\nenv = {{ {} }}\nworkers_min = 0\n",
            self.id,
            quoted(&self.command[0]),
            quoted(&self.command[1]),
            quoted(home),
            env.join(", "),
        );
        if !self.settings.iter().any(|(name, _)| *name == "workers_max") {
            text.push_str("workers_max = 1\n");
        }
        for (name, value) in &self.settings {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text
    }
}

/// A running server; dropping it stops it and makes sure that no worker is left.
pub(crate) struct Server {
    child: Child,
    port: u16,
    mark: String,
    dir: TempDir,
    _permit: permit::Permit,
}

impl Server {
    /// Starts a server with these endpoints and waits until it listens.
    pub(crate) fn start(endpoints: &[Endpoint]) -> Self {
        let permit = permit::take();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mark = dir
            .path()
            .to_str()
            .expect("the temporary folder's path is UTF-8")
            .to_owned();
        let config = dir.path().join("lazyfox.toml");
        let mut text = "[server]\nauth = \"none\"\nwebhook_allow = [\"127.0.0.0/8\"]\n".to_owned();
        for endpoint in endpoints {
            let home = dir.path().join(endpoint.id);
            fs::create_dir(&home).expect("a folder for the endpoint");
            text.push_str(&endpoint.toml(&home, &mark));
        }
        fs::write(&config, text).expect("the configuration is written");

        let log = fs::File::create(dir.path().join("server.log")).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_lazyfox"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(dir.path().join("data"))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        // From here on a panic stops the child as well.
        let mut server = Self {
            child,
            port: 0,
            mark,
            dir,
            _permit: permit,
        };
        server.port = server.ready();
        server
    }

    /// Reads the announcement of the address.
    fn ready(&mut self) -> u16 {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let (send, receive) = mpsc::channel();
        // A thread of its own, because the pipe must be drained for as long as the server lives.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(port) = line.strip_prefix("ready on http://127.0.0.1:") {
                    // The receiver is gone only when the test has failed already.
                    let _ = send.send(port.trim().parse::<u16>());
                }
            }
        });
        let port = receive
            .recv_timeout(DEADLINE)
            .expect("the server says that it is ready");
        port.expect("the announced port is a number")
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

    /// Asks the server to stop as a user does, and waits for it.
    fn stop(&mut self) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).map_err(|error| error.to_string())?;
        process::signal(pid, Signal::TERM);
        let in_time = process::ended(pid, STOP_DEADLINE);
        if !in_time {
            process::signal(pid, Signal::KILL);
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;

        // Whatever happened, the next test must not find this one's workers running.
        let mut left = process::with_variable(&format!("{MARK}={}", self.mark));
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

/// Whether the job has ended.
pub(crate) fn is_final(state: &Value) -> bool {
    match state["status"].as_str() {
        Some("IN_QUEUE" | "IN_PROGRESS") => false,
        Some("COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT") => true,
        _ => panic!("not a status: {state}"),
    }
}

/// A TOML basic string: for paths and words its escapes are those of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
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
