//! `lazyfox export` and `lazyfox import`: everything that a store holds, carried to another one by a file.

mod file;
mod line;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use lazyfox_store::moving::{Carrier, Record};
use lazyfox_store::sqlite::DATABASE;
use lazyfox_store::{postgres, sqlite};

use self::file::{Counts, Digest, Reader, Writer};
use super::place::{self, Place};
use crate::clock::Clock;

const EXPORT_HELP: &str = "\
Examples:
  lazyfox export --data /var/lib/lazyfox everything.jsonl
  lazyfox export --database-url postgres://lazyfox@db/lazyfox everything.jsonl

The server of a data directory has to be stopped before. Servers that share a database go on: the
file says what was there at one moment. It holds inputs and outputs in the clear, and nobody else
may read it; s3Config and webhook secrets in it are sealed, and the new server needs the same
server.key to open them.";

const IMPORT_HELP: &str = "\
Examples:
  lazyfox import --database-url postgres://lazyfox@db/lazyfox everything.jsonl
  lazyfox import --data /var/lib/lazyfox-2 everything.jsonl

The store has to be empty: import before a server is started on it. The file is checked before
anything is written, what was written is read back and compared, and it counts all at once or not
at all.";

/// Arguments of `lazyfox export`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPORT_HELP)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    store: place::Store,
    /// The file to be made
    file: PathBuf,
}

/// Arguments of `lazyfox import`.
#[derive(Debug, clap::Args)]
#[command(after_help = IMPORT_HELP)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    store: place::Store,
    /// The file that `lazyfox export` made
    file: PathBuf,
}

/// Writes everything into a file.
///
/// # Errors
/// Says what to change. The file is not there then.
#[expect(
    clippy::print_stdout,
    reason = "what the command was asked for goes to standard output"
)]
pub(super) async fn export(args: ExportArgs) -> Result<ExitCode> {
    let place = args.store.find()?.place;
    let mut writer = Writer::create(&args.file)?;
    let written = match export_into(&place, &mut writer).await {
        Ok(()) => writer.finish(),
        Err(e) => Err(e),
    };
    let counts = match written {
        Ok(counts) => counts,
        Err(e) => {
            // It was made by this very command. Half of it would be refused, and in the way of the next try.
            let _ = std::fs::remove_file(&args.file);
            return Err(e);
        }
    };
    println!("exported to {}\n{counts}", args.file.display());
    println!(
        "s3Config and webhook secrets in it are sealed: the new server needs the same server.key"
    );
    Ok(ExitCode::SUCCESS)
}

async fn export_into(place: &Place, writer: &mut Writer) -> Result<()> {
    let mut each = |record: Record| writer.write(record);
    match place {
        Place::Directory(data) => {
            if !data.join(DATABASE).exists() {
                return Err(place::none_in(data).into());
            }
            sqlite::Holdings::open(data)?.each(&mut each)
        }
        Place::Database(access) => {
            let holdings = postgres::Holdings::open(access).await?;
            holdings.each(&mut each).await
        }
    }
}

/// Fills an empty store from a file.
///
/// # Errors
/// Says what to change. Nothing is written then.
#[expect(
    clippy::print_stdout,
    reason = "what the command was asked for goes to standard output"
)]
pub(super) async fn import(args: ImportArgs) -> Result<ExitCode> {
    let found = args.store.find()?;
    let (counts, digest) = check(&args.file)?;
    let mut moving = Moving {
        reader: Reader::open(&args.file)?,
        digest,
        counts: counts.clone(),
        back: Digest::new(),
        back_counts: Counts::default(),
    };
    match &found.place {
        Place::Directory(data) => sqlite::Holdings::open(data)?.fill(&mut moving)?,
        Place::Database(access) => {
            let holdings = postgres::Holdings::make(access).await?;
            let now = Clock::system().now();
            holdings.fill(found.leases(), now, &mut moving).await?;
        }
    }
    println!("imported into {}\n{counts}", found.place);
    println!("all of it was read back and compared");
    println!(
        "s3Config and webhook secrets are sealed: give the new server the same server.key before \
         it starts"
    );
    Ok(ExitCode::SUCCESS)
}

/// Reads the whole file, and says what is in it.
fn check(path: &Path) -> Result<(Counts, String)> {
    let mut reader = Reader::open(path)?;
    while reader.next()?.is_some() {}
    reader.ended()
}

/// A file on its way into a store.
struct Moving {
    reader: Reader,
    /// What the file was when it was checked.
    digest: String,
    counts: Counts,
    /// The file as it would be written from what is read back.
    back: Digest,
    back_counts: Counts,
}

impl Carrier<anyhow::Error> for Moving {
    fn next(&mut self) -> Result<Option<Record>> {
        let record = self.reader.next()?;
        if record.is_none() {
            let (_, digest) = self.reader.ended()?;
            ensure!(
                digest == self.digest,
                "the file changed while it was imported; nothing is kept"
            );
        }
        Ok(record)
    }

    fn read_back(&mut self, record: Record) -> Result<()> {
        self.back_counts.count(&record);
        self.back.record(record).context("what was written")
    }

    fn confirm(&mut self) -> Result<()> {
        if self.back_counts != self.counts {
            bail!(
                "what was written is not what is in the file: {} instead of {}. Nothing is kept",
                self.back_counts,
                self.counts
            );
        }
        ensure!(
            self.back.text() == self.digest,
            "what was written is not what is in the file, although there is as much of it; nothing \
             is kept"
        );
        Ok(())
    }
}
