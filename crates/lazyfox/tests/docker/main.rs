//! Containers on a real engine: the provider, and a whole server with an SDK worker in a container.
//!
//! `cargo xtask test` installs what this needs and runs it, as root. The tests start engines of their own,
//! in temporary directories, and end them. Nothing here sleeps: workers wait at named pipes.

mod engine;
#[path = "../sdk/http.rs"]
mod http;
mod image;
mod place;
mod process;
mod registry;

mod again;
mod away;
mod life;
mod limits;
mod pull;
mod rounds;
mod server;
mod stop;
