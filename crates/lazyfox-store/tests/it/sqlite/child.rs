//! Tests that need a process of their own run themselves again as a child, told so by a variable.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const VARIABLE: &str = "LAZYFOX_TEST_CHILD_DIR";

/// The directory to work in, if this process is a child.
pub(super) fn dir() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// The command that runs one test of this binary as a child. `before` is what to run it under.
pub(super) fn command(test: &str, dir: &Path, before: &[&str]) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(binary),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(binary);
            command
        }
    };
    command
        .args([test, "--exact", "--nocapture"])
        .env(VARIABLE, dir);
    command
}

/// Whether the child ran its test and the test passed.
pub(super) fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Says that a test could not show anything here: past the capturing of output, so that it is seen.
pub(super) fn not_run(test: &str, why: &str) {
    use std::io::Write as _;
    let text = format!("\nNOT RUN: {test}: {why}\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
