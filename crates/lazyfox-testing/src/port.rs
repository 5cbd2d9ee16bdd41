//! A port on loopback that stays ours, also while nobody listens there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A server that is stopped and started again has to find its port free. So a socket is bound to it
/// all the time, which never listens: the kernel gives the port to nobody who asks for any, and
/// refuses connections, while who names the port and allows address reuse, as servers do, may
/// listen there.
pub(crate) struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> io::Result<Self> {
        let held = TcpSocket::new_v4()?;
        held.set_reuseaddr(true)?;
        held.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = held.local_addr()?;
        Ok(Self {
            address,
            _held: held,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::Port;

    #[test]
    fn a_reserved_port_is_given_to_nobody_else() {
        let ports: Vec<Port> = (0..1000).map(|_| Port::reserve().unwrap()).collect();
        let listeners: Vec<TcpListener> = (0..1000)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let mut taken: BTreeSet<_> = ports.iter().map(Port::address).collect();
        taken.extend(listeners.iter().map(|it| it.local_addr().unwrap()));
        assert_eq!(taken.len(), 2000);
    }

    #[test]
    fn a_server_can_come_and_go_on_a_reserved_port() {
        let port = Port::reserve().unwrap();
        let refused = || TcpStream::connect(port.address()).unwrap_err().kind();
        assert_eq!(refused(), ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            let listener = TcpListener::bind(port.address()).unwrap();
            TcpStream::connect(port.address()).unwrap();
            drop(listener);
            assert_eq!(refused(), ErrorKind::ConnectionRefused);
        }
    }
}
