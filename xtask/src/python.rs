//! One virtual environment for each version of the Python SDK, and one for receivers of webhooks.

use std::fs;
use std::path::Path;
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

/// pip is bound by one core each while it unpacks, and small machines have two.
const INSTALLS_AT_ONCE: usize = 2;

/// Says "complete" for the requirements written in it.
const MARKER: &str = ".complete";

/// Makes the environments that are not there yet.
pub(crate) fn ensure(layout: &Layout) -> Result<(), String> {
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
                        .filter_map(|it| it.ensure(layout.sdk()).err())
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

    fn ensure(&self, sdk: &Path) -> Result<(), String> {
        ensure_environment(&sdk.join(&self.name), &self.requirement, self.check)
    }
}

fn ensure_environment(home: &Path, requirement: &str, check: &str) -> Result<(), String> {
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
    // Indexes and networks hiccup; one more try saves a whole run of the tests.
    install(&python, requirement).or_else(|_| install(&python, requirement))?;
    step::run(Command::new(&python).args(["-c", check]).current_dir(home))?;
    fs::write(&marker, requirement)
        .map_err(|error| format!("cannot write {}: {error}", marker.display()))?;
    step::report(&format!("installed {requirement}"), started);
    Ok(())
}

/// Whether the environment's interpreter still starts: it is a link to one that may be gone.
fn python_runs(python: &Path) -> bool {
    step::answer(Command::new(python).args(["-c", ""])).is_some()
}

fn install(python: &Path, requirement: &str) -> Result<(), String> {
    step::run(
        Command::new(python)
            .args([
                "-m",
                "pip",
                "install",
                "--prefer-binary",
                "-q",
                "--disable-pip-version-check",
                // Most of what comes along is never imported.
                "--no-compile",
            ])
            .arg(requirement),
    )
}
