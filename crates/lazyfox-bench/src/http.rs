//! Keep-alive HTTP/1.1 that costs next to nothing, so that the figures are the server's. It knows
//! what this server sends: a content length, or 204 and no body.

use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The largest head and body this tool expects; more is a bug on either side.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the worker SDK of this version sends, which the server reads to learn what it can bear.
const USER_AGENT: &str = "RunPod-Python-SDK/1.12.0 (bench)";

/// One connection with its buffers, which are kept from call to call.
pub(crate) struct Connection {
    stream: TcpStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

/// The answer to a call, borrowed from the connection.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        Ok(Self {
            stream,
            outgoing: Vec::with_capacity(4096),
            incoming: Vec::with_capacity(16 * 1024),
        })
    }

    /// Lays out a GET, to be sent by [`Connection::exchange`].
    pub(crate) fn get(&mut self, path: fmt::Arguments<'_>) {
        self.lay_out("GET", path, None);
    }

    /// Lays out a POST, to be sent by [`Connection::exchange`].
    pub(crate) fn post(&mut self, path: fmt::Arguments<'_>, body: &[u8]) {
        self.lay_out("POST", path, Some(body));
    }

    fn lay_out(&mut self, method: &str, path: fmt::Arguments<'_>, body: Option<&[u8]>) {
        let out = &mut self.outgoing;
        out.clear();
        let written = write!(
            out,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: {USER_AGENT}\r\n"
        )
        .and_then(|()| match body {
            Some(body) => write!(
                out,
                "content-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            ),
            None => write!(out, "\r\n"),
        });
        written.expect("writing to a vector cannot fail");
        out.extend_from_slice(body.unwrap_or_default());
    }

    /// Sends what was laid out and reads the answer.
    pub(crate) async fn exchange(&mut self) -> Result<Answer<'_>> {
        self.stream
            .write_all(&self.outgoing)
            .await
            .context("the server closed the connection")?;
        let message = receive(&mut self.stream, &mut self.incoming)
            .await?
            .context("the server closed the connection without an answer")?;
        let Start::Answer(status) = message.start else {
            bail!("the server sent a request instead of an answer");
        };
        Ok(Answer {
            status,
            body: message.body,
        })
    }

    /// Like [`Connection::exchange`], for calls that can only be answered 200.
    pub(crate) async fn expect_ok(&mut self) -> Result<&[u8]> {
        let answer = self.exchange().await?;
        answer.ensure_ok()?;
        Ok(answer.body)
    }

    /// The JSON that a GET of this path is answered with.
    pub(crate) async fn get_json(&mut self, path: &str) -> Result<Value> {
        self.get(format_args!("{path}"));
        json(self.expect_ok().await?)
    }

    /// The JSON that a POST of this body is answered with.
    pub(crate) async fn post_json(&mut self, path: &str, body: &[u8]) -> Result<Value> {
        self.post(format_args!("{path}"), body);
        json(self.expect_ok().await?)
    }
}

fn json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body)
        .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(body)))
}

impl Answer<'_> {
    pub(crate) fn ensure_ok(&self) -> Result<()> {
        if self.status == 200 {
            return Ok(());
        }
        bail!(
            "the server answered {}: {}",
            self.status,
            String::from_utf8_lossy(self.body)
        );
    }
}

/// How a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// A POST, wherever to.
    Post,
    /// An answer with this status.
    Answer(u16),
}

/// A request or an answer, borrowed from the buffer that it was read into.
pub(crate) struct Message<'a> {
    pub(crate) start: Start,
    pub(crate) body: &'a [u8],
    /// When its first bytes were read.
    pub(crate) began: Instant,
}

/// Reads one message into the buffer. `None` when the other side has closed the connection where
/// one would begin; where it breaks off later, the cause of the error is an [`io::Error`].
pub(crate) async fn receive<'a>(
    stream: &mut TcpStream,
    buffer: &'a mut Vec<u8>,
) -> Result<Option<Message<'a>>> {
    buffer.clear();
    if stream.read_buf(buffer).await? == 0 {
        return Ok(None);
    }
    let began = Instant::now();
    let head = loop {
        if let Some(head) = Head::parse(buffer)? {
            break head;
        }
        ensure!(
            buffer.len() < MESSAGE_BYTES_MAX,
            "the head of a message has no end"
        );
        read_more(stream, buffer).await?;
    };
    let end = head.bytes + head.body_bytes;
    ensure!(end <= MESSAGE_BYTES_MAX, "a message of {end} bytes");
    while buffer.len() < end {
        read_more(stream, buffer).await?;
    }
    ensure!(buffer.len() == end, "more bytes than the message has");
    Ok(Some(Message {
        start: head.start,
        body: &buffer[head.bytes..],
        began,
    }))
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            .context("the connection was closed within a message"),
        _ => Ok(()),
    }
}

struct Head {
    start: Start,
    bytes: usize,
    body_bytes: usize,
}

impl Head {
    /// `None` when the head is not complete yet.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end]).context("the head is not text")?;
        let mut lines = text.split("\r\n");
        let start = lines
            .next()
            .and_then(Start::parse)
            .with_context(|| format!("neither an HTTP/1.1 answer nor a POST: {text}"))?;
        let mut length = None;
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(
                    value
                        .trim()
                        .parse()
                        .context("a content length that is no number")?,
                );
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("the body comes in chunks, which this tool does not read");
            } else if name.eq_ignore_ascii_case("connection")
                && value.trim().eq_ignore_ascii_case("close")
            {
                bail!("the other side wants to close the connection: {text}");
            }
        }
        let body_bytes = match (start, length) {
            (Start::Answer(204 | 304), _) => 0,
            (_, Some(length)) => length,
            (_, None) => bail!("a message without a content length: {text}"),
        };
        Ok(Some(Self {
            start,
            bytes: end + 4,
            body_bytes,
        }))
    }
}

impl Start {
    fn parse(line: &str) -> Option<Self> {
        match line.strip_prefix("HTTP/1.1 ") {
            Some(rest) => Some(Self::Answer(rest.get(..3)?.parse().ok()?)),
            None => {
                (line.starts_with("POST ") && line.ends_with(" HTTP/1.1")).then_some(Self::Post)
            }
        }
    }
}

/// Copies the job id out of a JSON answer. The server writes `"id"` before anything of the user's,
/// and this tool's inputs have no key of that name.
pub(crate) fn read_id(body: &[u8], id: &mut String) -> Result<()> {
    const KEY: &[u8] = b"\"id\":\"";
    let found = body
        .windows(KEY.len())
        .position(|window| window == KEY)
        .and_then(|at| {
            let rest = &body[at + KEY.len()..];
            let end = rest.iter().position(|&byte| byte == b'"')?;
            std::str::from_utf8(&rest[..end]).ok()
        });
    let found = found.with_context(|| format!("no job id in {}", String::from_utf8_lossy(body)))?;
    id.clear();
    id.push_str(found);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_complete() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        for cut in 0..whole.len() - 5 {
            assert!(Head::parse(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        let head = Head::parse(whole).unwrap().unwrap();
        assert_eq!(
            (head.start, head.body_bytes, head.bytes),
            (Start::Answer(200), 5, whole.len() - 5)
        );
    }

    #[test]
    fn no_content_has_no_body_and_no_length() {
        let head = Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((head.start, head.body_bytes), (Start::Answer(204), 0));
    }

    #[test]
    fn a_post_is_read_like_an_answer() {
        let head = Head::parse(b"POST /done HTTP/1.1\r\ncontent-length: 7\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((head.start, head.body_bytes), (Start::Post, 7));
    }

    #[test]
    fn what_the_tool_cannot_read_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "SSH-2.0\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\n\r\n",
            "POST / HTTP/2\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert!(Head::parse(head.as_bytes()).is_err(), "{head}");
        }
    }

    #[test]
    fn ids_are_found_wherever_they_stand() {
        let mut id = String::new();
        read_id(br#"{"id":"a-1","status":"IN_QUEUE"}"#, &mut id).unwrap();
        assert_eq!(id, "a-1");
        read_id(br#"{"status":"IN_QUEUE","id":"b"}"#, &mut id).unwrap();
        assert_eq!(id, "b");
        assert!(read_id(b"{}", &mut id).is_err());
    }
}
