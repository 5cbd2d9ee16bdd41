//! The command line from outside: `serve`, `key` and the client, each run as a user runs it against a real
//! server with the embedded store. Workers are simulated, so nothing needs to be installed.

#[path = "../crash/http.rs"]
mod http;
#[path = "../sdk/port.rs"]
mod port;
#[path = "../sdk/process.rs"]
mod process;
#[path = "../crash/server.rs"]
mod server;

mod worker;

mod client;
mod config;
mod generic_worker;
mod keys;
mod listen;
mod logs;
mod migrate;
mod moving;
mod queue;
mod simulate;
