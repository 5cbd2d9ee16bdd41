//! A Python environment for a handler under development: made once, kept, used again.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The interpreter used when none is named.
const DEFAULT_PYTHON: &str = "python3";

/// What is installed for a handler that says nothing: the one package that every handler imports.
const DEFAULT_REQUIREMENTS: &str = "runpod\n";

/// Lies in an environment whose installation came to its end.
const READY: &str = ".lazyfox-ready";

/// Said before pip runs, which is quiet until it fails.
const PATIENCE: &str = "this takes a moment, once";

/// How many lines of a failed command are shown: pip's reason stands in the last few.
const LAST_LINES: usize = 20;

/// Asks an interpreter about itself. Debian ships `venv` without `ensurepip`, and then `venv` leaves
/// half an environment, so both are looked for before anything is made.
const PROBE: &str = "
import importlib.util, json, sys
print(json.dumps({
    'executable': sys.executable,
    'prefix': sys.prefix,
    'base_prefix': getattr(sys, 'base_prefix', sys.prefix),
    'version': sys.version,
    'can_make_venv': all(importlib.util.find_spec(m) for m in ('venv', 'ensurepip')),
}))
";

/// What an environment is asked for.
pub struct Request<'a> {
    /// The handler's file.
    pub handler: &'a Path,
    /// What to install; without it, the `requirements.txt` beside the handler.
    pub requirements: Option<PathBuf>,
    /// Where environments are kept.
    pub envs_dir: &'a Path,
    /// The interpreter, by name or path; without it, `python3`.
    pub python: Option<&'a str>,
}

/// An environment in which the handler can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonEnv {
    /// Its interpreter, as an absolute path.
    pub python: PathBuf,
}

/// What an interpreter says about itself.
#[derive(Deserialize)]
struct Interpreter {
    executable: PathBuf,
    prefix: PathBuf,
    base_prefix: PathBuf,
    version: String,
    can_make_venv: bool,
}

/// What to install.
struct Requirements {
    text: String,
    /// The file the text is from; none for the default.
    file: Option<PathBuf>,
}

/// Finds or makes the environment that the request asks for, and tells of each step through `say`.
///
/// Blocks, for minutes when packages are downloaded. An environment that is there already is used
/// without touching the network. Two that ask for the same at once do not disturb each other: the
/// second waits.
///
/// # Errors
/// When there is no such interpreter, it cannot make environments, or a package cannot be installed.
pub fn prepare(request: &Request<'_>, mut say: impl FnMut(&str)) -> anyhow::Result<PythonEnv> {
    let name = request.python.unwrap_or(DEFAULT_PYTHON);
    let interpreter = probe(name)?;
    if interpreter.prefix != interpreter.base_prefix {
        // Who names an environment of their own has chosen what is in it.
        say(&format!(
            "using the virtual environment {} as it is",
            interpreter.prefix.display()
        ));
        return Ok(PythonEnv {
            python: interpreter.executable,
        });
    }
    let requirements = Requirements::of(request)?;
    let key = requirements.key(&interpreter);
    let env = std::path::absolute(request.envs_dir)?.join(&key);
    let python = env.join("bin/python");
    fs::create_dir_all(request.envs_dir)
        .with_context(|| format!("cannot make {}", request.envs_dir.display()))?;
    let lock = request.envs_dir.join(format!("{key}.lock"));
    // Held until it is dropped or this process ends, however it does.
    let _lock = File::create(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("cannot lock {}", lock.display()))?;
    // The link to an interpreter that was uninstalled is there, but what it leads to is not.
    if env.join(READY).exists() && python.exists() {
        say(&format!("using the Python environment {}", env.display()));
        return Ok(PythonEnv { python });
    }
    make(&interpreter, name, &env, &mut say)?;
    install(&python, &requirements, &mut say)?;
    fs::write(env.join(READY), "").with_context(|| format!("cannot write to {}", env.display()))?;
    Ok(PythonEnv { python })
}

fn probe(name: &str) -> anyhow::Result<Interpreter> {
    let output = match Command::new(name)
        .args(["-c", PROBE])
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "there is no Python interpreter {name:?}: install Python 3, or name one with --python"
            )
        }
        Err(error) => {
            return Err(error).context(format!("cannot run the Python interpreter {name:?}"));
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{name:?} does not work as a Python 3 interpreter ({}): {}",
            output.status,
            errors.trim()
        );
    }
    // A customised installation may print something of its own first.
    let answer = String::from_utf8_lossy(&output.stdout);
    let answer = answer.lines().last().unwrap_or_default();
    serde_json::from_str(answer).with_context(|| {
        format!("{name:?} does not answer like a Python 3 interpreter, but with {answer:?}")
    })
}

fn make(
    interpreter: &Interpreter,
    name: &str,
    env: &Path,
    say: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    if !interpreter.can_make_venv {
        bail!(
            "{name:?} cannot make virtual environments, its modules venv and ensurepip are missing: \
             on Debian and Ubuntu `apt install python3-venv` brings them, or name another \
             interpreter with --python"
        );
    }
    if env.exists() {
        say(
            "the last attempt to make the Python environment did not come to its end: starting over",
        );
        fs::remove_dir_all(env).with_context(|| format!("cannot remove {}", env.display()))?;
    }
    let version = interpreter
        .version
        .split_whitespace()
        .next()
        .unwrap_or_default();
    say(&format!(
        "making a Python {version} environment in {}",
        env.display()
    ));
    let mut command = Command::new(&interpreter.executable);
    command.args(["-m", "venv"]).arg(env);
    run(command).context("cannot make a virtual environment")
}

fn install(
    python: &Path,
    requirements: &Requirements,
    say: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]);
    match &requirements.file {
        Some(file) => {
            say(&format!("installing {}; {PATIENCE}", file.display()));
            command.arg("-r").arg(file);
            // Requirements that are paths count from here.
            if let Some(dir) = file.parent() {
                command.current_dir(dir);
            }
        }
        None => {
            say(&format!(
                "there is no requirements.txt beside the handler: installing runpod; {PATIENCE}"
            ));
            command.args(DEFAULT_REQUIREMENTS.split_whitespace());
        }
    }
    run(command).context("pip could not install what the handler requires")
}

/// Runs a command to its end. What it wrote last is shown when it fails.
fn run(mut command: Command) -> anyhow::Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        // The module venv writes its errors to one, pip to the other.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..);
        bail!(
            "{program}: {}\n{}",
            output.status,
            last.unwrap_or_default().join("\n")
        );
    }
    Ok(())
}

impl Requirements {
    fn of(request: &Request<'_>) -> anyhow::Result<Self> {
        let beside = || request.handler.with_file_name("requirements.txt");
        let file = match &request.requirements {
            Some(file) => file.clone(),
            None if beside().exists() => beside(),
            None => {
                return Ok(Self {
                    text: DEFAULT_REQUIREMENTS.to_owned(),
                    file: None,
                });
            }
        };
        let text = fs::read_to_string(&file)
            .with_context(|| format!("cannot read the requirements {}", file.display()))?;
        Ok(Self {
            text,
            file: Some(std::path::absolute(file)?),
        })
    }

    /// The name of the environment: equal when it would hold the same.
    ///
    /// A file that the requirements include is not part of it, so a change in there goes unnoticed
    /// until the environment is removed by hand: to follow it would mean to read these files as pip
    /// does.
    fn key(&self, interpreter: &Interpreter) -> String {
        let mut hash = Sha256::new();
        // A zero byte ends each part, so that none can run over into the next.
        for part in [&self.text, &interpreter.version] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(interpreter.base_prefix.as_os_str().as_encoded_bytes());
        hash.update([0]);
        if let Some(dir) = self.file.as_deref().and_then(Path::parent)
            && self.names_paths()
        {
            hash.update(dir.as_os_str().as_encoded_bytes());
        }
        hash.finalize()
            .iter()
            .take(6)
            .fold(String::new(), |mut key, byte| {
                let _ = write!(key, "{byte:02x}");
                key
            })
    }

    /// Whether a line may mean something else in another directory, such as `-e .`: an option, or
    /// anything with a slash. Some that do not are caught too; they merely are not shared.
    fn names_paths(&self) -> bool {
        self.text
            .lines()
            .map(str::trim_start)
            .filter(|line| !line.starts_with('#'))
            .any(|line| line.starts_with(['-', '.']) || line.contains('/'))
    }
}

#[cfg(test)]
mod tests;
