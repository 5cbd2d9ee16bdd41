//! Which store a command is about: that of a data directory, or that of a database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use lazyfox_core::id::EndpointId;
use lazyfox_core::limits;
use lazyfox_store::postgres::Access;
use lazyfox_store::{LeaseMs, StoreError};

use crate::config::{Config, Database, Endpoint, StoreKind};

/// The variable with the database's URL, as for `lazyfox serve`.
const DATABASE_URL: &str = "LAZYFOX_DATABASE_URL";

/// Arguments that say which store it is.
#[derive(Debug, clap::Args)]
pub(super) struct Store {
    /// The configuration file of the server [default: lazyfox.toml in this directory]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory of the server; wins over the configuration
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        conflicts_with = "database_url"
    )]
    data: Option<PathBuf>,
    /// The database of the servers, postgres://USER@HOST/DATABASE; wins over the configuration. Without it
    /// and --data it is taken from LAZYFOX_DATABASE_URL
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
}

/// Where a store is.
pub(super) enum Place {
    /// In this data directory.
    Directory(PathBuf),
    /// In this database.
    Database(Box<Access>),
}

/// A store that a command is about.
pub(super) struct Found {
    pub(super) place: Place,
    /// The endpoints, where a configuration says what they are.
    endpoints: BTreeMap<EndpointId, Endpoint>,
}

impl Store {
    /// That of a configuration or a database.
    pub(super) fn in_database(config: Option<PathBuf>, database_url: Option<String>) -> Self {
        Self {
            config,
            data: None,
            database_url,
        }
    }

    /// Finds the store that is meant.
    ///
    /// # Errors
    /// Says what to change.
    pub(super) fn find(&self) -> Result<Found> {
        let from_variable = || std::env::var(DATABASE_URL).ok().filter(|it| !it.is_empty());
        let url = match (&self.database_url, &self.data) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(_)) => None,
            (None, None) => from_variable(),
        };
        let given = self.config.as_deref();
        let config = match (given, &self.data, &url) {
            (_, Some(_), _) => None,
            (Some(path), None, _) => Some(Config::read(path)?),
            // It may name files that the database is reached with.
            (None, None, Some(_)) => {
                let default = Path::new("lazyfox.toml");
                default
                    .exists()
                    .then(|| Config::read(default))
                    .transpose()?
            }
            (None, None, None) => Some(Config::read(Path::new("lazyfox.toml"))?),
        };
        let place = match (&self.data, &url, &config) {
            (Some(data), ..) => Place::Directory(data.clone()),
            (None, Some(url), None) => Place::Database(Box::new(Database::at(url).access()?)),
            (None, Some(url), Some(config)) => {
                let mut config = config.clone();
                config.use_database(url);
                of(&config)?
            }
            (None, None, Some(config)) => of(config)?,
            (None, None, None) => bail!("name the store with --config, --data or --database-url"),
        };
        Ok(Found {
            place,
            endpoints: config.map(|config| config.endpoints).unwrap_or_default(),
        })
    }
}

fn of(config: &Config) -> Result<Place> {
    match (config.store, &config.database) {
        (StoreKind::Sqlite, _) => Ok(Place::Directory(config.data.clone())),
        (StoreKind::Postgres, Some(database)) => Ok(Place::Database(Box::new(database.access()?))),
        (StoreKind::Postgres, None) => bail!(
            "the configuration keeps everything in PostgreSQL and does not say where; set \
             server.database_url, or give --database-url"
        ),
        (StoreKind::Memory, _) => {
            bail!("store = \"memory\" keeps nothing that outlives its server")
        }
    }
}

impl Found {
    /// How long leases are, by the endpoint.
    pub(super) fn leases(&self) -> LeaseMs {
        let known = self.endpoints.iter();
        let leases: BTreeMap<EndpointId, u64> =
            known.map(|(id, it)| (id.clone(), it.lease_ms)).collect();
        Box::new(move |id| leases.get(id).copied().unwrap_or(limits::LEASE_MS))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(dir) => write!(f, "the data directory {}", dir.display()),
            Self::Database(access) => write!(f, "the database at {}", access.place()),
        }
    }
}

/// There is no store in a data directory.
pub(super) fn none_in(dir: &Path) -> StoreError {
    StoreError::Open(format!(
        "there is no store in {}; name the server's data directory with --data, or start it once",
        dir.display()
    ))
}
