//! Looking at what workers wrote: real ones, that die before they are ready.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use rustix::process::Signal;
use serde_json::Value;

use crate::process;
use crate::server::{DEADLINE, Home};

const CONFIG: &str = r#"
[server]
auth = "none"
[endpoints.fox]
command = ["sh", "-c", "echo loading; echo 'no module named torch' >&2; exit 3"]
env = { MARK }
"#;

/// A `lazyfox logs` that goes on. Dropped, it is killed.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut child = home
            .lazyfox(&[&["logs", "fox", "--follow"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // When the receiver is gone, so is the reading end.
            lines
                .take_while(|line| send.send(line.clone()).is_ok())
                .for_each(drop);
        });
        Self { child, lines }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }

    /// Its lines up to the first one with this text.
    fn until(&self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(DEADLINE) else {
                panic!("{text:?} does not come after {seen:#?}");
            };
            let found = line.contains(text);
            seen.push(line);
            if found {
                return seen;
            }
        }
    }

    /// Waits for its end: its exit code, and what it said about the way.
    fn ended(&mut self) -> (Option<i32>, String) {
        assert!(process::ended(self.pid(), DEADLINE), "it does not end");
        let code = self.child.wait().expect("our child").code();
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("text");
        (code, said)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The documents that `lazyfox logs` prints.
fn documents(home: &Home, arguments: &[&str]) -> Vec<Value> {
    let output = home.run(&[&["logs", "fox", "--json"], arguments].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let documents = output.stdout.lines().map(serde_json::from_str);
    documents.collect::<Result<_, _>>().expect("documents")
}

#[test]
fn a_worker_that_dies_at_once_leaves_its_lines_for_good() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let following = Following::start(&home, &[]);
    server.json("POST", "fox/run", "{\"input\":1}");
    let seen = following.until("exited with code 3");
    // Time, worker and text: a worker that never was ready has no job.
    let words: Vec<Vec<&str>> = seen.iter().map(|it| it.splitn(3, ' ').collect()).collect();
    let worker = words[0][1].to_owned();
    assert!(
        words.iter().all(|it| it[0].len() == 12 && it[1] == worker),
        "{seen:?}"
    );
    let mut texts: Vec<&str> = words.iter().map(|it| it[2]).collect();
    // What becomes of it may be known a moment after it has written.
    assert_eq!(
        texts.remove(0),
        "SYS   starting: 1 job waits and there is no worker"
    );
    let expected = [
        "loading",
        "no module named torch",
        "SYS   exited with code 3",
    ];
    assert_eq!(texts, expected);

    let of_worker = ["--worker", worker.as_str()];
    let kept = documents(&home, &of_worker);
    assert_eq!(kept.len(), 4, "{kept:?}");
    assert_eq!(
        (&kept[1]["source"], &kept[1]["line"]),
        (&"worker".into(), &"loading".into())
    );
    // Neither an orderly end of the server nor a kill takes them away.
    assert!(server.stop().success());
    let mut server = home.serve();
    assert_eq!(documents(&home, &of_worker), kept);
    process::signal(server.pid(), Signal::KILL);
    server.gone();
    let mut server = home.serve();
    assert_eq!(documents(&home, &of_worker), kept);
    let raw = home.run(&[
        "logs", "fox", "--raw", "--source", "worker", "--worker", &worker,
    ]);
    assert_eq!(raw.stdout, "loading\nno module named torch\n");
    assert!(server.stop().success());
}

#[test]
fn following_outlives_the_server_and_ends_with_ctrl_c() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    server.json("POST", "fox/run", "{\"input\":1}");
    let mut following = Following::start(&home, &["--source", "system"]);
    following.until("exited with code 3");
    process::signal(server.pid(), Signal::KILL);
    server.gone();
    // The job still waits, and the next server starts a worker for it.
    let mut server = home.serve();
    let again = following.until("exited with code 3");
    assert!(
        again[0].contains("starting: 1 job waits"),
        "nothing twice: {again:?}"
    );
    process::signal(following.pid(), Signal::INT);
    let (code, said) = following.ended();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("the connection is lost") && said.contains("following again"));
    assert!(said.ends_with("no longer following\n"), "{said}");
    assert!(server.stop().success());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let home = Home::new(&CONFIG.replace("echo loading;", "yes | head -n 20000;"));
    let mut server = home.serve();
    server.json("POST", "fox/run", "{\"input\":1}");
    let mut following = Following::start(&home, &["--raw"]);
    assert_eq!(following.until("y").last().map(String::as_str), Some("y"));
    // The thread that reads ends with the next line, and the pipe with it.
    following.lines = mpsc::channel().1;
    let (code, said) = following.ended();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(server.stop().success());
}

#[test]
fn the_last_end_of_a_stop_is_kept() {
    let home = Home::new(&CONFIG.replace("exit 3", "exec sleep 300"));
    let mut server = home.serve();
    let mut following = Following::start(&home, &[]);
    server.json("POST", "fox/run", "{\"input\":1}");
    following.until("no module named torch");
    assert!(server.stop().success());
    // Who follows hears of it too.
    following.until("stopping: the server is being stopped");
    following.until("was killed by signal 15 (SIGTERM)");
    process::signal(following.pid(), Signal::INT);
    assert_eq!(following.ended().0, Some(130));

    home.configure("[server]\nauth = \"none\"\n[endpoints.fox]\n");
    let mut server = home.serve();
    let kept = documents(&home, &["--source", "system"]);
    let texts: Vec<_> = kept.iter().map(|it| it["line"].as_str()).collect();
    let expected = [
        "starting: 1 job waits and there is no worker",
        "stopping: the server is being stopped",
        "was killed by signal 15 (SIGTERM)",
    ];
    assert_eq!(texts, expected.map(Some));
    assert!(server.stop().success());
}
