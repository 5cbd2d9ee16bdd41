//! Ports for servers that come back.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that stays free while a server is away: below those that the kernel gives to outgoing
/// connections, one of which might else take it.
pub(crate) fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() * 37;
    loop {
        let offset = start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 12_000 + u16::try_from(offset % 18_000).expect("it is below 18000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
