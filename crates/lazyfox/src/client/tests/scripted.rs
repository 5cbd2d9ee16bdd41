//! A server that answers what it was told to, one answer per request, and remembers the requests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the script does with one request.
#[derive(Clone)]
pub(super) struct Answer {
    act: Act,
    headers: String,
    body: String,
}

#[derive(Clone, Copy)]
enum Act {
    Reply(u16),
    HangUp,
    Silence,
}

impl Answer {
    /// Reads the request and closes the connection without a word.
    pub(super) fn hang_up() -> Self {
        Self {
            act: Act::HangUp,
            headers: String::new(),
            body: String::new(),
        }
    }

    /// Reads the request and never answers.
    pub(super) fn silence() -> Self {
        Self {
            act: Act::Silence,
            ..Self::hang_up()
        }
    }

    pub(super) fn with_header(mut self, line: &str) -> Self {
        self.headers.push_str(line);
        self.headers.push_str("\r\n");
        self
    }
}

/// A 200 with this document.
pub(super) fn json(body: &str) -> Answer {
    refused(200, body)
}

/// Any other answer.
pub(super) fn refused(status: u16, body: &str) -> Answer {
    Answer {
        act: Act::Reply(status),
        headers: String::new(),
        body: body.to_owned(),
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) line: String,
    head: String,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub(super) struct Scripted {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    pub(super) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&seen)));
            }
        });
        Self {
            url,
            requests,
            task,
        }
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.requests.lock().unwrap().clone()
    }

    /// Closes the listener, so that nobody is there any more.
    pub(super) async fn stop(self) {
        self.task.abort();
        self.task.await.unwrap_err();
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: Arc<Mutex<std::vec::IntoIter<Answer>>>,
    requests: Arc<Mutex<Vec<Seen>>>,
) {
    while let Some(seen) = read_request(&mut stream).await {
        requests.lock().unwrap().push(seen);
        let over = refused(500, r#"{"error":"the script is over"}"#);
        let answer = answers.lock().unwrap().next().unwrap_or(over);
        let status = match answer.act {
            Act::Reply(status) => status,
            Act::HangUp => return,
            Act::Silence => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                return;
            }
        };
        let (headers, body) = (&answer.headers, &answer.body);
        let text = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             {headers}\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).await.unwrap();
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let line = head.lines().next().unwrap().to_owned();
            let mut seen = Seen {
                line,
                head,
                body: String::new(),
            };
            let length = seen
                .header("content-length")
                .map_or(0, |text| text.parse().unwrap());
            let mut body = bytes[end + 4..].to_vec();
            let read = body.len();
            body.resize(length, 0);
            stream.read_exact(&mut body[read..]).await.ok()?;
            seen.body = String::from_utf8(body).unwrap();
            return Some(seen);
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A console's other end that a test can read.
#[derive(Clone, Default)]
pub(super) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
