//! The configuration: parsed once at start, wrong values and unknown keys refused by name.
//!
//! `config.default.toml` is the documentation and the defaults in one: a file of the user is laid over it.

mod database;
mod endpoint;
mod run;
mod webhook;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lazyfox_core::id::EndpointId;
use lazyfox_core::limits;
use lazyfox_core::policy::Defaults;
use lazyfox_core::reach::AllowList;
use lazyfox_core::scale::Settings;
use serde::Deserialize;

pub use self::database::Database;
use self::endpoint::EndpointTable;
pub use self::run::{Gpus, Prefetch};
use self::run::{Registries, RegistryTable};
pub use self::webhook::Webhooks;
use crate::providers::Run;
use crate::providers::docker::Address;
use crate::secrets::KEY_FILE;
use crate::webhooks::target::Rules;

/// Every setting with its default and its meaning.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// What a server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that this was read from.
    pub source: Option<PathBuf>,
    /// Address and port to listen on.
    pub listen: String,
    /// Directory of the database and of the workers' files.
    pub data: PathBuf,
    /// Where jobs are kept.
    pub store: StoreKind,
    /// Where the database is, for [`StoreKind::Postgres`].
    pub database: Option<Database>,
    /// What holds for it where its URL comes from elsewhere.
    pub database_otherwise: Database,
    /// The file with the server's key; `None` is in the data directory.
    pub key_file: Option<PathBuf>,
    /// Who may ask.
    pub auth: Auth,
    /// Where workers reach this server; `None` is the address that it listens on.
    pub worker_url: Option<String>,
    /// Where the container engine listens; `None` is where it says so itself.
    pub docker_host: Option<String>,
    /// The GPUs that workers may have.
    pub gpus: Gpus,
    /// What is kept of each endpoint's logs, in bytes.
    pub logs_bytes: u64,
    /// Where clients reach this server, for links; `None` is the address that it listens on.
    pub public_url: Option<String>,
    /// Bounds of what is sent.
    pub bounds: Bounds,
    /// Where webhooks may go.
    pub webhook_rules: Rules,
    /// Webhooks under way at once.
    pub webhooks_at_once: usize,
    /// Webhooks under way at once to one host.
    pub webhooks_per_host: usize,
    /// How long running jobs may take to finish when the server is stopped.
    pub shutdown_ms: u64,
    /// How long the workers of a server that died wait for another one; 0 is for ever.
    pub abandoned_ms: u64,
    /// Whether workers that an earlier run of this server started go on. In `dev` they do not: the
    /// handler may have changed since.
    pub keep_workers: bool,
    /// The endpoints, by name.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
}

/// Where jobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the data directory.
    Sqlite,
    /// In a PostgreSQL database that several servers may share.
    Postgres,
    /// Nowhere: gone at the end of the process.
    Memory,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Who has a key.
    Keys,
    /// Everybody; only on loopback.
    None,
}

/// Bounds of what is sent, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Body of `/run`.
    pub run_body: usize,
    /// Body of `/runsync`.
    pub runsync_body: usize,
    /// Output of a job.
    pub result: usize,
    /// A streamed chunk.
    pub chunk: usize,
}

/// An endpoint's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What its workers run; `None` when somebody else starts them.
    pub run: Option<Run>,
    /// GPUs that each of its workers has for itself.
    pub gpus: u32,
    /// How many short jobs a worker is given at once.
    pub prefetch: Prefetch,
    /// Added to its workers' environment.
    pub env: BTreeMap<String, String>,
    /// How many workers.
    pub scale: Settings,
    /// What its jobs are promised.
    pub defaults: Defaults,
    /// Length of a lease.
    pub lease_ms: u64,
    /// Longest time from a worker's start to its first poll.
    pub init_timeout_ms: u64,
    /// Failed starts in a row after which waiting jobs fail; 0 is never.
    pub fail_after_starts: u32,
    /// How its webhooks are delivered.
    pub webhooks: Webhooks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    server: ServerTable,
    registries: BTreeMap<String, RegistryTable>,
    defaults: EndpointTable,
    endpoints: BTreeMap<String, EndpointTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ServerTable {
    listen: Option<String>,
    data: Option<PathBuf>,
    store: Option<StoreKind>,
    database_url: Option<String>,
    database_password_file: Option<PathBuf>,
    database_ca_file: Option<PathBuf>,
    database_connections: Option<usize>,
    key_file: Option<PathBuf>,
    auth: Option<Auth>,
    worker_url: Option<String>,
    docker_host: Option<String>,
    gpus: Option<Gpus>,
    logs_mib: Option<u64>,
    public_url: Option<String>,
    webhook_allow: Option<Vec<String>>,
    webhook_odd_ports: Option<Vec<u16>>,
    webhooks_at_once: Option<usize>,
    webhooks_per_host: Option<usize>,
    run_body_bytes: Option<usize>,
    runsync_body_bytes: Option<usize>,
    result_bytes: Option<usize>,
    chunk_bytes: Option<usize>,
    shutdown_s: Option<u64>,
    abandoned_s: Option<u64>,
}

impl Config {
    /// Reads a file; relative paths in it are relative to it.
    ///
    /// # Errors
    /// Says which file, line and key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let mut config = Self::parse(&text, directory_of(path))
            .with_context(|| format!("in the configuration {}", path.display()))?;
        config.source = Some(path.to_path_buf());
        Ok(config)
    }

    /// Reads a text; relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// Says which line and key.
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        let shipped: File = toml::from_str(DEFAULTS).context("in the shipped defaults")?;
        let File {
            server,
            registries,
            defaults,
            endpoints,
        } = toml::from_str(text)?;
        let registries = Registries::read(registries, base)?;
        let server = server.over(shipped.server);
        let defaults = defaults.over(&shipped.defaults);
        let mut parsed = BTreeMap::new();
        for (name, table) in endpoints {
            let id: EndpointId = name
                .parse()
                .map_err(|e| anyhow::anyhow!("endpoints.{name}: the name {e}"))?;
            let endpoint = table.over(&defaults).finish(base, &registries);
            parsed.insert(id, endpoint.with_context(|| format!("endpoints.{name}"))?);
        }
        server.finish(base, parsed)
    }

    /// The settings with no endpoint: the start of a configuration made by a program.
    #[must_use]
    pub fn empty() -> Self {
        Self::parse("", Path::new(".")).expect("a test parses the shipped defaults")
    }

    /// Keeps everything in the database of this URL.
    pub fn use_database(&mut self, url: &str) {
        self.store = StoreKind::Postgres;
        self.database = Some(self.database_otherwise.clone().moved(url));
    }

    /// Where the server's key is.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        let own = || self.data.join(KEY_FILE);
        self.key_file.clone().unwrap_or_else(own)
    }

    /// Where the workers' files are; absolute, because workers stand elsewhere.
    ///
    /// # Errors
    /// When this process does not know where it stands.
    pub fn workers_dir(&self) -> Result<PathBuf> {
        let dir = self.data.join("workers");
        std::path::absolute(&dir)
            .with_context(|| format!("cannot tell where the directory {} is", dir.display()))
    }

    /// Refuses what would be dangerous on the address that is really used.
    ///
    /// # Errors
    /// When everybody could do everything from other machines.
    pub fn check_address(&self, address: SocketAddr) -> Result<()> {
        ensure!(
            self.auth == Auth::Keys || address.ip().is_loopback(),
            "server.auth is \"none\" and {address} is not a loopback address: everybody who \
             reaches it could run jobs; listen on 127.0.0.1 or set auth = \"keys\""
        );
        Ok(())
    }
}

impl Endpoint {
    /// The shipped defaults.
    #[must_use]
    pub fn shipped() -> Self {
        let shipped: File = toml::from_str(DEFAULTS).expect("a test parses the shipped defaults");
        shipped
            .defaults
            .finish(Path::new("."), &Registries::default())
            .expect("a test parses the shipped defaults")
    }
}

impl ServerTable {
    fn over(self, below: Self) -> Self {
        let url = self.database_url.as_deref().unwrap_or_default();
        let means = (!url.is_empty()).then_some(StoreKind::Postgres);
        Self {
            listen: self.listen.or(below.listen),
            data: self.data.or(below.data),
            // A URL says which store is meant, unless the same table says otherwise.
            store: self.store.or(means).or(below.store),
            database_url: self.database_url.or(below.database_url),
            database_password_file: self.database_password_file.or(below.database_password_file),
            database_ca_file: self.database_ca_file.or(below.database_ca_file),
            database_connections: self.database_connections.or(below.database_connections),
            key_file: self.key_file.or(below.key_file),
            auth: self.auth.or(below.auth),
            worker_url: self.worker_url.or(below.worker_url),
            docker_host: self.docker_host.or(below.docker_host),
            gpus: self.gpus.or(below.gpus),
            logs_mib: self.logs_mib.or(below.logs_mib),
            public_url: self.public_url.or(below.public_url),
            webhook_allow: self.webhook_allow.or(below.webhook_allow),
            webhook_odd_ports: self.webhook_odd_ports.or(below.webhook_odd_ports),
            webhooks_at_once: self.webhooks_at_once.or(below.webhooks_at_once),
            webhooks_per_host: self.webhooks_per_host.or(below.webhooks_per_host),
            run_body_bytes: self.run_body_bytes.or(below.run_body_bytes),
            runsync_body_bytes: self.runsync_body_bytes.or(below.runsync_body_bytes),
            result_bytes: self.result_bytes.or(below.result_bytes),
            chunk_bytes: self.chunk_bytes.or(below.chunk_bytes),
            shutdown_s: self.shutdown_s.or(below.shutdown_s),
            abandoned_s: self.abandoned_s.or(below.abandoned_s),
        }
    }

    fn finish(self, base: &Path, endpoints: BTreeMap<EndpointId, Endpoint>) -> Result<Config> {
        let bytes = |name: &str, value: Option<usize>| -> Result<usize> {
            let value = need(name, value)?;
            let (min, max) = (1024, limits::CONFIGURED_BYTES_MAX);
            ensure!(
                (min..=max).contains(&value),
                "server.{name} is {value} bytes, allowed are {min} to {max}"
            );
            Ok(value)
        };
        let at_once = within(
            "server.webhooks_at_once",
            self.webhooks_at_once,
            4,
            limits::WEBHOOKS_AT_ONCE_MAX,
        )?;
        let most = limits::WEBHOOKS_AT_ONCE_MAX;
        let per_host = within("server.webhooks_per_host", self.webhooks_per_host, 1, most)?;
        let longest_s = limits::SHUTDOWN_MS_MAX / 1000;
        let shutdown_s = within("server.shutdown_s", self.shutdown_s, 0, longest_s)?;
        let longest_s = limits::ABANDONED_MS_MAX / 1000;
        let abandoned_s = within("server.abandoned_s", self.abandoned_s, 0, longest_s)?;
        let database = Database::configured(
            base,
            self.database_url,
            self.database_password_file,
            self.database_ca_file,
            within(
                "server.database_connections",
                self.database_connections,
                4,
                200,
            )?,
        );
        Ok(Config {
            source: None,
            listen: need("listen", self.listen)?,
            data: base.join(need("data", self.data)?),
            store: need("store", self.store)?,
            database: Some(database.clone()).filter(Database::is_named),
            database_otherwise: database,
            key_file: self
                .key_file
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| base.join(path)),
            auth: need("auth", self.auth)?,
            docker_host: docker_host(self.docker_host)?,
            gpus: need("gpus", self.gpus)?.checked()?,
            logs_bytes: within("server.logs_mib", self.logs_mib, 1, limits::LOGS_MIB_MAX)?
                * 1024
                * 1024,
            worker_url: base_url("server.worker_url", self.worker_url)?,
            public_url: base_url("server.public_url", self.public_url)?,
            bounds: Bounds {
                run_body: bytes("run_body_bytes", self.run_body_bytes)?,
                runsync_body: bytes("runsync_body_bytes", self.runsync_body_bytes)?,
                result: bytes("result_bytes", self.result_bytes)?,
                chunk: bytes("chunk_bytes", self.chunk_bytes)?,
            },
            webhook_rules: rules(self.webhook_allow, self.webhook_odd_ports)?,
            webhooks_at_once: at_once,
            webhooks_per_host: per_host.min(at_once),
            shutdown_ms: shutdown_s * 1000,
            abandoned_ms: abandoned_s * 1000,
            keep_workers: true,
            endpoints,
        })
    }
}

/// The directory of a file. That of a bare name is no empty path, in which no worker could start.
fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// Where a container engine listens; `None` when it is left empty.
fn docker_host(text: Option<String>) -> Result<Option<String>> {
    let text = text.filter(|text| !text.is_empty());
    if let Some(text) = &text {
        let address = text.parse::<Address>();
        address.map_err(|e| anyhow::anyhow!("server.docker_host is {e}"))?;
    }
    Ok(text)
}

/// A URL below which others stand, without a slash at its end; `None` when it is left empty.
fn base_url(name: &str, text: Option<String>) -> Result<Option<String>> {
    match text {
        Some(text) if !text.is_empty() => http_url(name, &text).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// A URL of the server as others see it, without a slash at its end.
///
/// # Errors
/// When nothing could be reached below it.
pub fn http_url(name: &str, text: &str) -> Result<String> {
    let is_http = text.parse::<url::Url>().is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
    });
    ensure!(
        is_http,
        "{name} is {text:?}, it should be an http or https URL such as https://jobs.example.org"
    );
    Ok(text.trim_end_matches('/').to_owned())
}

fn rules(allow: Option<Vec<String>>, odd_ports: Option<Vec<u16>>) -> Result<Rules> {
    let allow = need("webhook_allow", allow)?;
    let allow = AllowList::parse(allow.iter().map(String::as_str));
    Ok(Rules {
        allow: allow.context("server.webhook_allow")?,
        odd_ports: need("webhook_odd_ports", odd_ports)?,
    })
}

fn need<T>(name: &str, value: Option<T>) -> Result<T> {
    value.with_context(|| format!("the shipped defaults lack {name}"))
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(
    name: &str,
    value: Option<T>,
    min: T,
    max: T,
) -> Result<T> {
    let value = need(name, value)?;
    ensure!(
        value >= min && value <= max,
        "{name} is {value}, allowed are {min} to {max}"
    );
    Ok(value)
}

#[cfg(test)]
mod tests;
