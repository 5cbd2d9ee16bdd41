//! The real server, with workers of the public SDK in containers.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::{self, Engine};
use crate::http::request;
use crate::place::{Place, write};
use crate::{image, process};

/// The bound on every wait: far more than a cold worker on a busy machine takes.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long the server may take to stop its workers and itself.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// A server whose endpoint `box` has at most one worker, a container.
struct Server {
    engine: Arc<Engine>,
    place: Place,
    port: u16,
    child: Option<Child>,
}

impl Server {
    async fn start() -> Self {
        let engine = engine::shared().await;
        let docker = engine.docker().await;
        engine
            .has_python
            .get_or_init(|| image::load_python(&docker))
            .await;
        // The workers know the port, so it stays the same when the server is started again.
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let place = Place::new();
        let handlers = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docker/handlers");
        let config = format!(
            "[server]\nauth = \"none\"\ndocker_host = \"{}\"\n[endpoints.box]\nimage = \"{}\"\n\
             command = [\"python3\", \"/handlers/handler.py\"]\npull = \"never\"\n\
             mounts = [\"{handlers}:/handlers:ro\", \"{}:/shared\"]\nworkers_max = 1\n\
             memory_mib = 1024\nenv = {{ MODEL = \"small\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n",
            engine.host(),
            image::PYTHON,
            place.shared().display(),
        );
        fs::write(place.shared().join("lazyfox.toml"), config).expect("a configuration");
        let mut server = Self {
            engine,
            place,
            port,
            child: None,
        };
        server.run();
        server
    }

    /// Starts the server and returns when it is ready.
    fn run(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log());
        let mut child = Command::new(env!("CARGO_BIN_EXE_lazyfox"))
            .args(["serve", "--config"])
            .arg(self.place.shared().join("lazyfox.toml"))
            .arg("--data")
            .arg(self.data())
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .env("LAZYFOX_SECRET_OF_THE_SERVER", "hidden")
            .env("AWS_SECRET_ACCESS_KEY", "hidden")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let ready = lines.any(|line| line.starts_with("ready on "));
        assert!(ready, "{}", self.logged());
        // The pipe must be drained for as long as the server lives.
        std::thread::spawn(move || lines.count());
    }

    fn log(&self) -> PathBuf {
        self.place.shared().join("server.log")
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.place.data().with_file_name("data")
    }

    fn signal(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("it runs");
        process::signal(child.id(), signal);
        assert!(
            process::ended(child.id(), STOP_DEADLINE),
            "the server does not end"
        );
        let _ = child.wait();
    }

    fn call(&self, method: &str, target: &str, body: &Value) -> Value {
        let headers = [("content-type", "application/json")];
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let target = format!("/v2/box/{target}");
        request(self.port, method, &target, &headers, body.as_bytes()).json()
    }

    fn submit(&self, input: &Value) -> String {
        let answer = self.call("POST", "run", &json!({ "input": input }));
        answer["id"].as_str().expect("an id").to_owned()
    }

    /// The job when it has ended.
    fn finished(&self, job: &str) -> Value {
        let begun = Instant::now();
        loop {
            let state = self.call("GET", &format!("status-sync/{job}?wait=5000"), &Value::Null);
            if !["IN_QUEUE", "IN_PROGRESS"].contains(&state["status"].as_str().unwrap_or_default())
            {
                return state;
            }
            assert!(begun.elapsed() < DEADLINE, "{state}\n{}", self.logged());
        }
    }

    async fn containers(&self) -> usize {
        let id = fs::read_to_string(self.data().join("containers/server-id")).unwrap_or_default();
        self.engine
            .containers(&format!("dev.lazyfox.server={id}"))
            .await
            .len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.signal(Signal::TERM);
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logged());
        }
    }
}

/// What is written to a named pipe, read on a thread that a failed test does not wait for.
async fn read(fifo: PathBuf) -> String {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(fs::read_to_string(fifo)).ok());
    let read = tokio::time::timeout(DEADLINE, result)
        .await
        .expect("nobody writes to the pipe");
    read.expect("the thread lives").expect("the pipe is read")
}

#[tokio::test]
async fn a_worker_in_a_container_does_jobs_and_sees_nothing_of_the_server() {
    let mut server = Server::start().await;
    let job = server.submit(&json!({"mode": "env"}));
    let state = server.finished(&job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    let env = state["output"].as_object().unwrap();
    assert_eq!(env["MODEL"], "small");
    assert_eq!(env["RUNPOD_ENDPOINT_ID"], "box");
    assert_eq!(env["RUNPOD_POD_ID"], state["workerId"]);
    let hidden = [
        "LAZYFOX_SECRET_OF_THE_SERVER",
        "AWS_SECRET_ACCESS_KEY",
        "DOCKER_HOST",
    ];
    assert!(
        hidden.iter().all(|name| !env.contains_key(*name)),
        "{env:?}"
    );
    assert_eq!(server.containers().await, 1);
    server.signal(Signal::TERM);
    assert_eq!(server.containers().await, 0, "{}", server.logged());
}

#[tokio::test]
async fn cancelling_ends_one_that_ignores_signals_and_the_next_job_gets_another() {
    let server = Server::start().await;
    let arrived = server.place.fifo("arrived");
    server.place.fifo("go");
    let stubborn = server.submit(&json!({"mode": "block"}));
    assert_eq!(read(arrived).await, stubborn);
    let first = server.call("GET", &format!("status/{stubborn}"), &Value::Null);
    let cancelled = server.call("POST", &format!("cancel/{stubborn}"), &json!({}));
    assert_eq!(cancelled["status"], "CANCELLED", "{cancelled}");
    let job = server.submit(&json!({"mode": "env"}));
    let state = server.finished(&job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_ne!(state["workerId"], first["workerId"]);
    assert_eq!(server.containers().await, 1);
}

#[tokio::test]
async fn a_worker_outlives_a_killed_server_and_its_job_completes_under_the_next() {
    let mut server = Server::start().await;
    let (arrived, go) = (server.place.fifo("arrived"), server.place.fifo("go"));
    let job = server.submit(&json!({"mode": "wait"}));
    assert_eq!(read(arrived).await, job);
    let before = server.call("GET", &format!("status/{job}"), &Value::Null);
    server.signal(Signal::KILL);
    assert_eq!(server.containers().await, 1);
    server.run();
    write(go, "on").await;
    let state = server.finished(&job);
    assert_eq!(
        (&state["status"], &state["output"]["word"]),
        (&json!("COMPLETED"), &json!("on"))
    );
    assert_eq!(state["workerId"], before["workerId"], "{state}");
    assert_eq!(state.get("retries"), None, "{state}");
    server.signal(Signal::TERM);
    assert_eq!(server.containers().await, 0, "{}", server.logged());
}
