//! Several real servers over one real PostgreSQL, and what happens when one of them dies, falls silent or is cut
//! off, or when the database does: what was acknowledged stays true, and nothing is done twice.
//!
//! The load, its history and the check of that are those of the crash tests.

#[path = "../crash/after.rs"]
mod after;
#[path = "../crash/check.rs"]
mod check;
#[path = "../crash/history.rs"]
mod history;
#[path = "../crash/http.rs"]
mod http;
#[path = "../crash/load.rs"]
mod load;
#[path = "../crash/moments.rs"]
mod moments;
#[path = "../sdk/port.rs"]
mod port;
#[path = "../sdk/process.rs"]
mod process;
#[path = "../crash/receiver.rs"]
mod receiver;
#[path = "../crash/seed.rs"]
mod seed;
#[path = "../crash/server.rs"]
mod server;

mod crossed;
mod failures;
mod team;
