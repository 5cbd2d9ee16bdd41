//! What every store must do, on every store; and what only the embedded one promises, on real files.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, but only functions marked as tests are exempt"
)]

mod conformance;
mod fixtures;
mod histories;
mod moving;
mod postgres;
mod sqlite;
mod world;
