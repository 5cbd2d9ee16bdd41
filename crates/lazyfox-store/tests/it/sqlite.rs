//! What only the embedded store promises: its files, and what happens when they or the machine fail.

mod child;
mod closing;
mod crash;
mod damage;
mod deliveries;
mod key_file;
mod migrations;
mod no_room;
mod opening;
mod workers;

use std::path::Path;

use lazyfox_store::sqlite::{DATABASE, SqliteStore};
use rusqlite::Connection;

use crate::world::*;

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, START).unwrap()
}

/// Why a store does not open.
fn refusal(dir: &Path) -> String {
    match SqliteStore::open(dir, START) {
        Ok(_) => panic!("{} can be opened", dir.display()),
        Err(lazyfox_store::StoreError::Open(text)) => text,
        Err(other) => panic!("not an error of opening: {other:?}"),
    }
}

/// The database as any other program sees it.
fn raw(dir: &Path) -> Connection {
    Connection::open(dir.join(DATABASE)).unwrap()
}

/// Puts a database of the first format there.
fn format_1(dir: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1.db");
    std::fs::copy(fixture, dir.join(DATABASE)).unwrap();
}
