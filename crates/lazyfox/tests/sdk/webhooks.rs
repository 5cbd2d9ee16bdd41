//! The receivers of `examples/webhooks`, which verify with the public libraries of their languages what the
//! real server signs for the jobs of a real worker.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver as Lines, channel};
use std::time::Instant;

use serde_json::{Value, json};

use crate::sdk::{self, LATEST};
use crate::server::{DEADLINE, Endpoint, Server};

#[test]
fn the_python_library_verifies_deliveries() {
    let mut python = Command::new(sdk::python("webhooks"));
    python.arg(example("receiver.py"));
    deliveries_verify(python);
}

#[test]
fn the_javascript_library_verifies_deliveries() {
    // Modules are looked for beside the script that names them.
    let dir = Path::new(&sdk::js()).join("webhooks");
    std::fs::create_dir_all(&dir).expect("a folder");
    let script = dir.join("receiver.mjs");
    std::fs::copy(example("receiver.mjs"), &script).expect("the example can be read");
    let mut node = Command::new("node");
    node.arg(script);
    deliveries_verify(node);
}

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/webhooks")
        .join(name)
}

fn deliveries_verify(command: Command) {
    let server = Server::start(&[Endpoint::new("sync", LATEST, "sync_handler.py")]);
    let secret = new_secret(&server, "");
    let receiver = Receiver::start(command, &secret);

    let text = "é ☃ \u{1f98a} \"quoted\" \n";
    let done = submit(
        &server,
        &receiver.url,
        &json!({"mode": "return", "value": text}),
    );
    assert_eq!(receiver.line(), format!("COMPLETED {done}_1"));
    let failed = submit(&server, &receiver.url, &json!({"mode": "raise"}));
    assert_eq!(receiver.line(), format!("FAILED {failed}_1"));

    // While the secret is changed both are good, and the receiver still has the first one.
    new_secret(&server, "");
    let done = submit(
        &server,
        &receiver.url,
        &json!({"mode": "return", "value": 2}),
    );
    assert_eq!(receiver.line(), format!("COMPLETED {done}_1"));
    // The first one is over now.
    new_secret(&server, "?overlap=0");
    let refused = submit(
        &server,
        &receiver.url,
        &json!({"mode": "return", "value": 3}),
    );
    assert_eq!(receiver.line(), "refused: No matching signature found");
    let delivery = tried(&server, &refused);
    assert_eq!(delivery["tries"][0]["status"], 400, "{delivery}");
}

fn new_secret(server: &Server, query: &str) -> String {
    let made = server.call("POST", &format!("sync/webhook-secret{query}"), &json!({}));
    let secret = made["secret"].as_str();
    secret.expect("it is shown once").to_owned()
}

fn submit(server: &Server, webhook: &str, input: &Value) -> String {
    let job = json!({"input": input, "webhook": webhook});
    let accepted = server.call("POST", "sync/run", &job);
    accepted["id"].as_str().expect("an id").to_owned()
}

/// A job's delivery, when a try has been noted.
fn tried(server: &Server, job: &str) -> Value {
    let started = Instant::now();
    loop {
        let list = server.call("GET", &format!("sync/deliveries?job={job}"), &Value::Null);
        let delivery = &list["deliveries"][0];
        if delivery["tries"] != json!([]) {
            return delivery.clone();
        }
        assert!(started.elapsed() < DEADLINE, "no try of {job}");
    }
}

/// A running receiver; dropped, it is ended.
struct Receiver {
    child: Child,
    lines: Lines<String>,
    url: String,
}

impl Receiver {
    fn start(mut command: Command, secret: &str) -> Self {
        let mut child = command
            .env("WEBHOOK_SECRET", secret)
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut receiver = Self {
            child,
            lines,
            url: String::new(),
        };
        receiver.url = receiver.line();
        receiver
    }

    /// The next line that it prints.
    fn line(&self) -> String {
        let line = self.lines.recv_timeout(DEADLINE);
        line.expect("the receiver says something")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
