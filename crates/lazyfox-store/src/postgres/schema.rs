//! The tables: made where there are none, and brought up to date when somebody says so.

use std::time::Duration;

use deadpool_postgres::{Client, Pool};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::connect::{self, Failure, failed};
use super::row::column;
use crate::StoreError;

/// Each step from one format to the next, in order. They only ever get more.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/postgres/0001_jobs.sql")];

/// The format that this program knows.
const FORMAT: i32 = MIGRATIONS.len() as i32;

/// The oldest program that may go on when the tables are of this program's format: it knows this format.
const NEEDS: i32 = 1;

/// Who migrates holds this lock of the database; the number has no meaning.
const LOCK: i64 = 0x6c61_7a79_666f_7801;

/// How long a step waits for a lock, and others behind it.
const LOCKED_MS: u32 = 500;
/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is made before the first migration.
const BOOK: &str = "
    CREATE SCHEMA IF NOT EXISTS lazyfox;
    CREATE TABLE IF NOT EXISTS lazyfox.format (
        number     integer PRIMARY KEY,
        needs      integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        program    text NOT NULL
    );";

/// What the tables are, as this program sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// There are none.
    None,
    /// Those of an earlier release; the number is the format.
    Older(i32),
    /// As this program knows them.
    Current,
    /// Those of a later release that this program can work with.
    NewerUsable(i32),
    /// Those of a later release that only programs of this format work with.
    Newer(i32, i32),
}

impl Format {
    /// The number of the format that this program knows.
    pub const KNOWN: i32 = FORMAT;
}

/// Where the database comes from in messages.
pub(super) fn open_error(place: &str, text: &str) -> StoreError {
    StoreError::Open(format!("cannot use the database at {place}: {text}"))
}

async fn format_of(client: &Client) -> Result<Format, Failure> {
    let there = "SELECT to_regclass('lazyfox.format') IS NOT NULL";
    let row = client.query_one(there, &[]).await.map_err(failed)?;
    if !column::<bool>(&row, 0)? {
        return Ok(Format::None);
    }
    let latest = "SELECT number, needs FROM lazyfox.format ORDER BY number DESC LIMIT 1";
    let row = client.query_opt(latest, &[]).await.map_err(failed)?;
    let Some(row) = row else {
        return Ok(Format::None);
    };
    let (number, needs): (i32, i32) = (column(&row, 0)?, column(&row, 1)?);
    Ok(match number {
        FORMAT => Format::Current,
        older if older < FORMAT => Format::Older(older),
        newer if needs <= FORMAT => Format::NewerUsable(newer),
        newer => Format::Newer(newer, needs),
    })
}

/// What the tables are.
pub(super) async fn check(pool: &Pool, place: &str) -> Result<Format, StoreError> {
    let format = connect::again(pool, || {
        Box::pin(async {
            let client = connect::client(pool).await?;
            format_of(&client).await
        })
    });
    let format = format.await;
    format.map_err(|failure| explain(place, failure))
}

/// Makes the tables what this program knows, and takes the steps of a later one after that. Programs of
/// earlier releases go on meanwhile, unless the format says that they cannot.
///
/// All of it happens in one transaction. While one of its steps waits for a lock, whoever comes waits behind
/// it: so it lets go of everything soon, and begins anew. A server that had what it wanted first goes on.
pub(super) async fn migrate(
    pool: &Pool,
    place: &str,
    later: &[&str],
) -> Result<Format, StoreError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match take_steps(pool, later).await {
            Ok(format) => return Ok(format),
            Err(Failure::Database(error)) if is_in_the_way(&error) => {
                if Instant::now() >= until {
                    return Err(in_the_way(place, &error));
                }
            }
            Err(failure) => return Err(explain(place, failure)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn take_steps(pool: &Pool, later: &[&str]) -> Result<Format, Failure> {
    let mut client = connect::client(pool).await?;
    let transaction = client.transaction().await.map_err(failed)?;
    // A step may take as long as it takes, and whoever migrates already is waited for.
    let alone = format!(
        "SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({LOCK}); \
         SET LOCAL lock_timeout = {LOCKED_MS}; {BOOK}"
    );
    transaction.batch_execute(&alone).await.map_err(failed)?;
    let latest = "SELECT coalesce(max(number), 0) FROM lazyfox.format";
    let row = transaction.query_one(latest, &[]).await.map_err(failed)?;
    let from = usize::try_from(column::<i32>(&row, 0)?).unwrap_or(0);
    let steps = (1_i32..).zip(MIGRATIONS.iter().chain(later));
    for (number, step) in steps.skip(from) {
        transaction.batch_execute(step).await.map_err(failed)?;
        let program = concat!("lazyfox ", env!("CARGO_PKG_VERSION"));
        let note = "INSERT INTO lazyfox.format (number, needs, program) VALUES ($1, $2, $3)";
        transaction
            .execute(note, &[&number, &NEEDS, &program])
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    format_of(&client).await
}

/// Whether somebody else has a lock that is needed.
fn is_in_the_way(error: &tokio_postgres::Error) -> bool {
    [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .iter()
    .any(|it| error.code() == Some(it))
}

fn in_the_way(place: &str, error: &tokio_postgres::Error) -> StoreError {
    open_error(
        place,
        &format!(
            "for {} s its tables could not be changed, since others had locks on them: {}; \
             nothing was changed. A dump, or another long transaction, has to end first",
            PATIENCE.as_secs(),
            connect::explained(error)
        ),
    )
}

/// Why a server must not work with such tables.
pub(super) fn refusal(format: Format, place: &str) -> Option<StoreError> {
    match format {
        Format::None | Format::Current | Format::NewerUsable(_) => None,
        Format::Older(number) => Some(open_error(
            place,
            &format!(
                "its format is number {number} and this program needs number {FORMAT}; run \
                 `lazyfox migrate`, servers of the earlier release can go on meanwhile"
            ),
        )),
        Format::Newer(number, needs) => Some(open_error(
            place,
            &format!(
                "its format is number {number}, which programs need to know up to number {needs}, \
                 and this one knows {FORMAT}; start the newer release"
            ),
        )),
    }
}

pub(super) fn explain(place: &str, failure: Failure) -> StoreError {
    match failure.into_error() {
        StoreError::Unavailable(why) | StoreError::Unknown(why) | StoreError::Corrupt(why) => {
            open_error(place, &why)
        }
        error @ StoreError::Open(_) => error,
    }
}
