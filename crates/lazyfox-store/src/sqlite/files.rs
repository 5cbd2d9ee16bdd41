//! Opening the database: the lock, the migrations, and a message for everything that can be wrong.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::StoreError;

/// Migration n brings the format from n to n + 1. Append only: a database of any age passes through.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/0001_jobs.sql"),
    include_str!("../../migrations/0002_deliveries.sql"),
    include_str!("../../migrations/0003_workers.sql"),
];

/// The format that this program writes: as many migrations as there are.
const FORMAT: i32 = 3;
const _: () = assert!(MIGRATIONS.len() == FORMAT as usize);

/// Marks the file as ours ("lzfx"), so that another program's database is never migrated.
const APPLICATION_ID: i32 = 0x6c7a_6678;

/// The WAL is copied into the database whenever it has this many pages (32 MiB): rare enough that the
/// copy is cheap per job, small enough that a restart reads it in a moment.
const CHECKPOINT_PAGES: u32 = 8192;

/// What a burst leaves of the WAL's size, in bytes: twice what it has between two copies.
const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// How long to wait for `lazyfox key`, which writes a row beside a running server.
const BUSY: Duration = Duration::from_secs(10);

/// The right to be the one server of a data directory, until it is dropped.
pub(super) struct Held(File);

impl Drop for Held {
    /// Closing the file is not enough: a process that is just being started from another thread has a
    /// copy of it until it runs its program, and the lock would stay as long.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

pub(super) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    // Inputs and outputs are nobody else's business. An existing directory keeps its mode.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| open_error(dir, &format!("the data directory cannot be made: {e}")))
}

/// Takes the directory's lock. The kernel lets go of it when the process ends, however it ends.
pub(super) fn hold(dir: &Path) -> Result<Held, StoreError> {
    make_dir(dir)?;
    let path = dir.join("lazyfox.lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = file.map_err(|e| {
        open_error(dir, &format!("the data directory cannot be written ({e}); check its owner and mode, and that the file system is not mounted read-only"))
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let who = match file.read_to_string(&mut pid) {
                Ok(_) if !pid.trim().is_empty() => format!("the process {}", pid.trim()),
                Ok(_) | Err(_) => "another process".to_owned(),
            };
            let text = format!(
                "{who} is serving from it; stop that server first, or give this one a data directory of its own (--data)"
            );
            return Err(open_error(dir, &text));
        }
        Err(TryLockError::Error(e)) => {
            return Err(open_error(dir, &format!("its lock cannot be taken: {e}")));
        }
    }
    // Only for the message above; a failure to note it hurts nobody.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()));
    Ok(Held(file))
}

/// Opens a directory's database for writing and brings it to the present format.
pub(super) fn connect(dir: &Path) -> Result<Connection, StoreError> {
    connect_and(dir, |_| true)
}

/// The same for who only wants the keys. They are where they were in every format, and a server of an
/// earlier release may be running on what is there: so it stays as it is, unless there is nothing yet.
pub(super) fn connect_for_keys(dir: &Path) -> Result<Connection, StoreError> {
    connect_and(dir, |pending| pending == MIGRATIONS)
}

fn connect_and(
    dir: &Path,
    migrates: impl FnOnce(&[&str]) -> bool,
) -> Result<Connection, StoreError> {
    let path = &dir.join(super::DATABASE);
    // One at a time: the server and `lazyfox key` may both find no database yet, and SQLite does not wait
    // where two make a WAL at once. Where a directory cannot be locked, trying again helps too.
    let _turn = File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    };
    let configure = |connection: &Connection| -> rusqlite::Result<()> {
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    };
    let mut connection = open().map_err(|e| explain(path, &e))?;
    // Before anything that writes: what is not ours stays as it is.
    let pending = pending(path, &connection)?;
    configure(&connection).map_err(|e| explain(path, &e))?;
    if migrates(pending) {
        migrate(&mut connection, pending).map_err(|e| explain(path, &e))?;
    }
    Ok(connection)
}

/// Opens a migrated database for reading, beside its writer.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "cache_size", -4_096)?;
        connection.set_prepared_statement_cache_capacity(16);
        Ok(connection)
    };
    open().map_err(|e| explain(path, &e))
}

/// The migrations that a database has yet to go through.
fn pending(path: &Path, connection: &Connection) -> Result<&'static [&'static str], StoreError> {
    let explain = |e: &rusqlite::Error| explain(path, e);
    let read = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application_id = read("application_id").map_err(|e| explain(&e))?;
    let version = read("user_version").map_err(|e| explain(&e))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| explain(&e))?;

    // SQLite opens what it may not write for reading, and says nothing.
    let read_only = connection.is_readonly(rusqlite::MAIN_DB);
    if read_only.map_err(|e| explain(&e))? {
        return Err(open_error(
            path,
            &format!("it cannot be written; {READ_ONLY}"),
        ));
    }
    if application_id != APPLICATION_ID && tables > 0 {
        let text = "the file is a database of another program; move it away or choose another data directory (--data)";
        return Err(open_error(path, text));
    }
    let Some(pending) = usize::try_from(version)
        .ok()
        .and_then(|v| MIGRATIONS.get(v..))
    else {
        let text = format!(
            "its format is number {version} and this program knows formats up to {}; start the newer release that wrote it, or restore a backup from before the upgrade",
            FORMAT
        );
        return Err(open_error(path, &text));
    };
    Ok(pending)
}

fn migrate(connection: &mut Connection, pending: &[&str]) -> rusqlite::Result<()> {
    if pending.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for migration in pending {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

const READ_ONLY: &str = "check the owner and mode of the file and its directory, and that the file system is not mounted read-only";
const DAMAGED: &str = "the file is damaged; stop here, keep a copy of it with its -wal file, and restore a backup or save what can be read (docs/operating.md, \"When the store does not open\")";
const OTHERWISE: &str = "see docs/operating.md, section \"When the store does not open\"";

/// An error of the first reads and writes, as one of opening.
pub(super) fn explain_start(path: &Path, e: StoreError) -> StoreError {
    match e {
        StoreError::Corrupt(what) => open_error(path, &format!("{what}; {DAMAGED}")),
        StoreError::Unavailable(why) | StoreError::Unknown(why) => {
            open_error(path, &format!("{why}; {OTHERWISE}"))
        }
        StoreError::Open(_) => e,
    }
}

fn open_error(path: &Path, text: &str) -> StoreError {
    StoreError::Open(format!("cannot use {}: {text}", path.display()))
}

fn explain(path: &Path, e: &rusqlite::Error) -> StoreError {
    let advice = match e.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            READ_ONLY
        }
        Some(ErrorCode::DiskFull) => "the disk is full; make room and start again, nothing is lost",
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => DAMAGED,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it open for writing; close that program"
        }
        _ => OTHERWISE,
    };
    open_error(path, &format!("{e}; {advice}"))
}
