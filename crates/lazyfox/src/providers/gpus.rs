//! The GPUs of this machine: which there are, and which of them are free.
//!
//! Nobody is asked for them before somebody wants one: from then on they are managed, and a worker
//! that was given none sees none.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

/// How long `nvidia-smi` may take. Without its persistence daemon the driver wakes each GPU up first,
/// which takes seconds; with one that is broken it never returns.
const ASK_MAX: Duration = Duration::from_secs(20);

/// What the driver says without its tool: a directory for each GPU, named by its place on the bus.
const DRIVER: &str = "/proc/driver/nvidia/gpus";

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// What workers are told: its index in the order of the bus, as `nvidia-smi` counts, or what the
    /// configuration calls it. Not the UUID, which many programs cannot read in their environment.
    pub name: String,
    /// Its place in that order, where the driver told it.
    pub index: Option<u32>,
    /// Its UUID, where the driver told it.
    pub uuid: Option<String>,
    /// What it is, such as `NVIDIA L4`.
    pub model: Option<String>,
    /// Its memory, in MiB.
    pub memory_mib: Option<u64>,
}

impl Gpu {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            index: None,
            uuid: None,
            model: None,
            memory_mib: None,
        }
    }

    /// Whether a name means this one: its own, its index, its UUID or the beginning of that. A worker
    /// of an earlier run may bear another name of it than the configuration has now.
    fn is(&self, name: &str) -> bool {
        let begins = |uuid: &String| name.starts_with("GPU-") && uuid.starts_with(name);
        self.name == name
            || self.index.is_some_and(|index| index.to_string() == name)
            || self.uuid.as_ref().is_some_and(begins)
    }
}

/// The GPUs that workers may have.
#[derive(Debug)]
pub struct Inventory {
    /// What the configuration names; `None` is all that there are.
    named: Option<Vec<String>>,
    found: OnceCell<Vec<Gpu>>,
}

/// Where to look.
struct Machine {
    /// `PATH`.
    path: OsString,
    /// `CUDA_VISIBLE_DEVICES` of the server: who set it meant the server and what it starts.
    visible: Option<String>,
    driver: PathBuf,
}

impl Machine {
    fn this() -> Self {
        Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
            driver: DRIVER.into(),
        }
    }
}

impl Inventory {
    /// The GPUs with these names, or all. Nothing is looked at yet.
    #[must_use]
    pub fn new(named: Option<Vec<String>>) -> Self {
        Self {
            named,
            found: OnceCell::new(),
        }
    }

    /// The GPUs with these names, without asking the machine.
    #[must_use]
    pub fn known(names: &[&str]) -> Self {
        let gpus = names.iter().map(|name| Gpu::named(name)).collect();
        Self {
            named: None,
            found: OnceCell::new_with(Some(gpus)),
        }
    }

    /// Looks which there are; the first call takes its time, up to 20 s. From then on they are managed.
    pub async fn look(&self) {
        self.look_at(&Machine::this()).await;
    }

    async fn look_at(&self, machine: &Machine) {
        let look = || async {
            let there = ask(machine).await;
            let gpus = match &self.named {
                Some(names) => called(names, &there),
                None => visible(there, machine.visible.as_deref()),
            };
            let names: Vec<&str> = gpus.iter().map(|gpu| &*gpu.name).collect();
            tracing::info!(gpus = names.join(","), "these GPUs are for workers");
            gpus
        };
        self.found.get_or_init(look).await;
    }

    /// Whether somebody looked: workers see the GPUs that they were given, and no others.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.found.initialized()
    }

    /// All of them, the first to be given first. None before somebody looked.
    #[must_use]
    pub fn all(&self) -> &[Gpu] {
        self.found.get().map_or(&[], Vec::as_slice)
    }

    /// The names of those that nobody uses, the first to be given first.
    #[must_use]
    pub fn free<'a>(&self, used: impl Iterator<Item = &'a str>) -> Vec<String> {
        let used: Vec<&str> = used.collect();
        let free = self.all().iter();
        free.filter(|gpu| !used.iter().any(|name| gpu.is(name)))
            .map(|gpu| gpu.name.clone())
            .collect()
    }

    /// Free ones for a worker that needs so many, or `None` when there are too few.
    #[must_use]
    pub fn assign<'a>(
        &self,
        count: u32,
        used: impl Iterator<Item = &'a str>,
    ) -> Option<Vec<String>> {
        let count = usize::try_from(count).ok()?;
        let mut free = self.free(used);
        (free.len() >= count).then(|| {
            free.truncate(count);
            free
        })
    }
}

/// Those that the configuration names, with what the driver says of them. Not every one is known to it:
/// parts of a GPU (MIG) and those of other makers are not.
fn called(names: &[String], there: &[Gpu]) -> Vec<Gpu> {
    let called = |name: &String| {
        let gpu = there.iter().find(|gpu| gpu.is(name)).cloned();
        if gpu.is_none() && !there.is_empty() && !name.starts_with("MIG-") {
            tracing::warn!("server.gpus names {name:?}, which nvidia-smi does not list");
        }
        let mut gpu = gpu.unwrap_or_else(|| Gpu::named(name));
        gpu.name.clone_from(name);
        gpu
    };
    names.iter().map(called).collect()
}

/// Those that the server itself may use. As CUDA reads the variable, it ends where a name means nothing.
fn visible(there: Vec<Gpu>, names: Option<&str>) -> Vec<Gpu> {
    let Some(names) = names else { return there };
    let find = |name: &str| there.iter().find(|gpu| gpu.is(name.trim())).cloned();
    names.split(',').map_while(find).collect()
}

/// What the driver's tool says, or else the driver itself.
async fn ask(machine: &Machine) -> Vec<Gpu> {
    let tool = std::env::split_paths(&machine.path)
        .map(|dir| dir.join("nvidia-smi"))
        .find(|path| path.is_file());
    if let Some(tool) = tool {
        match ask_tool(&tool, &machine.path).await {
            Ok(gpus) => return gpus,
            Err(error) => tracing::warn!("cannot ask {} for GPUs: {error}", tool.display()),
        }
    }
    ask_driver(&machine.driver)
}

async fn ask_tool(tool: &Path, path: &OsStr) -> Result<Vec<Gpu>, String> {
    let output = Command::new(tool)
        .args([
            "--query-gpu=index,uuid,name,memory.total",
            "--format=csv,noheader",
        ])
        .env("PATH", path)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(ASK_MAX, output).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {} s", ASK_MAX.as_secs())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        // It writes its reasons to either.
        let why = [text.trim(), why.trim()].join(" ");
        return Err(format!("{}: {}", output.status, why.trim()));
    }
    let mut gpus: Vec<Gpu> = text.lines().filter_map(listed).collect();
    gpus.sort_by_key(|gpu| gpu.index);
    Ok(gpus)
}

/// `0, GPU-2f…, NVIDIA L4, 23034 MiB`; of a GPU that is lost some of it is an error in words.
fn listed(line: &str) -> Option<Gpu> {
    let mut fields = line.split(',').map(str::trim);
    let index = fields.next()?.parse().ok()?;
    let uuid = fields.next()?;
    let model = fields.next();
    let memory = fields.next().and_then(|it| it.strip_suffix(" MiB"));
    uuid.starts_with("GPU-").then(|| Gpu {
        name: u32::to_string(&index),
        index: Some(index),
        uuid: Some(uuid.to_owned()),
        model: model.map(str::to_owned),
        memory_mib: memory.and_then(|it| it.parse().ok()),
    })
}

/// By the driver's directories, whose names sort in the order of the bus.
fn ask_driver(dir: &Path) -> Vec<Gpu> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    entries.sort();
    let gpu = |(index, path): (u32, PathBuf)| {
        let text = std::fs::read_to_string(path.join("information")).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim().to_owned())
        };
        Gpu {
            name: index.to_string(),
            index: Some(index),
            uuid: field("GPU UUID:"),
            model: field("Model:"),
            memory_mib: None,
        }
    };
    (0..).zip(entries).map(gpu).collect()
}

#[cfg(test)]
mod tests;
