//! The server under test as a child process, and what /proc says about it.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use crate::meter::cpu_s;
use crate::report::megabytes;

/// How long a server may take to say that it listens, with any backlog.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// What every server of this tool is told. Webhooks may go to this machine, where the receivers
/// are; workers and their jobs end with the server, which is stopped when all is measured.
const SETTINGS: &str = r#"
[server]
auth = "none"
webhook_allow = ["127.0.0.0/8"]
shutdown_s = 1
abandoned_s = 1
"#;

/// What servers over one database are told besides: one key, to read each other's secrets.
const SHARED_SETTINGS: &str = "key_file = \"../server.key\"\n";

/// Where a server looks for the URL of its database.
const DATABASE_URL: &str = "LAZYFOX_DATABASE_URL";

/// How long a server may take to end its workers and itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How much of a log is shown when the server will not start.
const LOG_TAIL_LINES: usize = 20;

/// Tries to remove the folder of this run.
const REMOVE_TRIES: usize = 10;

/// Where servers are started: a program and a folder of this run, which goes away with it.
pub(crate) struct Site {
    lazyfox: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Site {
    pub(crate) fn new(lazyfox: Option<PathBuf>, folder: Option<PathBuf>) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let beside = own.parent().context("this program lies in no folder")?;
        let lazyfox = lazyfox.unwrap_or_else(|| beside.join("lazyfox"));
        ensure!(
            lazyfox.is_file(),
            "no server at {}: build it, or name one with --lazyfox",
            lazyfox.display()
        );
        let folder = folder.unwrap_or_else(|| beside.to_owned());
        let folder = folder.join(format!("bench-{}.tmp", std::process::id()));
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let folder = fs::canonicalize(folder)?;
        Ok(Self { lazyfox, folder })
    }

    /// Starts a server on an empty data directory. Its endpoints have no command: the workers are
    /// external, which is this tool.
    pub(crate) async fn start_fresh(&self, store: &str, endpoints: &[String]) -> Result<Server> {
        self.start_with(store, &tables(endpoints)).await
    }

    /// The same with these tables of endpoints.
    pub(crate) async fn start_with(&self, store: &str, endpoints: &str) -> Result<Server> {
        self.home().furnish("", endpoints)?;
        self.start(store).await
    }

    /// Starts a server on the data that is there.
    pub(crate) async fn start(&self, store: &str) -> Result<Server> {
        self.serve(&self.home(), Kept::Store(store)).await
    }

    /// Starts so many servers over one database, each with a directory of its own.
    pub(crate) async fn start_over(
        &self,
        database_url: &str,
        servers: usize,
        endpoints: &str,
    ) -> Result<Vec<Server>> {
        let mut started = Vec::new();
        for number in 1..=servers {
            let home = Home(self.folder.join(format!("server-{number}")));
            fs::create_dir_all(&home.0).context("cannot create the folder of a server")?;
            home.furnish(SHARED_SETTINGS, endpoints)?;
            started.push(self.serve(&home, Kept::Database(database_url)).await?);
        }
        Ok(started)
    }

    async fn serve(&self, home: &Home, kept: Kept<'_>) -> Result<Server> {
        let log_path = home.log();
        let log = fs::File::create(&log_path).context("cannot create the server's log")?;
        let started = Instant::now();
        let mut command = Command::new(&self.lazyfox);
        command
            .arg("serve")
            .arg("--config")
            .arg(home.config())
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(home.data());
        match kept {
            Kept::Store(store) => command.args(["--store", store]).env_remove(DATABASE_URL),
            // Not as an argument, which everybody on this machine could read.
            Kept::Database(url) => command.env(DATABASE_URL, url),
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.lazyfox.display()))?;
        let stdout = child.stdout.take().context("the server has no stdout")?;
        let address = match timeout(READY_TIMEOUT, ready(stdout)).await {
            Ok(Ok(address)) => address,
            Ok(Err(error)) => return Err(error.context(log_tail(&log_path))),
            Err(_) => bail!("the server is not ready after {READY_TIMEOUT:?}"),
        };
        let pid = child.id().context("the server has ended already")?;
        Ok(Server {
            child,
            address,
            pid,
            started,
        })
    }

    /// Of the one server that most measurements have.
    fn home(&self) -> Home {
        Home(self.folder.clone())
    }

    /// The log of the one server, with the output of its workers.
    pub(crate) fn log(&self) -> PathBuf {
        self.home().log()
    }

    /// A place beside the server's program, for what is worth keeping from run to run.
    pub(crate) fn beside(&self, name: &str) -> Result<PathBuf> {
        let folder = self
            .lazyfox
            .parent()
            .context("the server lies in no folder")?;
        Ok(folder.join(name))
    }

    /// Bytes of all files of the store.
    pub(crate) fn data_bytes(&self) -> Result<u64> {
        folder_bytes(&self.home().data())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A server that was killed a moment ago may still create a file in between.
        for _ in 0..REMOVE_TRIES {
            if fs::remove_dir_all(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("left behind: {}", self.folder.display());
    }
}

/// What an endpoint of simulated workers is told: they take one job at a time, while the SDK whose
/// name they use would take many at once.
const ONE_AT_A_TIME: &str = "prefetch = \"off\"\n";

/// Tables of endpoints without a command.
pub(crate) fn tables(endpoints: &[String]) -> String {
    let tables = endpoints
        .iter()
        .map(|name| format!("[endpoints.{name}]\n{ONE_AT_A_TIME}"));
    tables.collect()
}

/// Where a server keeps its jobs.
#[derive(Clone, Copy)]
enum Kept<'a> {
    /// In memory or in its directory, by the kind of store.
    Store(&'a str),
    /// In the database with this URL.
    Database(&'a str),
}

/// The folder of one server: its configuration, its data, its log.
struct Home(PathBuf);

impl Home {
    /// Writes the configuration and clears the data.
    fn furnish(&self, settings: &str, endpoints: &str) -> Result<()> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data).context("cannot clear the data directory")?;
        }
        fs::create_dir(&data).context("cannot create the data directory")?;
        fs::write(self.config(), format!("{SETTINGS}{settings}{endpoints}"))
            .context("cannot write the configuration")
    }

    fn config(&self) -> PathBuf {
        self.0.join("lazyfox.toml")
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }
}

/// A running server; dropping it ends it and its workers.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pid: u32,
    /// When the process was started.
    pub(crate) started: Instant,
}

/// Resident memory in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The part that is not backed by a file: what the server itself has allocated.
    pub(crate) anonymous: u64,
    /// The most that was ever resident.
    pub(crate) highest: u64,
}

impl fmt::Display for Memory {
    /// In megabytes, with the anonymous part in parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({})",
            megabytes(self.resident),
            megabytes(self.anonymous)
        )
    }
}

impl Server {
    /// SIGKILL: no chance to tidy up.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill the server")
    }

    /// SIGKILL for all of them.
    pub(crate) async fn kill_all(servers: Vec<Self>) -> Result<()> {
        for server in servers {
            server.kill().await?;
        }
        Ok(())
    }

    /// SIGTERM: its workers end with it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.terminate();
        timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .context("the server does not stop")?
            .context("cannot wait for the server")?;
        Ok(())
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It fails where the server has ended, and then there is nothing to do.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// CPU time of all its threads so far, in seconds.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        cpu_s(&self.pid.to_string())
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .context("the server has ended")?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| {
                    line.strip_prefix(name)?
                        .trim()
                        .strip_suffix(" kB")?
                        .parse()
                        .ok()
                })
                .map(|kilobytes: u64| kilobytes * 1024)
                .with_context(|| format!("no {name} in /proc"))
        };
        Ok(Memory {
            resident: field("VmRSS:")?,
            anonymous: field("RssAnon:")?,
            highest: field("VmHWM:")?,
        })
    }
}

impl Drop for Server {
    /// After an error: a server that is killed would leave its workers behind, in a folder that
    /// goes away.
    fn drop(&mut self) {
        let runs = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if !runs(&mut self.child) {
            return;
        }
        self.terminate();
        let started = Instant::now();
        while runs(&mut self.child) && started.elapsed() < STOP_TIMEOUT {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

async fn ready(stdout: ChildStdout) -> Result<SocketAddr> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        let Some((_, address)) = line.split_once("ready on http://") else {
            continue;
        };
        let address: SocketAddr = address
            .trim()
            .parse()
            .with_context(|| format!("no address in: {line}"))?;
        ensure!(
            address.ip().is_loopback(),
            "the server listens on {address}, beyond this machine"
        );
        // Somebody has to read on, or the server would stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        return Ok(address);
    }
    bail!("the server ended without saying that it is ready")
}

fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    format!(
        "the server did not start; its log ends with:\n{}",
        tail.join("\n")
    )
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).context("cannot read the data directory")? {
        let entry = entry?;
        // A file may vanish between listing and looking: stores fold their journals away.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        sum += if metadata.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(sum)
}
