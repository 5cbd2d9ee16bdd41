//! An HTTP/1.1 client in which a test chooses every byte, and may go away at any moment.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Bound of every wait: far more than anything takes on a busy machine.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// Awaits something that must happen.
pub(crate) async fn guarded<F: Future>(what: &str, wait: F) -> F::Output {
    match tokio::time::timeout(GUARD, wait).await {
        Ok(output) => output,
        Err(_) => panic!("waited {GUARD:?} in vain: {what}"),
    }
}

/// Awaits a condition that no signal announces to the outside.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    guarded(what, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: impl Into<String>, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", target).body(body)
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            head.push_str("host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its JSON. Every body that the server sends is JSON and says so, errors too.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The JSON of a success, which is 200 and nothing else: some clients take any other 2xx for an error.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The message of an error of this status and code.
    pub(crate) fn error(&self, status: u16, code: &str) -> String {
        let body = self.json();
        let seen = (self.status, body["code"].as_str());
        assert_eq!(seen, (status, Some(code)), "{}", self.text());
        body["error"]
            .as_str()
            .expect("error is a string")
            .to_owned()
    }
}

/// Everything that the server ever answered in a test.
pub(crate) type Transcript = Arc<Mutex<Vec<Reply>>>;

/// A connection; dropped, it is closed.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    transcript: Transcript,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, transcript: Transcript) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the server accepts");
        Self {
            stream: BufReader::new(stream),
            transcript,
        }
    }

    pub(crate) async fn send(&mut self, request: &Request) {
        self.write(&request.to_bytes()).await;
    }

    /// Writes as much as the server takes: it may answer and close before it has read everything.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = guarded("the server reads", self.stream.write_all(bytes)).await;
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish_writing(&mut self) {
        self.stream
            .shutdown()
            .await
            .expect("the connection is open");
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        let reply = guarded("the server answers", read_reply(&mut self.stream)).await;
        let reply = reply.expect("the server answers before it closes the connection");
        let mut transcript = self
            .transcript
            .lock()
            .expect("no test panics while it notes");
        transcript.push(reply.clone());
        reply
    }

    /// Reads the head of an answer whose body comes piece by piece.
    pub(crate) async fn streamed(mut self) -> BufReader<TcpStream> {
        let head = guarded("an answer begins", read_head(&mut self.stream)).await;
        let (first, headers) = head.expect("the connection is open");
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        let chunked = ("transfer-encoding".to_owned(), "chunked".to_owned());
        assert!(headers.contains(&chunked), "{headers:?}");
        self.stream
    }

    /// Reads first line and headers of an answer, and nothing of its body.
    pub(crate) async fn head(mut self) -> (String, Vec<(String, String)>) {
        let head = guarded("an answer begins", read_head(&mut self.stream)).await;
        head.expect("the connection is open")
    }

    /// Waits until an answer begins, and reads none of it.
    pub(crate) async fn answer_begins(&mut self) {
        let begun = guarded("an answer begins", self.stream.fill_buf()).await;
        assert!(!begun.expect("the connection is open").is_empty());
    }

    /// Whether the server has closed the connection without a word.
    pub(crate) async fn is_closed(&mut self) -> bool {
        guarded("an end or an answer", self.stream.fill_buf())
            .await
            .is_ok_and(<[u8]>::is_empty)
    }

    /// Whether nothing was answered so far.
    pub(crate) fn is_silent(&self) -> bool {
        let silent = |e: &std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
        self.stream.buffer().is_empty()
            && self
                .stream
                .get_ref()
                .try_read(&mut [0; 1])
                .is_err_and(|e| silent(&e))
    }
}

/// Reads one answer; `None` when the connection ended before it began.
pub(crate) async fn read_reply(stream: &mut BufReader<TcpStream>) -> Option<Reply> {
    let (first, headers) = read_head(stream).await?;
    let status = first.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status: u16 = status.unwrap_or_else(|| panic!("not a status line: {first}"));
    // The server knows the size of all its answers; clients of 1.x read nothing else well.
    let body = match content_length(&headers) {
        Some(length) => read_body(stream, length).await,
        None => {
            assert!(matches!(status, 100 | 204), "{status} without a length");
            Vec::new()
        }
    };
    Some(Reply {
        status,
        headers,
        body,
    })
}

/// Reads first line and headers, their names in lower case.
pub(crate) async fn read_head(
    stream: &mut BufReader<TcpStream>,
) -> Option<(String, Vec<(String, String)>)> {
    let first = read_line(stream).await?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).await?;
        match line.split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None => return Some((first, headers)),
        }
    }
}

pub(crate) fn content_length(headers: &[(String, String)]) -> Option<usize> {
    let length = headers.iter().find(|(name, _)| name == "content-length");
    length.map(|(_, value)| value.parse().expect("a length is a number"))
}

pub(crate) async fn read_body(stream: &mut BufReader<TcpStream>, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    let read = stream.read_exact(&mut body).await;
    read.expect("a body is as long as its head says");
    body
}

pub(crate) async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end().to_owned()),
    }
}
