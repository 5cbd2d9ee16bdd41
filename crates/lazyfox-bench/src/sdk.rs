//! Workers that the server starts: of the public SDK, in an environment or in an image, and a
//! stand-in that is this program.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::http::{Connection, read_id};
use crate::server::Site;

/// Where a worker that is started by [`exec`] reads when its program began.
const BEGAN: &str = "LAZYFOX_BENCH_BEGAN";

/// The jobs that the handler takes at once.
const SLOTS: &str = "LAZYFOX_BENCH_SLOTS";

/// Where an image finds the handler.
const MOUNT: &str = "/lazyfox-bench";

/// The handler of all measurements: it does nothing and says when.
const HANDLER: &str = r#"import os
import time

BEGAN = time.time()

import runpod

SLOTS = int(os.environ.get("LAZYFOX_BENCH_SLOTS", "1"))


def handler(job):
    ran = time.time()
    return {"began": float(os.environ.get("LAZYFOX_BENCH_BEGAN", BEGAN)), "ran": ran}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: SLOTS})
"#;

/// What workers are made of.
#[derive(Clone)]
pub(crate) enum Kind {
    /// A worker of this program: what a start costs without Python.
    StandIn,
    /// The SDK in the environment of this interpreter, with its version.
    Python { program: PathBuf, version: String },
    /// The SDK in this image.
    Image(String),
}

impl Kind {
    /// The environment of an interpreter, which has to have the SDK.
    pub(crate) async fn python(program: &Path) -> Result<Self> {
        const VERSION: &str = "import importlib.metadata as m; print(m.version('runpod'))";
        let found = Command::new(program).args(["-c", VERSION]).output().await;
        let found = found.with_context(|| format!("cannot run {}", program.display()))?;
        let version = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        ensure!(
            found.status.success() && !version.is_empty(),
            "{} has no package runpod: install it there, or name another interpreter with --python",
            program.display()
        );
        // Not resolved: that an environment is one shows in the path of its interpreter.
        let program = if program.components().count() > 1 {
            std::path::absolute(program)?
        } else {
            program.to_owned()
        };
        Ok(Self::Python { program, version })
    }

    /// As the table of an endpoint, which more settings may follow. Writes the handler beside the
    /// data.
    pub(crate) fn table(&self, site: &Site, endpoint: &str, slots: u16) -> Result<String> {
        let folder = site.folder.join("handler");
        fs::create_dir_all(&folder).context("cannot create the folder of the handler")?;
        fs::write(folder.join("handler.py"), HANDLER).context("cannot write the handler")?;
        let own = std::env::current_exe().context("cannot find this program")?;
        let own = quoted(own.to_str())?;
        let mut table = format!("[endpoints.{endpoint}]\nenv = {{ {SLOTS} = \"{slots}\" }}\n");
        let folder = quoted(folder.to_str())?;
        let written = match self {
            Self::StandIn => writeln!(table, "command = [{own}, \"worker\"]"),
            Self::Python { program, .. } => {
                let program = quoted(program.to_str())?;
                writeln!(
                    table,
                    "command = [{own}, \"exec\", {program}, \"handler.py\"]\nworking_dir = {folder}"
                )
            }
            Self::Image(image) => {
                let image = quoted(Some(image))?;
                let mount = folder.trim_matches('"');
                writeln!(
                    table,
                    "image = {image}\nentrypoint = [\"python3\"]\n\
                     command = [\"{MOUNT}/handler.py\"]\nmounts = [\"{mount}:{MOUNT}:ro\"]"
                )
            }
        };
        written.expect("writing to a string cannot fail");
        Ok(table)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StandIn => f.write_str("stand-in, no Python"),
            Self::Python { version, .. } => write!(f, "SDK {version}"),
            Self::Image(image) => write!(f, "image {image}"),
        }
    }
}

/// A string of TOML. JSON's are the same but for what no path should have.
fn quoted(text: Option<&str>) -> Result<String> {
    let text = text.context("a path that is no text")?;
    ensure!(
        !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')),
        "{text:?} has a character that cannot stand in a configuration of this tool"
    );
    Ok(format!("\"{text}\""))
}

/// Becomes the program of a worker, which then knows since when it runs.
pub(crate) fn exec(command: &[String]) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("no program to run");
    };
    let error = std::process::Command::new(program)
        .args(arguments)
        .env(BEGAN, format!("{:.6}", now_s()))
        .exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

/// Is a worker: takes jobs and says when it began, asked and was answered.
pub(crate) async fn work() -> Result<()> {
    let began = now_s();
    let (address, take_path) = url("RUNPOD_WEBHOOK_GET_JOB")?;
    let (_, done_path) = url("RUNPOD_WEBHOOK_POST_OUTPUT")?;
    let mut http =
        Connection::open(address.parse().context("no address in the worker's URL")?).await?;
    let mut id = String::new();
    loop {
        let asked = now_s();
        http.get(format_args!("{take_path}&job_in_progress=0"));
        let answer = http.exchange().await?;
        if answer.status == 204 {
            continue;
        }
        answer.ensure_ok()?;
        let ran = now_s();
        read_id(answer.body, &mut id)?;
        let output =
            format!(r#"{{"output":{{"began":{began:.6},"asked":{asked:.6},"ran":{ran:.6}}}}}"#);
        let path = done_path.replace("$ID", &id);
        http.post(format_args!("{path}&isStream=false"), output.as_bytes());
        http.expect_ok().await?;
    }
}

/// Address and path of a URL that the server gives its workers.
fn url(variable: &str) -> Result<(String, String)> {
    let url = std::env::var(variable)
        .with_context(|| format!("{variable} is not set: the server starts this command"))?;
    let rest = url.strip_prefix("http://");
    let (address, path) = rest
        .and_then(|rest| rest.split_once('/'))
        .with_context(|| format!("{variable} is no http URL"))?;
    Ok((address.to_owned(), format!("/{path}")))
}

/// The time in seconds, as Python's `time.time()` gives it.
pub(crate) fn now_s() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// A number in an answer of the server.
pub(crate) fn number(value: &Value, name: &str) -> Result<f64> {
    value[name]
        .as_f64()
        .with_context(|| format!("no {name} in {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_those_that_the_handler_reads() {
        for variable in [BEGAN, SLOTS] {
            assert!(HANDLER.contains(&format!("\"{variable}\"")), "{variable}");
        }
    }

    #[test]
    fn what_would_break_the_configuration_is_refused() {
        assert_eq!(quoted(Some("/a b/c")).unwrap(), "\"/a b/c\"");
        for text in ["a\"b", "a\\b", "a\nb"] {
            assert!(quoted(Some(text)).is_err(), "{text:?}");
        }
        assert!(quoted(None).is_err());
    }
}
