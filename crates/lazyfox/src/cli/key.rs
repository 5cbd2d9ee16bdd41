//! `lazyfox key`: API keys, in the store of a data directory, beside a server that may be running.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Subcommand;
use lazyfox_core::id::EndpointId;
use lazyfox_store::sqlite::{DATABASE, KeyFile};
use lazyfox_store::{Access, Key};

use crate::clock::Clock;
use crate::config::Config;
use crate::keyring;

const HELP: &str = "\
Examples:
  lazyfox key create 'web shop' --endpoint hello --endpoint resize
  lazyfox key create dashboard --read-only
  lazyfox key revoke key_7hq2k9xm

Changes reach a running server within 2 seconds.";

/// Arguments of `lazyfox key`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    /// The configuration file of the server [default: lazyfox.toml in this directory]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory of the server; wins over the configuration
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and print it, once
    Create {
        /// What the key is for, in your words
        label: String,
        /// An endpoint that the key is good for; may be given several times [default: all]
        #[arg(long, value_name = "NAME")]
        endpoint: Vec<EndpointId>,
        /// The key may look at jobs, and not submit, cancel, retry or purge
        #[arg(long)]
        read_only: bool,
        /// The key may do everything everywhere
        #[arg(long, conflicts_with_all = ["endpoint", "read_only"])]
        admin: bool,
    },
    /// List the keys; none of them can be shown again
    List,
    /// Make a key worthless
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
}

/// Makes, lists or revokes.
///
/// # Errors
/// Says what to change.
#[expect(
    clippy::print_stdout,
    reason = "what the command was asked for goes to standard output"
)]
pub(super) fn main(args: Args) -> Result<ExitCode> {
    let data = match (&args.data, &args.config) {
        (Some(data), _) => data.clone(),
        (None, Some(config)) => Config::read(config)?.data,
        (None, None) => Config::read(&PathBuf::from("lazyfox.toml"))?.data,
    };
    ensure!(
        data.join(DATABASE).exists(),
        "there is no store in {}; name the server's data directory with --data, or start it once",
        data.display()
    );
    let mut file = KeyFile::open(&data)?;
    let now = Clock::system().now();
    match args.action {
        Action::Create {
            label,
            endpoint,
            read_only,
            admin,
        } => {
            let access = match (admin, read_only) {
                (true, _) => Access::Admin,
                (false, true) => Access::ReadOnly,
                (false, false) => Access::ReadWrite,
            };
            let endpoints = (!endpoint.is_empty()).then_some(endpoint);
            let (text, key) = keyring::make(&label, access, endpoints, now);
            file.add(&key)?;
            eprintln!(
                "made {} for {label:?}; this is the only time it is shown:",
                key.id
            );
            println!("{text}");
        }
        Action::List => {
            println!(
                "{:13} {:11} {:24} {:8} LABEL",
                "ID", "ACCESS", "ENDPOINTS", "STATE"
            );
            for key in file.keys()? {
                println!("{}", line(&key));
            }
        }
        Action::Revoke { id } => {
            if !file.revoke(&id, now)? {
                bail!("there is no key {id}; `lazyfox key list` shows all of them");
            }
            eprintln!("revoked {id}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(key: &Key) -> String {
    let access = match key.access {
        Access::Admin => "admin",
        Access::ReadWrite => "read-write",
        Access::ReadOnly => "read-only",
    };
    let endpoints = match &key.endpoints {
        None => "all".to_owned(),
        Some(names) => names
            .iter()
            .map(EndpointId::as_str)
            .collect::<Vec<_>>()
            .join(","),
    };
    let state = if key.revoked_at.is_some() {
        "revoked"
    } else {
        "valid"
    };
    format!(
        "{:13} {access:11} {endpoints:24} {state:8} {}",
        key.id, key.label
    )
}
