//! The project's own chores: `cargo xtask test` and `cargo xtask setup`.

use std::ffi::OsString;
use std::num::NonZero;
use std::process::{Command, ExitCode};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use crate::layout::Layout;

mod layout;
mod step;

mod container;
mod node;
mod postgres;
mod python;
mod tools;

const USAGE: &str = "\
Usage: cargo xtask <chore>

  test [ARGS...]  set everything up, then run every test; ARGS go to `cargo test`
  setup           only set up: the public SDKs that the tests drive, PostgreSQL, a container
                  engine and the file system of its test image

Either takes --without-docker: what needs a container engine, and root, is left out.

Examples:
  cargo xtask test
  cargo xtask test --without-docker
  cargo xtask test --test sdk                  only the tests with public SDKs
  cargo xtask test --test sdk -- v1_12_0::     only those of one SDK version
  cargo xtask test --test docker               only the tests with containers
";

/// What the test programs themselves look at.
const THREADS: &str = "RUST_TEST_THREADS";

/// Whether what needs a container engine is set up and tested.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Containers {
    Tested,
    LeftOut,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let chore = args.next();
    let mut rest: Vec<OsString> = args.collect();
    let containers = match rest.iter().position(|arg| arg == "--without-docker") {
        Some(found) => {
            rest.remove(found);
            Containers::LeftOut
        }
        None => Containers::Tested,
    };

    let outcome = match chore.as_ref().and_then(|name| name.to_str()) {
        Some("test") => test(&rest, containers),
        Some("setup") if rest.is_empty() => set_up(&Layout::of_workspace(), containers).map(|()| 0),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };

    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Makes sure that everything outside Cargo that the tests need is there.
fn set_up(layout: &Layout, containers: Containers) -> Result<(), String> {
    let started = Instant::now();
    // The machine's packages come one after the other, what is fetched into `target` side by side.
    tools::ensure(&tools::SDKS)?;
    postgres::ensure()?;
    match containers {
        Containers::Tested => container::ensure_tools()?,
        Containers::LeftOut => step::report("no containers: --without-docker", started),
    }
    thread::scope(|scope| {
        let sdks = scope.spawn(|| python::ensure(layout).and_then(|()| node::ensure(layout)));
        let mut sdks = Some(sdks);
        let mut installed = || sdks.take().map_or(Ok(()), joined);
        if containers == Containers::Tested {
            container::ensure(layout, &mut installed)?;
        }
        installed()
    })?;
    step::report("set-up complete", started);
    Ok(())
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    let died = |_| Err("a thread of the set-up died".to_owned());
    thread.join().unwrap_or_else(died)
}

/// Sets up, runs every test, and gives back the exit code of `cargo test`.
fn test(extra: &[OsString], containers: Containers) -> Result<u8, String> {
    let layout = Layout::of_workspace();
    // What is fetched is waited for more than it is worked on: meanwhile the tests are built.
    let built = thread::scope(|scope| {
        let building = scope.spawn(|| cargo_test(&layout, containers, &["--no-run"], extra));
        let set_up = set_up(&layout, containers);
        let built = joined(building);
        set_up.and(built)
    })?;
    match built {
        0 => cargo_test(&layout, containers, &[], extra),
        failed => Ok(failed),
    }
}

/// How many tests of a program run at once, where nobody has said it.
///
/// Two for a core: they wait for other programs, for leases to end, for disks. With one for a core
/// half of the machine was idle.
fn threads() -> usize {
    2 * thread::available_parallelism().map_or(1, NonZero::get)
}

fn cargo_test(
    layout: &Layout,
    containers: Containers,
    own: &[&str],
    extra: &[OsString],
) -> Result<u8, String> {
    let features = match containers {
        Containers::Tested => "lazyfox/sdk-tests,lazyfox/docker-tests",
        Containers::LeftOut => "lazyfox/sdk-tests",
    };
    let started = Instant::now();
    let threads = std::env::var_os(THREADS).unwrap_or_else(|| threads().to_string().into());
    // Cargo names itself in CARGO, so that the tests use the toolchain that built this program.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--workspace", "--features", features])
        .args(own)
        .args(extra)
        .env(THREADS, threads)
        .env("LAZYFOX_TEST_SDK_DIR", layout.sdk())
        .env("LAZYFOX_TEST_CONTAINER_DIR", layout.container())
        .current_dir(layout.root())
        .status()
        .map_err(|error| format!("cannot start cargo test: {error}"))?;
    let what = [&["cargo test"], own].concat().join(" ");
    step::report(&format!("{what} ({status})"), started);
    // A runner that was killed by a signal has no code: that is a failure, not a success.
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}
