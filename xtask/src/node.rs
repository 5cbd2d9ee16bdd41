//! The JavaScript SDK and the library that verifies webhooks, installed from the lock file that is kept
//! beside the tests.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::layout::Layout;
use crate::step;

const FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// Written last: holds the lock file that was installed.
const MARKER: &str = ".complete";

/// Installs the package unless exactly this lock file is installed already.
pub(crate) fn ensure(layout: &Layout) -> Result<(), String> {
    let started = Instant::now();
    let from = layout.js_package();
    let home = layout.sdk().join("js");
    let lock = read(&from.join("package-lock.json"))?;
    let marker = home.join(MARKER);

    if fs::read_to_string(&marker).is_ok_and(|text| text == lock) {
        step::report("runpod-sdk and standardwebhooks (npm) are there", started);
        return Ok(());
    }

    fs::create_dir_all(&home)
        .map_err(|error| format!("cannot create {}: {error}", home.display()))?;
    for file in FILES {
        fs::copy(from.join(file), home.join(file))
            .map_err(|error| format!("cannot copy {file} to {}: {error}", home.display()))?;
    }
    install(&home).or_else(|_| install(&home))?;
    step::run(
        Command::new("node")
            .args([
                "--input-type=module",
                "-e",
                "import 'runpod-sdk'; import 'standardwebhooks'",
            ])
            .current_dir(&home),
    )?;
    fs::write(&marker, &lock)
        .map_err(|error| format!("cannot write {}: {error}", marker.display()))?;
    step::report("installed runpod-sdk and standardwebhooks (npm)", started);
    Ok(())
}

fn install(home: &Path) -> Result<(), String> {
    step::run(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(home),
    )
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
