use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use lazyfox_core::reach::AllowList;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::lookup::Looked;
use super::*;

const ALLOWED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const REFUSED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// Somebody's name server, which says something else each time.
struct Rebinding {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
}

impl Lookup for Rebinding {
    fn addresses(&self, _: &str) -> Looked {
        let next = self.answers.lock().unwrap().pop_front();
        let next = next.expect("a name is looked up once for each connection");
        Box::pin(std::future::ready(Ok(next)))
    }
}

fn sender(answers: &[&[IpAddr]]) -> Sender {
    let rules = Rules {
        allow: AllowList::parse(["127.0.0.1"]).unwrap(),
        odd_ports: Vec::new(),
    };
    let answers = answers.iter().map(|answer| answer.to_vec());
    let lookup = Rebinding {
        answers: Mutex::new(answers.collect()),
    };
    Sender::new(rules, Arc::new(lookup)).unwrap()
}

async fn post(sender: &Sender, url: &str) -> Reply {
    let signed = Signed {
        id: "id".to_owned(),
        timestamp: "1".to_owned(),
        signature: "v1,x".to_owned(),
    };
    let post = Post {
        endpoint: &"a".parse().unwrap(),
        url,
        signed: &signed,
        body: Bytes::from_static(b"{}"),
        now: Timestamp::from_ms(1_000),
        timeout_ms: 10_000,
    };
    sender.post(post, std::future::pending()).await.unwrap()
}

async fn listen(address: IpAddr, port: u16) -> TcpListener {
    let bound = TcpListener::bind(SocketAddr::new(address, port)).await;
    bound.expect("every address of 127.0.0.0/8 is this machine's")
}

/// Answers one request and closes the connection, so that the next one needs another.
async fn answer_one(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 4096];
    let read = stream.read(&mut request).await.unwrap();
    assert!(read > 0);
    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer).await.unwrap();
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_connected_to() {
    let listener = listen(ALLOWED, 0).await;
    let port = listener.local_addr().unwrap().port();
    let trap = listen(REFUSED, port).await;
    let trapped = tokio::spawn(async move { trap.accept().await });
    let url = format!("http://rebinding.example:{port}/hook");
    // Were it looked up again between judging and connecting, the second answer would be used.
    let sender = sender(&[&[ALLOWED], &[REFUSED], &[REFUSED, ALLOWED]]);

    let (reply, ()) = tokio::join!(post(&sender, &url), answer_one(&listener));
    assert_eq!(reply.outcome.status(), Some(200));

    let reply = post(&sender, &url).await;
    let Outcome::Unsent(why) = &reply.outcome else {
        panic!("nothing may be sent: {reply:?}");
    };
    assert!(
        why.contains("127.0.0.2, which is a loopback address"),
        "{why}"
    );

    // Of several addresses, those that may be called are enough.
    let (reply, ()) = tokio::join!(post(&sender, &url), answer_one(&listener));
    assert_eq!(reply.outcome.status(), Some(200));
    assert!(!trapped.is_finished(), "nobody may connect there");
    trapped.abort();
}

#[tokio::test]
async fn a_name_without_an_address_that_may_be_called_is_not_called() {
    let metadata: IpAddr = [169, 254, 169, 254].into();
    let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
    for (answer, why) in [
        (vec![metadata], "metadata"),
        (vec![mapped], "private"),
        (vec![], "has no address"),
    ] {
        let sender = sender(&[&answer]);
        let reply = post(&sender, "https://hooks.example/").await;
        let Outcome::Unsent(said) = &reply.outcome else {
            panic!("nothing may be sent: {reply:?}");
        };
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn addresses_in_the_url_are_judged_again_for_each_try() {
    let reply = post(&sender(&[]), "http://0x7f000002:8080/").await;
    let Outcome::Unsent(why) = &reply.outcome else {
        panic!("nothing may be sent: {reply:?}");
    };
    assert!(why.starts_with("127.0.0.2 is a loopback address"), "{why}");
}

#[tokio::test]
async fn what_went_wrong_does_not_tell_the_url() {
    let taken = listen(ALLOWED, 0).await;
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    for url in [
        format!("http://127.0.0.1:{port}/hook?token=s3cret"),
        "http://127.0.0.1:99999/hook?token=s3cret".to_owned(),
    ] {
        let error = post(&sender(&[]), &url).await.outcome.error().unwrap();
        assert!(
            !error.contains("s3cret") && !error.contains("/hook"),
            "{error}"
        );
    }
}

#[test]
fn answers_are_shown_as_far_as_they_are_text() {
    for (bytes, text) in [
        (&b"ok\n"[..], "ok\n"),
        (b"a\x00\x1b[31mb\x7f", "a  [31mb "),
        ("caf\u{e9}".as_bytes(), "caf\u{e9}"),
        // Cut within a character.
        (&"caf\u{e9}".as_bytes()[..4], "caf"),
    ] {
        assert_eq!(readable(bytes), text);
    }
    let long = bounded("é".repeat(1000));
    assert!(long.len() <= limits::WEBHOOK_ERROR_BYTES + 3 && long.ends_with('…'));
}
