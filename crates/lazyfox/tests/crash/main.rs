//! The real server as a process of its own that is killed, stopped and started again: what it has
//! acknowledged stays true.
//!
//! Clients and workers are simulated over HTTP, so nothing but the binary and `python3` is needed. Nothing
//! here sleeps: whoever finds the server gone waits to be told that it is back.

#[path = "../sdk/port.rs"]
mod port;
#[path = "../sdk/process.rs"]
mod process;

mod gate;
mod http;
mod receiver;
mod server;

mod after;
mod check;
mod history;
mod load;
mod moments;
mod seed;

mod adopted;
mod crossed;
mod environment;
mod failures;
mod guard;
mod hangup;
mod inherited;
mod kills;
mod leases;
mod refusals;
mod several;
mod stop;
mod team;
mod upgrade;
mod webhooks;
