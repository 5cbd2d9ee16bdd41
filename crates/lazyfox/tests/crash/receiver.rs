//! A receiver of webhooks that outlives every server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::process;
use crate::server::DEADLINE;

/// A delivery as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// `webhook-id`.
    pub(crate) id: String,
    pub(crate) body: String,
}

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a delivery is JSON")
    }
}

/// Where deliveries arrive, one connection at a time.
pub(crate) struct Receiver(TcpListener);

impl Receiver {
    pub(crate) fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    pub(crate) fn url(&self) -> String {
        let address = self.0.local_addr().expect("it listens");
        format!("http://{address}/hook")
    }

    /// Waits for the next delivery and leaves it unanswered.
    pub(crate) fn accept(&self) -> (Delivery, Unanswered) {
        assert!(process::readable(&self.0, DEADLINE), "nothing is delivered");
        let (stream, _) = self.0.accept().expect("a waiting connection is accepted");
        let mut stream = BufReader::new(stream);
        let delivery = read(&mut stream).expect("a whole request");
        (delivery, Unanswered(stream.into_inner()))
    }

    /// Answers whatever comes from now on with 200, and remembers it.
    pub(crate) fn remember(self) -> Remembered {
        let remembered = Remembered::default();
        let all = remembered.clone();
        std::thread::spawn(move || {
            for stream in self.0.incoming().flatten() {
                let all = all.clone();
                std::thread::spawn(move || all.take_from(stream));
            }
        });
        remembered
    }
}

/// A receiver with a certificate for `localhost`.
pub(crate) struct TlsReceiver {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl TlsReceiver {
    pub(crate) fn open(certified: &CertifiedKey<KeyPair>) -> Self {
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .expect("the key is the certificate's");
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("a free port"),
            config: Arc::new(config),
        }
    }

    pub(crate) fn url(&self) -> String {
        let address = self.listener.local_addr().expect("it listens");
        format!("https://localhost:{}/hook", address.port())
    }

    /// Waits for a delivery and answers 200.
    pub(crate) fn take(&self) -> Delivery {
        assert!(
            process::readable(&self.listener, DEADLINE),
            "nothing is delivered"
        );
        let (stream, _) = self.listener.accept().expect("a connection is accepted");
        let session = ServerConnection::new(Arc::clone(&self.config)).expect("a session");
        let mut stream = BufReader::new(StreamOwned::new(session, stream));
        let delivery = read(&mut stream).expect("a whole request");
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let answered = stream.get_mut().write_all(answer);
        answered.expect("the sender listens");
        delivery
    }
}

/// A delivery that waits for its answer.
pub(crate) struct Unanswered(TcpStream);

impl Unanswered {
    pub(crate) fn answer(mut self, status: u16) {
        // The server that asked may be gone.
        let _ = write!(
            self.0,
            "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    }
}

/// What has been delivered.
#[derive(Clone, Default)]
pub(crate) struct Remembered(Arc<Mutex<Vec<Delivery>>>);

impl Remembered {
    pub(crate) fn all(&self) -> Vec<Delivery> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn take_from(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(delivery) = read(&mut stream) {
            // First remembered, then answered: what is answered has arrived.
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(delivery);
            drop(all);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if stream.get_mut().write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// Reads one request; `None` when the sender died in the middle of it, or has no more.
fn read(stream: &mut BufReader<impl Read>) -> Option<Delivery> {
    let mut id = None;
    let mut length = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            match name {
                "webhook-id" => id = Some(value.to_owned()),
                "content-length" => length = value.parse().ok(),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length.expect("a delivery has a length")];
    stream.read_exact(&mut body).ok()?;
    Some(Delivery {
        id: id.expect("a delivery has an id"),
        body: String::from_utf8(body).expect("a delivery is UTF-8"),
    })
}
