//! The PostgreSQL that servers keep their jobs in: a cluster of this run, or one that is there.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use lazyfox_testing::{Mode, Options, Postgres};
use tokio::task::spawn_blocking;
use tokio_postgres::{Client, NoTls};

use crate::meter::Postmaster;
use crate::server::Site;

/// Of a cluster of this run, instead of 128 MB; all else is as PostgreSQL brings it.
const SHARED_BUFFERS: &str = "256MB";

/// The module that counts statements.
const STATEMENTS: &str = "pg_stat_statements";

/// Which PostgreSQL is measured.
#[derive(Args)]
pub(crate) struct DatabaseArgs {
    /// PostgreSQL to measure, without TLS: postgres://USER@HOST/DATABASE. What is measured gets
    /// databases of its own there, `lazyfox_bench_…`, which are dropped afterwards; a run that is
    /// interrupted leaves one behind [default: a cluster of this run in the folder of --dir]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl DatabaseArgs {
    /// Whether somebody named one.
    pub(crate) fn is_given(&self) -> bool {
        self.database_url.is_some()
    }
}

/// A running PostgreSQL. A cluster of this tool's own ends with it.
pub(crate) struct Cluster {
    /// Looks from another database, so that what it asks is not counted among what servers ask.
    pub(crate) client: Client,
    pub(crate) url: String,
    /// Unless the database is on another machine.
    pub(crate) postmaster: Option<Postmaster>,
    databases: AtomicU32,
    own: Option<Postgres>,
}

/// An empty database of a [`Cluster`].
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) url: String,
}

impl Cluster {
    /// Starts one or connects to the one that was named, and says what it is.
    pub(crate) async fn open(site: &Site, args: &DatabaseArgs) -> Result<Self> {
        let own = match &args.database_url {
            Some(_) => None,
            None => {
                let options = Options {
                    durable: true,
                    within: Some(site.folder.clone()),
                    settings: vec![("shared_buffers".to_owned(), SHARED_BUFFERS.to_owned())],
                    ..Options::default()
                };
                let start = spawn_blocking(|| Postgres::start(options));
                Some(start.await.context("cannot start PostgreSQL")?)
            }
        };
        let named = args.database_url.clone();
        let url = named.or_else(|| own.as_ref().map(Postgres::url));
        let url = url.context("there is no PostgreSQL")?;
        let client = connect(&url).await?;
        let cluster = Self {
            postmaster: postmaster(&client).await?,
            client,
            url,
            databases: AtomicU32::new(0),
            own,
        };
        println!("{}", cluster.describe().await?);
        Ok(cluster)
    }

    /// Makes a database for one server, or for those that share it.
    pub(crate) async fn fresh(&self) -> Result<Database> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("lazyfox_bench_{}_{number}", std::process::id());
        // Nobody is ever connected to this template, which would be in the way.
        self.client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .context("cannot create a database")?;
        let url = with_database(&self.url, &name)?;
        Ok(Database { name, url })
    }

    /// Drops it, which also writes down what is not on the disk yet: the next one begins from rest.
    pub(crate) async fn drop(&self, database: Database) -> Result<()> {
        let name = database.name;
        self.client
            .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
            .context("cannot drop a database")
    }

    /// Has it count statements from now on; `false` where it cannot.
    pub(crate) async fn count_statements(&mut self) -> Result<bool> {
        if let Some(own) = self.own.take() {
            let known = "SELECT FROM pg_available_extensions WHERE name = $1";
            if self
                .client
                .query_opt(known, &[&STATEMENTS])
                .await?
                .is_none()
            {
                self.own = Some(own);
                return Ok(false);
            }
            let setting = format!("ALTER SYSTEM SET shared_preload_libraries = {STATEMENTS}");
            self.client.batch_execute(&setting).await?;
            let restart = spawn_blocking(|| {
                own.restart(Mode::Fast);
                own
            });
            self.own = Some(restart.await.context("cannot restart PostgreSQL")?);
            self.client = connect(&self.url).await?;
            self.postmaster = postmaster(&self.client).await?;
            let create = format!("CREATE EXTENSION {STATEMENTS}");
            self.client.batch_execute(&create).await?;
        }
        let look = format!("SELECT count(*) FROM {STATEMENTS}");
        Ok(self.client.query_one(&look, &[]).await.is_ok())
    }

    /// What a reader needs to know to judge the figures.
    async fn describe(&self) -> Result<String> {
        let mut settings = Vec::new();
        for name in ["fsync", "synchronous_commit", "shared_buffers"] {
            settings.push(format!("{name} {}", self.setting(name).await?));
        }
        let version = self.setting("server_version").await?;
        let which = match self.own {
            Some(_) => "a cluster of this run",
            None => "a cluster that was there",
        };
        let settings = settings.join(", ");
        Ok(format!("PostgreSQL {version}, {which}: {settings}."))
    }

    async fn setting(&self, name: &str) -> Result<String> {
        let ask = "SELECT current_setting($1)";
        Ok(self.client.query_one(ask, &[&name]).await?.get(0))
    }
}

/// Connects; the connection lasts as long as the client.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("cannot connect to the database")?;
    // How it ends is told to the client.
    tokio::spawn(connection);
    Ok(client)
}

async fn postmaster(client: &Client) -> Result<Option<Postmaster>> {
    let backend: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await?
        .get(0);
    Ok(u32::try_from(backend).ok().and_then(Postmaster::of))
}

/// The URL of another database of the same server.
fn with_database(url: &str, name: &str) -> Result<String> {
    let (address, options) = match url.split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (url, String::new()),
    };
    let scheme = address.find("://").map(|at| at + "://".len());
    let scheme = scheme.context("--database-url is no URL")?;
    let end = address[scheme..]
        .find('/')
        .map_or(address.len(), |at| scheme + at);
    ensure!(end > scheme, "--database-url names no host");
    Ok(format!("{}/{name}{options}", &address[..end]))
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn a_url_leads_to_another_database() {
        let moved = |url| with_database(url, "b").unwrap();
        assert_eq!(moved("postgres://u@h:1/a"), "postgres://u@h:1/b");
        assert_eq!(moved("postgres://u@h:1"), "postgres://u@h:1/b");
        assert_eq!(moved("postgres://u@h/a?x=/y"), "postgres://u@h/b?x=/y");
        assert!(with_database("host=h", "b").is_err());
        assert!(with_database("postgres:///a", "b").is_err());
    }
}
