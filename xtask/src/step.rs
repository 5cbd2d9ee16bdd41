//! Steps: one line each with its duration, and a command's output only when it failed.

use std::process::{Command, Stdio};
use std::time::Instant;

/// Prints the line of a finished step.
pub(crate) fn report(what: &str, started: Instant) {
    println!("[{:>7.1} s] {what}", started.elapsed().as_secs_f64());
}

/// Runs a command quietly; the error carries the whole output.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{} failed ({})\n{}{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    ))
}

/// The standard output of a command that succeeded, without the space around it.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}
