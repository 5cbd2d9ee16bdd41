//! One virtual environment for each version of the Python SDK, and one for receivers of webhooks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::layout::Layout;
use crate::step;

/// The versions under test: each stands for a stretch of releases with the same ways on the wire.
/// The same list is in `crates/lazyfox/tests/sdk/main.rs`.
const VERSIONS: [&str; 5] = ["1.6.2", "1.7.13", "1.10.1", "1.12.0", "2.0.0rc2"];

/// The public library that verifies webhooks.
const WEBHOOKS: &str = "standardwebhooks==1.1.0";

/// What installs: pip takes more than a minute of processor time for each of them, and this a second or
/// two. Where it cannot be had, or fails, pip does it.
const UV: &str = "uv==0.13.9";

/// pip is bound by one core each while it unpacks, and small machines have two.
const INSTALLS_AT_ONCE: usize = 2;

/// Says "complete" for the requirements written in it.
const MARKER: &str = ".complete";

/// Makes the environments that are not there yet.
pub(crate) fn ensure(layout: &Layout) -> Result<(), String> {
    let installer = Installer::get(layout);
    let mut all: Vec<Environment> = VERSIONS.iter().map(|it| Environment::of_sdk(it)).collect();
    all.push(Environment {
        name: "py-webhooks".to_owned(),
        requirement: WEBHOOKS.to_owned(),
        check: "import standardwebhooks",
    });
    let queue = Mutex::new(all.iter());
    let next = || queue.lock().ok()?.next();
    let errors: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..INSTALLS_AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    std::iter::from_fn(next)
                        .filter_map(|it| it.ensure(layout.sdk(), &installer).err())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|w| {
                w.join()
                    .unwrap_or_else(|_| vec!["an installer thread died".to_owned()])
            })
            .collect()
    });
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.join("\n"))
    }
}

/// What is installed together.
struct Environment {
    name: String,
    requirement: String,
    /// A program that runs where everything is there.
    check: &'static str,
}

impl Environment {
    fn of_sdk(version: &str) -> Self {
        Self {
            name: format!("py-{version}"),
            requirement: format!("runpod=={version}"),
            check: "import runpod, runpod.serverless",
        }
    }

    fn ensure(&self, sdk: &Path, installer: &Installer) -> Result<(), String> {
        let home = sdk.join(&self.name);
        ensure_environment(&home, &self.requirement, self.check, installer)
    }
}

fn ensure_environment(
    home: &Path,
    requirement: &str,
    check: &str,
    installer: &Installer,
) -> Result<(), String> {
    let started = Instant::now();
    let marker = home.join(MARKER);
    let python = home.join("bin/python");

    if fs::read_to_string(&marker).is_ok_and(|text| text == requirement) && python_runs(&python) {
        step::report(&format!("{requirement} is there"), started);
        return Ok(());
    }

    // `--clear` empties what an interrupted run, or another Python, left there.
    step::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(home),
    )?;
    installer.install(&python, &[requirement.to_owned()])?;
    // What this imports is compiled for all that import it later, whatever the machine is set to.
    step::run(
        Command::new(&python)
            .args(["-c", check])
            .current_dir(home)
            .env_remove("PYTHONDONTWRITEBYTECODE"),
    )?;
    fs::write(&marker, requirement)
        .map_err(|error| format!("cannot write {}: {error}", marker.display()))?;
    step::report(&format!("installed {requirement}"), started);
    Ok(())
}

/// Whether the environment's interpreter still starts: it is a link to one that may be gone.
fn python_runs(python: &Path) -> bool {
    step::answer(Command::new(python).args(["-c", ""])).is_some()
}

/// What installs packages into environments.
pub(crate) struct Installer {
    uv: Option<PathBuf>,
    cache: PathBuf,
}

impl Installer {
    pub(crate) fn get(layout: &Layout) -> Self {
        let home = layout.sdk().join("uv");
        let pip = Self {
            uv: None,
            cache: layout.sdk().join("uv-cache"),
        };
        // Without it everything works, if slowly.
        match ensure_environment(&home, UV, "import uv", &pip) {
            Ok(()) => Self {
                uv: Some(home.join("bin/uv")),
                ..pip
            },
            Err(error) => {
                println!("{error}");
                pip
            }
        }
    }

    /// Installs what is asked for in these arguments, which both know.
    pub(crate) fn install(&self, python: &Path, arguments: &[String]) -> Result<(), String> {
        if let Some(uv) = &self.uv {
            let installed = step::run(
                Command::new(uv)
                    .args(["pip", "install", "-q", "--python"])
                    .arg(python)
                    .args(arguments)
                    .env("UV_CACHE_DIR", &self.cache)
                    .env("UV_NO_CONFIG", "1"),
            );
            match installed {
                Ok(()) => return Ok(()),
                Err(error) => println!("{error}"),
            }
        }
        // Indexes and networks hiccup; one more try saves a whole run of the tests.
        pip(python, arguments).or_else(|_| pip(python, arguments))
    }
}

fn pip(python: &Path, arguments: &[String]) -> Result<(), String> {
    step::run(
        Command::new(python)
            .args([
                "-m",
                "pip",
                "install",
                "--prefer-binary",
                "-q",
                "--disable-pip-version-check",
            ])
            .args(arguments),
    )
}
