//! A server that answers what it was told to, one answer per request, and remembers the requests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

/// The bound on every wait: far more than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What the script does with one request.
pub(crate) struct Answer {
    act: Act,
    headers: String,
    body: String,
}

enum Act {
    Reply(u16),
    HangUp,
    Silence,
    Events(mpsc::UnboundedReceiver<Piece>),
}

/// A piece of an answer that goes on.
pub(crate) enum Piece {
    Text(String),
    /// The connection ends in the middle.
    Cut,
}

impl Answer {
    /// Reads the request and closes the connection without a word.
    pub(crate) fn hang_up() -> Self {
        Self {
            act: Act::HangUp,
            headers: String::new(),
            body: String::new(),
        }
    }

    /// Reads the request and never answers.
    pub(crate) fn silence() -> Self {
        Self {
            act: Act::Silence,
            ..Self::hang_up()
        }
    }

    /// A stream of server-sent events: what the sender is given, until it is dropped.
    pub(crate) fn events() -> (mpsc::UnboundedSender<Piece>, Self) {
        let (sender, pieces) = mpsc::unbounded_channel();
        let act = Act::Events(pieces);
        let answer = Self {
            act,
            ..Self::hang_up()
        };
        (sender, answer)
    }

    pub(crate) fn with_header(mut self, line: &str) -> Self {
        self.headers.push_str(line);
        self.headers.push_str("\r\n");
        self
    }
}

/// A 200 with this document.
pub(crate) fn json(body: &str) -> Answer {
    refused(200, body)
}

/// Any other answer.
pub(crate) fn refused(status: u16, body: &str) -> Answer {
    Answer {
        act: Act::Reply(status),
        headers: String::new(),
        body: body.to_owned(),
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub(crate) struct Scripted {
    pub(crate) url: String,
    requests: watch::Sender<Vec<Seen>>,
}

impl Scripted {
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = watch::Sender::new(Vec::new());
        let seen = requests.clone();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&answers), seen.clone()));
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.requests.borrow().clone()
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn asked(&self, times: usize) {
        let mut requests = self.requests.subscribe();
        let asked = requests.wait_for(|it| it.len() >= times);
        let asked = tokio::time::timeout(DEADLINE, asked).await;
        asked.expect("nobody asks so often").unwrap();
    }
}

/// An address where nobody answers: its port is taken and not listened to. One that was closed may still
/// be open in a child process that another test has just begun to start.
pub(crate) struct Nobody {
    pub(crate) address: String,
    _taken: TcpSocket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self {
            address: taken.local_addr().unwrap().to_string(),
            _taken: taken,
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: Arc<Mutex<std::vec::IntoIter<Answer>>>,
    requests: watch::Sender<Vec<Seen>>,
) {
    while let Some(seen) = read_request(&mut stream).await {
        requests.send_modify(|it| it.push(seen));
        let over = refused(500, r#"{"error":"the script is over"}"#);
        let answer = answers.lock().unwrap().next().unwrap_or(over);
        let status = match answer.act {
            Act::Reply(status) => status,
            Act::HangUp => return,
            Act::Silence => std::future::pending().await,
            Act::Events(pieces) => {
                // Whoever listened may be gone.
                send_events(&mut stream, pieces).await.ok();
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

async fn send_events(
    stream: &mut TcpStream,
    mut pieces: mpsc::UnboundedReceiver<Piece>,
) -> io::Result<()> {
    // Without the announced end, a client that comes back at once may do so on this connection.
    let head = "HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    while let Some(piece) = pieces.recv().await {
        let Piece::Text(text) = piece else {
            return Ok(());
        };
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        stream.write_all(chunk.as_bytes()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
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
#[derive(Clone)]
pub(crate) struct Buffer(watch::Sender<String>);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(String::new()))
    }

    pub(crate) fn text(&self) -> String {
        self.0.borrow().clone()
    }

    /// Waits until this stands there.
    pub(crate) async fn says(&self, text: &str) {
        let mut written = self.0.subscribe();
        let said = tokio::time::timeout(DEADLINE, written.wait_for(|it| it.contains(text))).await;
        if said.is_err() {
            panic!("{text:?} is not in {}", self.text());
        }
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).unwrap();
        self.0.send_modify(|it| it.push_str(text));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
