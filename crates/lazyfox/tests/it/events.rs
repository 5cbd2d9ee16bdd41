//! A listener of server-sent events.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::TcpStream;

use crate::http::{Connection, guarded, read_body, read_line};

/// An open stream of events.
pub(crate) struct Events {
    stream: BufReader<TcpStream>,
    lines: VecDeque<String>,
    /// The id of the last event, as whoever comes back says it.
    pub(crate) id: Option<String>,
}

impl Events {
    /// Begins to listen; from then on nothing is missed.
    pub(crate) async fn open(connection: Connection) -> Self {
        let mut events = Self {
            stream: connection.streamed().await,
            lines: VecDeque::new(),
            id: None,
        };
        let hello = events.block().await;
        assert_eq!(hello.last().map(String::as_str), Some(": listening"));
        events
    }

    /// Name and data of the next event.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            let block = self.block().await;
            let field = |name: &str| block.iter().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else {
                continue;
            };
            let data = serde_json::from_str(data).expect("data is JSON");
            return (field("event: ").unwrap_or("message").to_owned(), data);
        }
    }

    /// Waits until the server has ended the stream as it should be ended.
    pub(crate) async fn end(&mut self) {
        let rest = guarded("the stream ends", self.chunk()).await;
        assert_eq!(rest, None);
    }

    /// The lines up to the next empty one.
    async fn block(&mut self) -> Vec<String> {
        let mut block = Vec::new();
        loop {
            match self.lines.pop_front() {
                Some(line) if line.is_empty() => {
                    let id = block
                        .iter()
                        .find_map(|line: &String| line.strip_prefix("id: "));
                    self.id = id.map(str::to_owned).or(self.id.take());
                    return block;
                }
                Some(line) => block.push(line),
                None => {
                    let chunk = guarded("an event comes", self.chunk()).await;
                    let chunk = chunk.expect("the stream goes on");
                    // The server sends whole events.
                    let lines = chunk
                        .strip_suffix("\n")
                        .expect("it ends a line")
                        .split('\n');
                    self.lines.extend(lines.map(str::to_owned));
                }
            }
        }
    }

    async fn chunk(&mut self) -> Option<String> {
        let size = read_line(&mut self.stream).await?;
        let size = usize::from_str_radix(&size, 16).expect("a size is hexadecimal");
        let bytes = read_body(&mut self.stream, size + 2).await;
        let text = String::from_utf8(bytes[..size].to_vec()).expect("events are UTF-8");
        (size > 0).then_some(text)
    }
}
