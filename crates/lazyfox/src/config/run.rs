//! What workers run, as the configuration says it: a command, an image, and what belongs to either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use lazyfox_core::limits;
use serde::Deserialize;

use crate::providers::{ContainerRun, Mount, ProcessRun, Pull, RegistryLogin, Run};

/// The keys of an endpoint that say what its workers run.
pub(super) struct RunTable {
    pub(super) command: Option<Vec<String>>,
    pub(super) working_dir: Option<PathBuf>,
    pub(super) image: Option<String>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) mounts: Option<Vec<String>>,
    pub(super) network: Option<String>,
    pub(super) pull: Option<Pull>,
    pub(super) registry: Option<String>,
    pub(super) memory_mib: Option<u64>,
    pub(super) shm_mib: Option<u64>,
    pub(super) open_files: Option<u64>,
}

/// How many short jobs a worker is given at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NumberOrWord")]
pub enum Prefetch {
    /// As many as fit into about a second and a half.
    Auto,
    /// As many as it asks for.
    Off,
    /// So many for each job that it runs at once, at most.
    Jobs(u32),
}

/// The GPUs of this machine that workers may have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Gpus {
    /// `auto`: all that the machine has.
    Word(String),
    /// These, by index or UUID.
    Named(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrWord {
    Number(u32),
    Word(String),
}

/// `[registries.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryTable {
    server: String,
    username: String,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
}

/// The accounts of registries, by the names that the configuration gives them.
#[derive(Default)]
pub(super) struct Registries(BTreeMap<String, RegistryLogin>);

impl TryFrom<NumberOrWord> for Prefetch {
    type Error = String;

    fn try_from(value: NumberOrWord) -> Result<Self, String> {
        match value {
            NumberOrWord::Number(jobs) => Ok(Self::Jobs(jobs)),
            NumberOrWord::Word(word) if word == "auto" => Ok(Self::Auto),
            NumberOrWord::Word(word) if word == "off" => Ok(Self::Off),
            NumberOrWord::Word(word) => Err(format!(
                "prefetch is {word:?}, it should be \"auto\", \"off\" or a number of jobs"
            )),
        }
    }
}

impl Prefetch {
    pub(super) fn checked(self) -> Result<Self> {
        if let Self::Jobs(jobs) = self {
            let most = limits::PREFETCH_MAX;
            ensure!(
                (1..=most).contains(&jobs),
                "prefetch is {jobs}, allowed are \"auto\", \"off\" and 1 to {most}"
            );
        }
        Ok(self)
    }
}

impl Gpus {
    /// The named ones; `None` is all that there are.
    #[must_use]
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Self::Word(_) => None,
            Self::Named(names) => Some(names.clone()),
        }
    }

    pub(super) fn checked(self) -> Result<Self> {
        match &self {
            Self::Word(word) => ensure!(
                word == "auto",
                "server.gpus is {word:?}, it should be \"auto\" or a list such as [\"0\", \"1\"]"
            ),
            Self::Named(names) => {
                let mut seen = names.clone();
                seen.sort();
                seen.dedup();
                let sound = |name: &String| {
                    !name.is_empty()
                        && name
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || "-_/:.".contains(c))
                };
                ensure!(
                    seen.len() == names.len() && names.iter().all(sound),
                    "server.gpus should name each GPU once, by its index or its UUID"
                );
            }
        }
        Ok(self)
    }
}

impl Registries {
    /// Reads the passwords.
    pub(super) fn read(tables: BTreeMap<String, RegistryTable>, base: &Path) -> Result<Self> {
        let mut logins = BTreeMap::new();
        for (name, table) in tables {
            let login = table.login(base);
            let login = login.with_context(|| format!("registries.{name}"))?;
            logins.insert(name, login);
        }
        Ok(Self(logins))
    }
}

impl RegistryTable {
    fn login(self, base: &Path) -> Result<RegistryLogin> {
        let password = match (&self.password_file, &self.password_env) {
            (Some(file), None) => {
                let file = base.join(file);
                std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read password_file {}", file.display()))?
                    .trim_end_matches(['\r', '\n'])
                    .to_owned()
            }
            (None, Some(name)) => std::env::var(name)
                .with_context(|| format!("password_env: the variable {name} is not set"))?,
            (None, None) | (Some(_), Some(_)) => {
                bail!("give one of password_file and password_env")
            }
        };
        Ok(RegistryLogin {
            server: self.server,
            username: self.username,
            password,
        })
    }
}

impl RunTable {
    pub(super) fn finish(self, base: &Path, registries: &Registries) -> Result<Option<Run>> {
        if let Some(command) = &self.command
            && command.first().is_none_or(String::is_empty)
        {
            bail!("command is empty; give the program and its arguments, or leave it out");
        }
        if self.image.is_some() {
            return self.container(registries).map(Run::Container).map(Some);
        }
        let of_images = [
            ("entrypoint", self.entrypoint.is_some()),
            ("mounts", self.mounts.is_some()),
            ("network", self.network.is_some()),
            ("pull", self.pull.is_some()),
            ("registry", self.registry.is_some()),
            ("shm_mib", self.shm_mib.is_some()),
        ];
        if let Some((name, _)) = of_images.iter().find(|(_, given)| *given) {
            bail!("{name} is for workers that are containers, and there is no image");
        }
        let memory_bytes = bytes("memory_mib", self.memory_mib)?;
        let open_files = files(self.open_files)?;
        Ok(self.command.map(|command| {
            Run::Process(ProcessRun {
                command,
                working_dir: base.join(self.working_dir.unwrap_or_default()),
                memory_bytes,
                open_files,
            })
        }))
    }

    fn container(self, registries: &Registries) -> Result<ContainerRun> {
        let image = self.image.unwrap_or_default();
        ensure!(
            !image.is_empty() && !image.contains(char::is_whitespace),
            "image is {image:?}, it should be a name such as \"registry.example.org/ocr:1.3\""
        );
        ensure!(
            self.working_dir.is_none(),
            "working_dir is for workers that are processes; an image has its own, and mounts"
        );
        let registry = match &self.registry {
            None => None,
            Some(name) => {
                let login = registries.0.get(name).cloned();
                Some(login.with_context(|| {
                    format!("registry is {name:?}, and there is no [registries.{name}]")
                })?)
            }
        };
        let mounts = self.mounts.unwrap_or_default();
        let mounts = mounts.iter().map(|text| mount(text));
        Ok(ContainerRun {
            image,
            entrypoint: self.entrypoint,
            command: self.command,
            mounts: mounts.collect::<Result<_>>()?,
            memory_bytes: bytes("memory_mib", self.memory_mib)?,
            shm_bytes: bytes("shm_mib", self.shm_mib)?,
            open_files: files(self.open_files)?,
            pull: self.pull.unwrap_or_default(),
            network: self.network.filter(|name| !name.is_empty()),
            registry,
        })
    }
}

/// `FROM:TO` or `FROM:TO:ro`, both absolute: a relative one would mean another place to the engine.
fn mount(text: &str) -> Result<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, read_only) = match parts[..] {
        [from, to] | [from, to, "rw"] => (from, to, false),
        [from, to, "ro"] => (from, to, true),
        _ => bail!("mounts has {text:?}, it should be \"/from:/to\" or \"/from:/to:ro\""),
    };
    ensure!(
        from.starts_with('/') && to.starts_with('/'),
        "mounts has {text:?}, both paths should begin with a slash"
    );
    Ok(Mount {
        from: from.into(),
        to: to.into(),
        read_only,
    })
}

/// Mebibytes in bytes; 0 is no limit. Below 16 nothing starts.
fn bytes(name: &str, mib: Option<u64>) -> Result<Option<u64>> {
    let mib = mib.unwrap_or_default();
    let most = limits::MEMORY_MIB_MAX;
    ensure!(
        mib == 0 || (16..=most).contains(&mib),
        "{name} is {mib}, allowed are 0 (no limit) and 16 to {most}"
    );
    Ok((mib > 0).then_some(mib * 1024 * 1024))
}

fn files(open_files: Option<u64>) -> Result<Option<u64>> {
    let files = open_files.unwrap_or_default();
    let most = limits::OPEN_FILES_MAX;
    ensure!(
        files == 0 || (64..=most).contains(&files),
        "open_files is {files}, allowed are 0 (no limit) and 64 to {most}"
    );
    Ok((files > 0).then_some(files))
}
