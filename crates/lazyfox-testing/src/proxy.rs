//! A network that breaks when it is told to: a TCP proxy on loopback in front of a server.

use std::future::pending;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::port::Port;

mod carry;

/// What the network does with what is sent.
#[derive(Clone, Copy)]
struct Traffic {
    flows: bool,
    delay: Duration,
}

#[derive(Clone, Copy)]
enum Order {
    Cut,
    Stall,
    Restore,
    Delay(Duration),
}

/// An order, and whom to tell when it is carried out.
type Message = (Order, SyncSender<Result<()>>);

/// A proxy in front of a server. It has a thread and a clock of its own, so that it works on while
/// a test blocks, and while the clock of a test stands still. Each order is carried out when its
/// call returns.
///
/// It ends, and its connections with it, when it is dropped.
pub struct Proxy {
    target: SocketAddr,
    address: SocketAddr,
    orders: Option<UnboundedSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy that forwards what comes to this server, which need not be up yet.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        Self::try_start(target).unwrap_or_else(|error| panic!("cannot start a proxy: {error:#}"))
    }

    fn try_start(target: SocketAddr) -> Result<Self> {
        let port = Port::reserve().context("no port is free")?;
        let address = port.address();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            listen(address)?
        };
        let network = Network {
            port,
            target,
            listener: Some(listener),
            traffic: watch::Sender::new(Traffic {
                flows: true,
                delay: Duration::ZERO,
            }),
            connections: JoinSet::new(),
        };
        let (orders, received) = unbounded_channel();
        let thread = thread::Builder::new()
            .name("proxy".into())
            .spawn(move || run(&runtime, network, received))?;
        Ok(Self {
            target,
            address,
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Where to connect in place of the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same URL, but through this proxy.
    #[must_use]
    pub fn through(&self, url: &str) -> String {
        let [from, to] = [self.target, self.address].map(|it| it.to_string());
        assert!(url.contains(&from), "{url} does not lead to {from}");
        url.replacen(&from, &to, 1)
    }

    /// Ends all connections and refuses new ones.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Takes connections and whatever is sent, and forwards nothing of it.
    pub fn stall(&self) {
        self.order(Order::Stall);
    }

    /// Works again. What was sent during a stall is forwarded now; what was cut stays cut.
    pub fn restore(&self) {
        self.order(Order::Restore);
    }

    /// From now on, whatever is sent arrives that much later, in each direction.
    pub fn delay(&self, each_way: Duration) {
        self.order(Order::Delay(each_way));
    }

    fn order(&self, order: Order) {
        let (done, carried_out) = sync_channel(1);
        let orders = self.orders.as_ref().expect("only a drop takes it");
        let outcome = orders
            .send((order, done))
            .ok()
            .and_then(|()| carried_out.recv().ok());
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => panic!("the proxy cannot do that: {error:#}"),
            None => panic!("the proxy has died"),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It panicked already where that matters.
            let _ = thread.join();
        }
    }
}

fn run(runtime: &Runtime, mut network: Network, mut orders: UnboundedReceiver<Message>) {
    runtime.block_on(async {
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some((order, done)) => {
                        let outcome = network.carry_out(order).await;
                        // The one who asked waits for it.
                        let _ = done.send(outcome);
                    }
                    None => return,
                },
                client = accept(network.listener.as_ref()) => network.connect(client),
                // What has ended has to be collected.
                Some(_) = network.connections.join_next() => {}
            }
        }
    });
}

struct Network {
    port: Port,
    target: SocketAddr,
    /// None while the network is cut.
    listener: Option<TcpListener>,
    traffic: watch::Sender<Traffic>,
    connections: JoinSet<io::Result<()>>,
}

impl Network {
    async fn carry_out(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Cut => {
                self.listener = None;
                self.connections.shutdown().await;
            }
            Order::Stall => self.traffic.send_modify(|it| it.flows = false),
            Order::Restore => self.traffic.send_modify(|it| it.flows = true),
            Order::Delay(delay) => self.traffic.send_modify(|it| it.delay = delay),
        }
        let takes_connections = matches!(order, Order::Stall | Order::Restore);
        if takes_connections && self.listener.is_none() {
            self.listener = Some(listen(self.port.address())?);
        }
        Ok(())
    }

    fn connect(&mut self, client: io::Result<TcpStream>) {
        match client {
            Ok(client) => {
                let traffic = self.traffic.subscribe();
                self.connections
                    .spawn(carry::carry(client, self.target, traffic));
            }
            Err(error) => eprintln!("proxy: cannot accept a connection: {error}"),
        }
    }
}

/// Without waiting, which [`TcpListener::bind`] would have to be awaited for.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener =
        net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => pending().await,
    }
}
