//! A receiver of webhooks on this machine.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{content_length, guarded, read_body, read_head};

/// Answers what the test says, when the test says so.
pub(crate) struct Receiver {
    listener: TcpListener,
}

/// What was delivered.
pub(crate) struct Delivered {
    pub(crate) first_line: String,
    pub(crate) headers: Vec<(String, String)>,
    /// As it came, byte for byte.
    pub(crate) bytes: Vec<u8>,
    pub(crate) body: Value,
}

impl Delivered {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("there is no {name}"), |(_, value)| value)
    }
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        Self {
            listener: listener.expect("loopback has a free port"),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it listens")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=t", self.address())
    }

    /// Takes one delivery and answers with this status.
    pub(crate) async fn take(&self, status: u16) -> Delivered {
        self.answer(&format!(
            "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ))
        .await
    }

    /// Takes one delivery, answers these bytes, and closes the connection.
    pub(crate) async fn answer(&self, bytes: &str) -> Delivered {
        let (delivered, mut answering) = self.accept().await;
        answering.write(bytes).await;
        delivered
    }

    /// Answers whatever comes, which may be no HTTP.
    pub(crate) async fn answer_anything(&self, bytes: &str) {
        let (mut stream, _) = guarded("a connection", self.listener.accept())
            .await
            .expect("a sender connects");
        let _ = stream.write_all(bytes.as_bytes()).await;
    }

    /// Takes one delivery and leaves the answer to the test.
    pub(crate) async fn accept(&self) -> (Delivered, Answering) {
        guarded("a delivery comes", async {
            let (stream, _) = self.listener.accept().await.expect("a sender connects");
            let mut stream = BufReader::new(stream);
            let (first_line, headers) = read_head(&mut stream).await.expect("a request");
            let length = content_length(&headers).expect("a delivery has a length");
            let bytes = read_body(&mut stream, length).await;
            let delivered = Delivered {
                first_line,
                headers,
                body: serde_json::from_slice(&bytes).expect("a delivery is JSON"),
                bytes,
            };
            (delivered, Answering(stream))
        })
        .await
    }
}

/// A delivery that waits for its answer. Dropped, the connection is closed.
pub(crate) struct Answering(BufReader<TcpStream>);

impl Answering {
    pub(crate) async fn write(&mut self, bytes: &str) {
        let written = guarded("the sender reads", self.0.write_all(bytes.as_bytes())).await;
        written.expect("the sender listens");
    }

    /// Writes until the sender wants no more; returns how much that was.
    pub(crate) async fn write_without_end(&mut self) -> usize {
        let mut written = 0;
        guarded("the sender has enough", async {
            while self.0.write_all(&[b'x'; 4096]).await.is_ok() {
                written += 4096;
            }
        })
        .await;
        written
    }

    /// Ends the connection as a machine does that has lost it.
    pub(crate) fn reset(self) {
        let stream = self.0.into_inner();
        let lingering = stream.set_zero_linger();
        lingering.expect("a connection can be reset");
    }

    /// Waits until the sender has closed the connection.
    pub(crate) async fn is_let_go(&mut self) {
        let mut rest = Vec::new();
        let _ = guarded("the sender closes", self.0.read_to_end(&mut rest)).await;
    }
}
