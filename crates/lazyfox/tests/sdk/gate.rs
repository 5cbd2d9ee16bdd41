//! A gate that handlers wait at: see `handlers/gate.py` for their side of it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::process;
use crate::server::DEADLINE;

/// Where handlers arrive.
pub(crate) struct Gate {
    listener: TcpListener,
}

impl Gate {
    /// A gate at a port of its own.
    pub(crate) fn open() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("a free port"),
        }
    }

    /// The number that goes into the job's input as `gate`.
    pub(crate) fn port(&self) -> u16 {
        self.listener
            .local_addr()
            .expect("a bound listener has an address")
            .port()
    }

    /// Waits for the next handler.
    pub(crate) fn accept(&self) -> Arrival {
        assert!(
            process::readable(&self.listener, DEADLINE),
            "no handler arrived at the gate"
        );
        let (stream, _) = self
            .listener
            .accept()
            .expect("a waiting connection is accepted");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("the timeout is above zero");
        Arrival::of(stream)
    }
}

/// A handler that waits for a word.
pub(crate) struct Arrival {
    stream: BufReader<TcpStream>,
    hello: Value,
}

impl Arrival {
    fn of(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let mut hello = String::new();
        stream
            .read_line(&mut hello)
            .expect("the handler says who it is");
        let hello = serde_json::from_str(&hello).expect("a line of JSON");
        Self { stream, hello }
    }

    /// Lets the handler go on: it sees this word.
    pub(crate) fn release(&mut self, word: &str) {
        let line = format!("{word}\n");
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .expect("the handler listens");
    }

    /// The same for a handler whose process may have been killed.
    pub(crate) fn release_if_alive(&mut self, word: &str) {
        let line = format!("{word}\n");
        // The error would say that nobody listens any more, which is allowed here.
        let _ = self.stream.get_mut().write_all(line.as_bytes());
    }

    /// How the SDK's task for the job ended (async handlers only): `posted`, `cancelled`, or
    /// nothing when its process died.
    pub(crate) fn end(&mut self) -> String {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) => line.trim_end().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("the handler neither ended nor died: {error}"),
        }
    }

    pub(crate) fn job(&self) -> &str {
        self.text("job")
    }

    pub(crate) fn worker(&self) -> &str {
        self.text("worker")
    }

    pub(crate) fn pid(&self) -> i32 {
        self.number("pid")
    }

    pub(crate) fn process_group(&self) -> i32 {
        self.number("pgid")
    }

    /// What the worker was told to do with results: the URL template, and its credential.
    pub(crate) fn post_output(&self) -> (&str, &str) {
        (self.text("post_output"), self.text("key"))
    }

    fn text(&self, name: &str) -> &str {
        self.hello[name]
            .as_str()
            .expect("the handler sends this text")
    }

    fn number(&self, name: &str) -> i32 {
        let number = self.hello[name]
            .as_i64()
            .expect("the handler sends this number");
        i32::try_from(number).expect("a process id fits")
    }
}
