//! A blocking HTTP/1.1 client, small enough to be seen through: one connection for each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longer than any `wait` that the tests ask for.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Status and body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The JSON of an answer that must be 200: the JavaScript and Go clients take nothing else.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, 200, "{text}");
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not strict JSON ({error}): {text}"))
    }
}

/// One request: `target` is path and query, `body` is sent as it is.
pub(crate) fn request(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server accepts");
    stream
        .set_read_timeout(Some(READ_TIMEOUT))
        .expect("the timeout is above zero");

    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n");
    head.push_str("connection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).expect("the head is sent");
    stream.write_all(body).expect("the body is sent");
    read_answer(&mut BufReader::new(stream))
}

fn read_answer(reader: &mut impl BufRead) -> Answer {
    let status = line(reader);
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.expect("the answer begins with a status line");

    let (mut length, mut chunked) = (None, false);
    loop {
        let header = line(reader).to_ascii_lowercase();
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        match (name, value.trim()) {
            ("content-length", value) => length = value.parse::<u64>().ok(),
            ("transfer-encoding", "chunked") => chunked = true,
            _ => {}
        }
    }

    let body = if chunked {
        read_chunks(reader)
    } else {
        read_body(reader, length)
    };
    Answer { status, body }
}

fn read_body(reader: &mut impl Read, length: Option<u64>) -> Vec<u8> {
    let mut body = Vec::new();
    reader
        .take(length.unwrap_or(u64::MAX))
        .read_to_end(&mut body)
        .expect("the body arrives");
    if let Some(length) = length {
        assert_eq!(body.len() as u64, length, "the answer was cut short");
    }
    body
}

fn read_chunks(reader: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let size = u64::from_str_radix(line(reader).trim(), 16).expect("a chunk has a size");
        body.extend(read_body(reader, Some(size)));
        line(reader);
        if size == 0 {
            return body;
        }
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .expect("a line of the head arrives");
    line.trim_end().to_owned()
}
