//! A gate at which `worker.py` waits in the middle of a job.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::process;
use crate::server::DEADLINE;

/// An endpoint whose workers are `worker.py`.
pub(crate) fn endpoint(name: &str) -> String {
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash/worker.py");
    format!(
        "[endpoints.{name}]\ncommand = [\"python3\", {worker:?}]\nworking_dir = \"files\"\nenv = {{ MARK }}\n"
    )
}

/// Where workers arrive.
pub(crate) struct Gate(TcpListener);

impl Gate {
    pub(crate) fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    /// The body of a job that comes here.
    pub(crate) fn job(&self) -> String {
        let address = self
            .0
            .local_addr()
            .expect("a bound listener has an address");
        format!("{{\"input\":{{\"gate\":{}}}}}", address.port())
    }

    /// Waits for the next worker.
    pub(crate) fn accept(&self) -> Arrival {
        assert!(
            process::readable(&self.0, DEADLINE),
            "no worker arrived at the gate"
        );
        let (stream, _) = self.0.accept().expect("a waiting connection is accepted");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("it is above zero");
        let mut stream = BufReader::new(stream);
        let mut hello = String::new();
        stream
            .read_line(&mut hello)
            .expect("the worker says who it is");
        let hello: Value = serde_json::from_str(&hello).expect("a line of JSON");
        let text = |name: &str| hello[name].as_str().expect("a text").to_owned();
        Arrival {
            pid: i32::try_from(hello["pid"].as_i64().expect("a number"))
                .expect("a process id fits"),
            worker: text("worker"),
            job: text("job"),
            stream: stream.into_inner(),
        }
    }
}

/// A worker in the middle of a job.
pub(crate) struct Arrival {
    pub(crate) pid: i32,
    pub(crate) worker: String,
    pub(crate) job: String,
    stream: TcpStream,
}

impl Arrival {
    /// Lets it finish.
    pub(crate) fn release(mut self, word: &str) {
        self.stream
            .write_all(format!("{word}\n").as_bytes())
            .expect("the worker listens");
    }
}
