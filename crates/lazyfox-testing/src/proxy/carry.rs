//! One connection through the proxy.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Traffic;

/// Longest piece that is forwarded at once, in bytes.
const PIECE: usize = 16 * 1024;
/// How many pieces may be on the way: enough for a delay to be one, and not a limit of what gets
/// through.
const PIECES_ON_THE_WAY: usize = 1024;

/// Forwards both directions until both have ended, or one is broken.
pub(super) async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    mut traffic: watch::Receiver<Traffic>,
) -> io::Result<()> {
    until_it_flows(&mut traffic).await;
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;

    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        forward(from_client, to_server, traffic.clone()),
        forward(from_server, to_client, traffic),
    )?;
    Ok(())
}

/// Reads and writes beside each other: what is delayed must not keep back what comes after it.
async fn forward(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut traffic: watch::Receiver<Traffic>,
) -> io::Result<()> {
    let (pieces, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_ON_THE_WAY);
    let delayed = traffic.clone();
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            let due = Instant::now() + delayed.borrow().delay;
            // An empty piece is the end, which travels like the rest.
            if pieces.send((due, piece)).await.is_err() || length == 0 {
                return Ok::<(), io::Error>(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = on_the_way.recv().await {
            sleep_until(due).await;
            until_it_flows(&mut traffic).await;
            if piece.is_empty() {
                to.shutdown().await?;
            } else {
                to.write_all(&piece).await?;
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

async fn until_it_flows(traffic: &mut watch::Receiver<Traffic>) {
    // An error is the end of the proxy, and of this connection with it.
    let _ = traffic.wait_for(|it| it.flows).await;
}
