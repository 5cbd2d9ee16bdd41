//! `lazyfox worker` as users run it: the real program, a real server, and commands that behave badly.

mod exec;
mod http;
mod life;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process;
use crate::server::{DEADLINE, Home, Server};

/// Everything that a worker starts carries the mark, so that the end of a test shows what is left. Nothing
/// is found out by waiting for a lease to end.
const CONFIG: &str = "[server]\nauth = \"none\"\n[endpoints.fox]\nlease_s = 3600\nenv = { MARK }\n";

const JOB: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/cli/generic_worker/job.py"
);

/// What `worker-env` gives.
fn environment(home: &Home, name: &str) -> BTreeMap<String, String> {
    let made = home.run(&["worker-env", "fox", "--worker", name, "--format", "json"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    serde_json::from_str(&made.stdout).expect("an object of texts")
}

/// A worker that this test started.
struct Worker {
    child: Child,
    log: Receiver<String>,
}

impl Worker {
    fn start(home: &Home, name: &str, arguments: &[&str]) -> Self {
        let mut command = home.lazyfox(&[&["worker"], arguments].concat());
        command
            .envs(environment(home, name))
            .env("LAZYFOX_API_KEY", "lfx_of_the_person")
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the worker starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (send, log) = mpsc::channel();
        // A thread of its own, because the pipe must be drained for as long as the worker lives.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // The receiver is gone once the test is through.
                let _ = send.send(line);
            }
        });
        Self { child, log }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }

    fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits until it writes this to its log, and gives the line.
    fn says(&self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|_| panic!("it does not say {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for its end.
    fn ended(&mut self) -> ExitStatus {
        assert!(
            process::ended(self.pid(), DEADLINE),
            "the worker does not end"
        );
        self.child.wait().expect("it is our child")
    }

    /// Lets it end as it should.
    fn stop(mut self) {
        self.signal(Signal::TERM);
        assert!(self.ended().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where jobs arrive in the middle of their work.
struct Gate(TcpListener);

impl Gate {
    fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    fn input(&self) -> Value {
        let address = self.0.local_addr().expect("it is bound");
        json!({"gate": address.port()})
    }

    /// Waits for the next job.
    fn accept(&self) -> Arrival {
        assert!(process::readable(&self.0, DEADLINE), "no job arrived");
        let (stream, _) = self.0.accept().expect("somebody connects");
        let timeout = Some(DEADLINE);
        stream.set_read_timeout(timeout).expect("it is above zero");
        let mut stream = BufReader::new(stream);
        let hello = serde_json::from_str(&line(&mut stream)).expect("a line of JSON");
        Arrival { hello, stream }
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("the job is there");
    line
}

/// A job in the middle of its work.
struct Arrival {
    hello: Value,
    stream: BufReader<TcpStream>,
}

impl Arrival {
    fn pid(&self, which: &str) -> i32 {
        let pid = self.hello[which].as_i64().expect("a number");
        i32::try_from(pid).expect("a process id fits")
    }

    /// Lets it finish.
    fn release(&mut self, word: &str) {
        let stream = self.stream.get_mut();
        stream
            .write_all(format!("{word}\n").as_bytes())
            .expect("the job listens");
    }

    /// Waits until it and its children are gone.
    fn gone(&self) {
        for which in ["pid", "away", "bare"] {
            let pid = self.pid(which);
            assert!(process::ended(pid, DEADLINE), "{which} {pid} is left");
        }
    }
}

fn submit(server: &Server<'_>, input: &Value) -> String {
    let answer = server.json("POST", "fox/run", &json!({ "input": input }).to_string());
    answer["id"].as_str().expect("an id").to_owned()
}

/// The state of a job that ends.
fn state(server: &Server<'_>, job: &str) -> Value {
    server.json("GET", &format!("fox/status-sync/{job}?wait=50000"), "")
}

/// Runs one job to its end.
fn run(server: &Server<'_>, input: &Value) -> Value {
    state(server, &submit(server, input))
}

#[track_caller]
fn completed(state: &Value, output: &Value) {
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state["output"], *output, "{state}");
}

#[track_caller]
fn failed(state: &Value, parts: &[&str]) {
    assert_eq!(state["status"], "FAILED", "{state}");
    let error = state["error"].as_str().expect("a text");
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}
