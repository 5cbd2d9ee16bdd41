//! A receiver of webhooks on this machine.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::http::{content_length, guarded, read_body, read_head};

/// Answers what the test says, when the test says so.
pub(crate) struct Receiver {
    listener: TcpListener,
}

/// What was delivered.
pub(crate) struct Delivered {
    pub(crate) first_line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        Self {
            listener: listener.expect("loopback has a free port"),
        }
    }

    pub(crate) fn url(&self) -> String {
        let address: SocketAddr = self.listener.local_addr().expect("it listens");
        format!("http://{address}/hook?token=t")
    }

    /// Takes one delivery and answers with this status.
    pub(crate) async fn take(&self, status: u16) -> Delivered {
        guarded("a delivery comes", async {
            let (stream, _) = self.listener.accept().await.expect("a sender connects");
            let mut stream = BufReader::new(stream);
            let (first_line, headers) = read_head(&mut stream).await.expect("a request");
            let length = content_length(&headers).expect("a delivery has a length");
            let body = read_body(&mut stream, length).await;
            let answer =
                format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream
                .write_all(answer.as_bytes())
                .await
                .expect("the sender listens");
            Delivered {
                first_line,
                headers,
                body: serde_json::from_slice(&body).expect("a delivery is JSON"),
            }
        })
        .await
    }
}
