//! The real `lazyfox` binary on one data directory and one port, over any number of lives.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Answer, request};
use crate::{port, process};

/// The bound on every wait: far more than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What is promised of a stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Every worker of a test carries this variable, whatever becomes of its parent.
const MARK: &str = "LAZYFOX_TEST_SERVER";

/// What outlives a server: its directory, its configuration and its port.
pub(crate) struct Home {
    dir: TempDir,
    port: u16,
}

impl Home {
    /// A directory with this configuration; in it `MARK` becomes an entry for `env`.
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let home = Self {
            dir,
            port: port::free(),
        };
        home.configure(config);
        home
    }

    /// Changes the configuration for servers that start from now on.
    pub(crate) fn configure(&self, config: &str) {
        let mark = format!("{MARK} = {:?}", self.mark());
        let config = config.replace("MARK", &mark);
        fs::write(self.path().join("lazyfox.toml"), config).expect("the configuration is written");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The database of the server.
    pub(crate) fn database(&self) -> PathBuf {
        self.path().join("lazyfox-data/lazyfox.db")
    }

    fn mark(&self) -> &str {
        self.path()
            .to_str()
            .expect("the temporary folder's path is UTF-8")
    }

    /// The processes that servers of this directory have started and that still run.
    pub(crate) fn workers(&self) -> Vec<i32> {
        process::with_variable(&format!("{MARK}={}", self.mark()))
    }

    /// The program, to be run in this directory.
    pub(crate) fn lazyfox(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazyfox"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_remove("LAZYFOX_LOG")
            .env_remove("LAZYFOX_API_KEY")
            .env_remove("LAZYFOX_DATABASE_URL")
            // Nobody is there: neither clients nor workers may go through a proxy to this machine.
            .env("http_proxy", "http://127.0.0.1:1")
            .env("LAZYFOX_URL", format!("http://127.0.0.1:{}", self.port))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, which must come.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut child = self
            .lazyfox(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let pid = i32::try_from(child.id()).expect("a process id fits");
        if !process::ended(pid, DEADLINE) {
            let _ = child.kill();
            panic!("lazyfox {arguments:?} does not end");
        }
        let output = child.wait_with_output().expect("the program is our child");
        Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a server and waits until it answers.
    pub(crate) fn serve(&self) -> Server<'_> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path().join("server.log"))
            .expect("a log file");
        let listen = format!("127.0.0.1:{}", self.port);
        self.wait_for(&mut self.lazyfox(&["serve", "--listen", &listen]), log)
    }

    /// Starts what is a server in the end, and waits until it answers.
    pub(crate) fn wait_for(&self, command: &mut Command, log: File) -> Server<'_> {
        let child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        // From here on a panic ends the child as well.
        let mut server = Server {
            child,
            home: self,
            said: Vec::new(),
        };
        server.said = server.until_ready();
        server
    }
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Drop for Home {
    fn drop(&mut self) {
        let mut left = self.workers();
        // One that was killed a moment ago may still be on its way out.
        left.retain(|pid| !process::ended(*pid, Duration::from_secs(5)));
        for pid in &left {
            process::signal(*pid, Signal::KILL);
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path().join("server.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- server.log\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        } else {
            assert!(left.is_empty(), "left running: {left:?}");
        }
    }
}

/// One life of the server. Dropped, it is killed, and its workers with it.
pub(crate) struct Server<'a> {
    child: Child,
    home: &'a Home,
    said: Vec<String>,
}

impl Server<'_> {
    /// What it wrote to standard output until it was ready.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }

    /// Calls the job API: `target` begins with the endpoint.
    pub(crate) fn call(&self, method: &str, target: &str, body: &str) -> Answer {
        request(self.home.port, method, &format!("/v2/{target}"), &[], body)
            .expect("a server that nobody kills answers")
    }

    /// The same for an answer that must be 200.
    pub(crate) fn json(&self, method: &str, target: &str, body: &str) -> Value {
        self.call(method, target, body).json()
    }

    /// Asks it to stop as a service manager does, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        process::signal(self.pid(), Signal::TERM);
        self.stopped()
    }

    /// Waits for the end of a server that was asked to stop.
    pub(crate) fn stopped(&mut self) -> ExitStatus {
        assert!(
            process::ended(self.pid(), STOP_DEADLINE),
            "the server did not stop within {STOP_DEADLINE:?}"
        );
        let status = self.child.wait().expect("the server is our child");
        assert_eq!(status.signal(), None, "the server was killed");
        status
    }

    /// Waits for the end of a server that was killed.
    pub(crate) fn gone(&mut self) {
        let status = self.child.wait().expect("the server is our child");
        let killed = Some(Signal::KILL.as_raw());
        assert_eq!(
            status.signal(),
            killed,
            "the server ended by itself: {status}"
        );
    }

    fn until_ready(&mut self) -> Vec<String> {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let (send, receive) = mpsc::channel();
        // A thread of its own, because the pipe must be drained for as long as the server lives.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The receiver is gone once the server is ready.
                let _ = send.send(line);
            }
        });
        let mut said = Vec::new();
        loop {
            let line = receive
                .recv_timeout(DEADLINE)
                .expect("the server says that it is ready");
            let ready = line.starts_with("ready on ");
            said.push(line);
            if ready {
                return said;
            }
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // Its workers outlive it, and here nobody would find them again.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.home.workers() {
            process::signal(pid, Signal::KILL);
        }
    }
}
