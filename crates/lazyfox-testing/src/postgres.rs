//! A PostgreSQL of a test's own, which nobody misses when it is gone.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::authority::Authority;
use crate::port::Port;
use keeper::Keeper;
use programs::Account;

mod keeper;
mod programs;
mod settings;

/// What is special about a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a commit is on the disk when it is answered. Without, which is the default and much
    /// faster, commits outlive the server in any case, but not the machine.
    pub durable: bool,
    /// How many connections there may be at a time. Default 200: many tests share a cluster.
    pub max_connections: u16,
    /// Where the directory of the cluster is made, and so on which disk. Default: among temporary files.
    pub within: Option<PathBuf>,
    /// Further settings for `postgresql.conf`. They come last and therefore count.
    pub settings: Vec<(String, String)>,
    /// Whether all of loopback has to use TLS, see [`Postgres::ca_pem`].
    pub tls: bool,
    /// What the user has to prove to know (SCRAM), where not everybody is let in.
    pub password: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durable: false,
            max_connections: 200,
            within: None,
            settings: Vec::new(),
            tls: false,
            password: None,
        }
    }
}

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It ends all sessions and writes everything down.
    Fast,
    /// It drops everything, as in a crash. The next start replays its log.
    Immediate,
}

/// A running PostgreSQL in a temporary directory, on a port of 127.0.0.1 that it keeps. The user is
/// `postgres` and may do anything.
///
/// It is gone when this is dropped, and also when the test process ends in any other way. All calls
/// block.
pub struct Postgres {
    options: Options,
    programs: PathBuf,
    authority: Option<Authority>,
    databases: AtomicU32,
    port: Port,
    keeper: Mutex<Keeper>,
    /// Last: what the keeper could not remove.
    home: TempDir,
}

/// The cluster with default options that all tests of this process share, each with a database of
/// its own.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(Options::default()))
}

impl Postgres {
    /// Makes a cluster and starts its server, which takes a second or two.
    #[must_use]
    pub fn start(options: Options) -> Self {
        must("start PostgreSQL", Self::try_start(options))
    }

    fn try_start(options: Options) -> Result<Self> {
        let programs = programs::find()?;
        let account = programs::account()?;
        let within = options.within.clone();
        let home = tempfile::Builder::new()
            .prefix("lazyfox-postgres-")
            .tempdir_in(within.unwrap_or_else(std::env::temp_dir))
            .context("cannot make a directory")?;
        give(home.path(), account)?;
        let port = Port::reserve().context("no port is free")?;
        let mut keeper = Keeper::start(&programs, account, home.path())?;

        keeper.order("make")?;
        let authority = options.tls.then(Authority::new);
        if let Some(authority) = &authority {
            let identity = authority.sign()?;
            let files = [
                ("server.crt", identity.certificate),
                ("server.key", identity.key),
            ];
            for (name, text) in files {
                write_secret(&home.path().join(name), &text, account)?;
            }
        }
        let data = home.path().join("data");
        let settings = settings::settings(&options, port.address().port(), home.path());
        OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .context("cannot write postgresql.conf")?;
        fs::write(data.join("pg_hba.conf"), settings::access(&options))
            .context("cannot write pg_hba.conf")?;
        keeper.order("start")?;

        let postgres = Self {
            options,
            programs,
            authority,
            databases: AtomicU32::new(0),
            port,
            keeper: Mutex::new(keeper),
            home,
        };
        if let Some(password) = &postgres.options.password {
            let password = settings::quoted(password);
            postgres.try_psql(
                "postgres",
                &format!("ALTER ROLE postgres PASSWORD {password}"),
            )?;
        }
        Ok(postgres)
    }

    /// The URL of the database `postgres`, which is there from the start. For a database of one's
    /// own there is [`Postgres::database`].
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes an empty database with a new name, and gives its URL.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!(
            "test_{}",
            self.databases.fetch_add(1, Ordering::Relaxed) + 1
        );
        // Nobody is ever connected to this template, which would be in the way.
        self.psql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        );
        self.url_of(&name)
    }

    fn url_of(&self, database: &str) -> String {
        let password = self.options.password.as_deref();
        let password =
            password.map_or_else(String::new, |it| format!(":{}", settings::escaped(it)));
        let tls = if self.options.tls {
            "?sslmode=require"
        } else {
            ""
        };
        format!(
            "postgres://postgres{password}@{}/{database}{tls}",
            self.address()
        )
    }

    /// Where the server listens, unless it is stopped.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port of the server, which stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// The directory of the cluster: its data, its log, its socket.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// The certificate of the authority that a client has to trust; only with TLS.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        let authority = self.authority.as_ref();
        authority.expect("the cluster was started with TLS").pem()
    }

    /// The process id of the server, unless it is stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        must("find the server", self.try_pid())
    }

    fn try_pid(&self) -> Result<u32> {
        let file = self.home.path().join("data/postmaster.pid");
        let text = fs::read_to_string(file).context("it is stopped")?;
        let pid = text.lines().next().and_then(|line| line.parse().ok());
        pid.context("postmaster.pid has no process id")
    }

    /// Stops the server; the data stay.
    pub fn stop(&self, mode: Mode) {
        let order = match mode {
            Mode::Fast => "stop fast",
            Mode::Immediate => "stop immediate",
        };
        must("stop the server", self.keeper().order(order));
    }

    /// Starts a server that was stopped, on the same port and data.
    pub fn start_again(&self) {
        must("start the server again", self.keeper().order("start"));
    }

    /// Stops the server and starts it again.
    pub fn restart(&self, mode: Mode) {
        self.stop(mode);
        self.start_again();
    }

    /// Lets every commit wait for a standby of this name, from some moment soon on; with none, for nobody.
    pub fn commits_wait_for(&self, standby: &str) {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'");
        self.psql("postgres", &set);
        self.psql("postgres", "SELECT pg_reload_conf()");
    }

    /// What `psql` answers to a statement: rows as lines, fields with `|` between them. The
    /// database is a name, or the URL that [`Postgres::database`] gave.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        must("ask psql", self.try_psql(database, sql))
    }

    fn try_psql(&self, database: &str, sql: &str) -> Result<String> {
        let database = database.rsplit('/').next().unwrap_or_default();
        let database = database.split('?').next().unwrap_or_default();
        let mut psql = Command::new(self.programs.join("psql"));
        programs::without_settings(&mut psql);
        let output = psql
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            // By the socket, which asks for nothing.
            .arg("--host")
            .arg(self.home.path())
            .args(["--port", &self.port().to_string()])
            .args(["--username", "postgres", "--dbname", database])
            .args(["--set", "ON_ERROR_STOP=1", "--command", sql])
            .output()
            .context("cannot start psql")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{sql}\n{said}");
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        // An order that failed leaves nothing behind that the next one would not find out.
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[track_caller]
fn must<T>(what: &str, outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("cannot {what}: {error:#}"))
}

/// Makes a path the property of the account that the server runs as.
fn give(path: &Path, account: Option<Account>) -> Result<()> {
    let Some(Account { user, group }) = account else {
        return Ok(());
    };
    chown(path, Some(user), Some(group))
        .with_context(|| format!("cannot give {} away", path.display()))
}

/// The server refuses a key that others can read.
fn write_secret(path: &Path, text: &str, account: Option<Account>) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    give(path, account)
}
