//! The proxy does to a connection what it is told to, and nothing else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lazyfox_testing::{Proxy, shared};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{connect, guarded};

/// A server that does nothing by itself.
struct Server(TcpListener);

impl Server {
    async fn start() -> (Self, Proxy) {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let proxy = Proxy::start(listener.local_addr().expect("it is bound"));
        (Self(listener), proxy)
    }

    async fn accept(&self) -> TcpStream {
        let (stream, _) = guarded("a connection", self.0.accept())
            .await
            .expect("one comes");
        stream
    }

    /// A connection through the proxy, both ends of it.
    async fn connected(&self, proxy: &Proxy) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(proxy.address())
            .await
            .expect("it listens");
        (client, self.accept().await)
    }
}

async fn assert_carries(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).await.expect("it is open");
    assert_receives(to, text).await;
}

async fn assert_receives(to: &mut TcpStream, text: &str) {
    let mut received = vec![0; text.len()];
    guarded(text, to.read_exact(&mut received))
        .await
        .expect("it is open");
    assert_eq!(String::from_utf8_lossy(&received), text);
}

/// What comes until the connection ends, cleanly or not.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let _ = guarded("its end", stream.read_to_end(&mut received)).await;
    received
}

async fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn what_is_sent_arrives_and_so_does_the_end() {
    let (server, proxy) = Server::start().await;
    let (mut client, mut end) = server.connected(&proxy).await;
    assert_carries(&mut client, &mut end, "there").await;
    assert_carries(&mut end, &mut client, "and back").await;

    // Half of it: the other direction goes on.
    client.shutdown().await.unwrap();
    let nothing = guarded("the end", end.read(&mut [0])).await;
    assert_eq!(nothing.unwrap(), 0);
    let long = vec![7; 3_000_000];
    let (sent, received) = tokio::join!(end.write_all(&long), async {
        let mut received = vec![0; long.len()];
        guarded("all of it", client.read_exact(&mut received))
            .await
            .unwrap();
        received
    });
    sent.unwrap();
    assert!(received == long);
}

#[tokio::test]
async fn a_cut_ends_all_connections_and_refuses_new_ones() {
    let (server, proxy) = Server::start().await;
    let (client, end) = server.connected(&proxy).await;
    proxy.cut();
    assert!(is_refused(proxy.address()).await);
    assert_eq!(rest(client).await, b"");
    assert_eq!(rest(end).await, b"");

    proxy.restore();
    let (mut client, mut end) = server.connected(&proxy).await;
    assert_carries(&mut client, &mut end, "again").await;
}

#[tokio::test]
async fn a_stall_takes_all_and_forwards_nothing_until_it_is_over() {
    let (server, proxy) = Server::start().await;
    let (mut client, mut end) = server.connected(&proxy).await;
    let (mut other, other_end) = server.connected(&proxy).await;
    assert_carries(&mut client, &mut end, "before").await;

    proxy.stall();
    client.write_all(b"meanwhile").await.unwrap();
    other.write_all(b"never").await.unwrap();
    let mut late = TcpStream::connect(proxy.address()).await.unwrap();
    late.write_all(b"late").await.unwrap();
    // The proxy takes its turn for each of these, and has had all time to do what it must not.
    for _ in 0..1000 {
        proxy.delay(Duration::ZERO);
    }
    let nothing = end.try_read(&mut [0; 16]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);

    proxy.restore();
    assert_receives(&mut end, "meanwhile").await;
    assert_receives(&mut server.accept().await, "late").await;

    drop(other);
    assert_eq!(rest(other_end).await, b"never");
}

#[tokio::test]
async fn what_was_stalled_is_lost_by_a_cut() {
    let (server, proxy) = Server::start().await;
    let (mut client, end) = server.connected(&proxy).await;
    proxy.stall();
    client.write_all(b"lost").await.unwrap();
    proxy.cut();
    proxy.restore();
    assert_eq!(rest(end).await, b"");
    assert_eq!(rest(client).await, b"");
}

#[tokio::test]
async fn a_delay_is_one_each_way_and_not_a_limit() {
    let (server, proxy) = Server::start().await;
    let (mut client, mut end) = server.connected(&proxy).await;
    let delay = Duration::from_millis(30);
    proxy.delay(delay);
    let started = Instant::now();
    assert_carries(&mut client, &mut end, "there").await;
    assert_carries(&mut end, &mut client, "and back").await;
    assert!(started.elapsed() >= 2 * delay);
}

#[tokio::test]
async fn a_dropped_proxy_is_gone_with_its_connections() {
    let (server, proxy) = Server::start().await;
    let (client, end) = server.connected(&proxy).await;
    let address = proxy.address();
    drop(proxy);
    assert!(is_refused(address).await);
    assert_eq!(rest(client).await, b"");
    assert_eq!(rest(end).await, b"");
}

#[tokio::test]
async fn a_database_can_be_reached_through_it_and_lost() {
    let proxy = Proxy::start(shared().address());
    let url = proxy.through(&shared().database());
    let session = connect(&url).await.unwrap();
    assert_eq!(session.ask("SELECT 'fox'").await, "fox");

    proxy.cut();
    assert!(session.run("SELECT 1").await.is_err());
    assert!(connect(&url).await.is_err());
    proxy.restore();
    let session = connect(&url).await.unwrap();
    assert_eq!(session.ask("SELECT 'again'").await, "again");
}
