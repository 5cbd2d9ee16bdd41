//! The cluster and the proxy, tried with a client that knows nothing of them.

mod client;
mod cluster;
mod killed;
mod network;
mod process;
