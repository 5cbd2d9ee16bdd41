//! `lazyfox migrate`: the tables of a database, made or brought to this program's format.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use lazyfox_store::postgres::{Format, PostgresStore};

use super::place::{self, Place};

const HELP: &str = "\
Examples:
  lazyfox migrate --check --database-url postgres://lazyfox@db/lazyfox
  lazyfox migrate --config lazyfox.toml

A server makes the tables in an empty database by itself, and brings a data directory up to date
when it starts. Tables that several servers share are changed by this command alone; servers of
the earlier release go on meanwhile. --check changes nothing: the exit code is 0 where nothing is
to be done, and else 1.";

/// Arguments of `lazyfox migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Change nothing, say what would be done
    #[arg(long)]
    check: bool,
    /// The configuration file of the server [default: lazyfox.toml in this directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database, postgres://USER@HOST/DATABASE; wins over the configuration
    #[arg(
        long,
        env = "LAZYFOX_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    database_url: Option<String>,
}

/// Looks, and migrates unless it is to look only.
///
/// # Errors
/// Says what to change.
#[expect(
    clippy::print_stdout,
    reason = "what the command was asked for goes to standard output"
)]
pub(super) async fn main(args: Args) -> Result<ExitCode> {
    let store = place::Store::in_database(args.config, args.database_url);
    let found = store.find()?;
    let Place::Database(access) = &found.place else {
        bail!(
            "{} needs no migrating by hand: a server brings it up to date when it starts; name a \
             database with --database-url",
            found.place
        );
    };
    let (before, place) = (PostgresStore::check(access).await?, access.place());
    let known = Format::KNOWN;
    let (said, is_done) = match before {
        Format::Current => (format!("format {known}, nothing to do"), true),
        Format::NewerUsable(number) => {
            let said = format!(
                "format {number} of a later release, which this one can use; nothing to do"
            );
            (said, true)
        }
        Format::None if args.check => {
            let said = format!("no tables; `lazyfox migrate` would make those of format {known}");
            (said, false)
        }
        Format::Older(number) if args.check => {
            let said = format!(
                "format {number}; `lazyfox migrate` would bring it to format {known}, and servers \
                 of the earlier release can go on meanwhile"
            );
            (said, false)
        }
        Format::Newer(number, needs) => {
            let said = format!(
                "format {number} of a later release, which programs need to know up to format \
                 {needs}, and this one knows {known}; use the newer release"
            );
            (said, false)
        }
        Format::None | Format::Older(_) => {
            PostgresStore::migrate(access).await?;
            let said = match before {
                Format::Older(number) => format!("brought from format {number} to format {known}"),
                _ => format!("made the tables of format {known}"),
            };
            (said, true)
        }
    };
    println!("{place}: {said}");
    Ok(if is_done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
