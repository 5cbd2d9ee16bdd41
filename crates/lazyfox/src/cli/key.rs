//! `lazyfox key`: API keys, in the store of a data directory or in a database, beside servers that may be
//! running.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;
use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use lazyfox_store::postgres::{Format, PostgresStore};
use lazyfox_store::sqlite::{DATABASE, KeyFile};
use lazyfox_store::{Access, Key, Store, StoreError};

use super::place::{self, Place};
use crate::clock::Clock;
use crate::keyring;

const HELP: &str = "\
Examples:
  lazyfox key create 'web shop' --endpoint hello --endpoint resize
  lazyfox key create dashboard --read-only
  lazyfox key revoke key_7hq2k9xm
  lazyfox key list --database-url postgres://lazyfox@db/lazyfox

Changes reach a running server within 2 seconds.";

/// Arguments of `lazyfox key`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    store: place::Store,
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
pub(super) async fn main(args: Args) -> Result<ExitCode> {
    let mut keys = Keys::open(&args.store.find()?.place).await?;
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
            keys.add(&key).await?;
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
            for key in keys.all().await? {
                println!("{}", line(&key));
            }
        }
        Action::Revoke { id } => {
            if !keys.revoke(&id, now).await? {
                bail!("there is no key {id}; `lazyfox key list` shows all of them");
            }
            eprintln!("revoked {id}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where keys are kept.
enum Keys {
    File(KeyFile),
    Database(Box<PostgresStore>),
}

impl Keys {
    async fn open(place: &Place) -> Result<Self> {
        match place {
            Place::Directory(data) => Ok(Self::File(Self::file(data)?)),
            Place::Database(access) => {
                if PostgresStore::check(access).await? == Format::None {
                    bail!(
                        "there is no store in {place}; start a server on it once, or run \
                         `lazyfox migrate`"
                    );
                }
                let store = PostgresStore::open(access, "lazyfox key".to_owned()).await?;
                Ok(Self::Database(Box::new(store)))
            }
        }
    }

    fn file(data: &Path) -> Result<KeyFile, StoreError> {
        if data.join(DATABASE).exists() {
            KeyFile::open(data)
        } else {
            Err(place::none_in(data))
        }
    }

    async fn all(&mut self) -> Result<Vec<Key>, StoreError> {
        match self {
            Self::File(file) => file.keys(),
            Self::Database(store) => store.keys().await,
        }
    }

    async fn add(&mut self, key: &Key) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.add(key),
            Self::Database(store) => store.add_key(key.clone()).await,
        }
    }

    async fn revoke(&mut self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        match self {
            Self::File(file) => file.revoke(id, now),
            Self::Database(store) => store.revoke_key(id, now).await,
        }
    }
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
