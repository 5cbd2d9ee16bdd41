//! The programs of the machine that the tests need: Python with venv and pip and Node.js with npm for the
//! SDKs, PostgreSQL, a container engine and what makes its image.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::{postgres, step};

/// The JavaScript SDK calls the global `fetch`, which Node.js has since this major version.
const NODE_MAJOR_MIN: u32 = 18;

pub(crate) struct Tool {
    what: &'static str,
    debian_packages: &'static [&'static str],
    present: fn() -> bool,
}

/// What the public SDKs need.
pub(crate) const SDKS: [Tool; 2] = [
    Tool {
        what: "python3 with venv and pip",
        debian_packages: &["python3", "python3-venv"],
        present: python_present,
    },
    Tool {
        what: "node (18 or later) and npm",
        debian_packages: &["nodejs", "npm"],
        present: node_present,
    },
];

/// What the tests with a database need. `postgres.rs` says when it is there.
pub(crate) const POSTGRES: [Tool; 1] = [Tool {
    what: "the programs of PostgreSQL",
    debian_packages: &["postgresql"],
    present: postgres::present,
}];

/// What the tests with containers need.
pub(crate) const CONTAINERS: [Tool; 2] = [
    Tool {
        what: "dockerd",
        debian_packages: &["docker.io"],
        present: || step::answer(Command::new("dockerd").arg("--version")).is_some(),
    },
    Tool {
        what: "debootstrap",
        debian_packages: &["debootstrap"],
        present: || step::answer(Command::new("debootstrap").arg("--version")).is_some(),
    },
];

/// Installs what is missing where that is possible without asking, else says what to install.
pub(crate) fn ensure(tools: &'static [Tool]) -> Result<(), String> {
    let started = Instant::now();
    let missing = missing(tools);
    if missing.is_empty() {
        step::report(&format!("{} are there", names(tools.iter())), started);
        return Ok(());
    }
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|tool| tool.debian_packages)
        .copied()
        .collect();
    if !may_install() {
        return Err(format!(
            "missing: {}\non Debian or Ubuntu: sudo apt-get install {}",
            names(missing),
            packages.join(" "),
        ));
    }
    install(&packages)?;
    step::report(&format!("installed {}", packages.join(" ")), started);

    // A package can be there and still be too old.
    let missing = self::missing(tools);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "installed {}, still missing: {}",
            packages.join(" "),
            names(missing)
        ))
    }
}

fn missing(tools: &'static [Tool]) -> Vec<&'static Tool> {
    tools.iter().filter(|tool| !(tool.present)()).collect()
}

fn names(tools: impl IntoIterator<Item = &'static Tool>) -> String {
    let names: Vec<&str> = tools.into_iter().map(|tool| tool.what).collect();
    names.join("; ")
}

fn python_present() -> bool {
    // Debian splits pip's installer out of Python: `import venv` alone also works without it.
    step::answer(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_some()
}

fn node_present() -> bool {
    let version = step::answer(Command::new("node").arg("--version"));
    let npm = step::answer(Command::new("npm").arg("--version"));
    npm.is_some()
        && version
            .and_then(|text| node_major(&text))
            .is_some_and(|v| v >= NODE_MAJOR_MIN)
}

/// The major version out of what `node --version` prints, such as `v20.20.2`.
fn node_major(text: &str) -> Option<u32> {
    text.strip_prefix('v')?.split('.').next()?.parse().ok()
}

pub(crate) fn is_root() -> bool {
    step::answer(Command::new("id").arg("-u")).as_deref() == Some("0")
}

/// Whether this is root on a machine with apt-get: a container or a CI machine, not a desk.
pub(crate) fn may_install() -> bool {
    is_root() && Path::new("/usr/bin/apt-get").exists()
}

fn install(packages: &[&str]) -> Result<(), String> {
    step::run(apt_get().args(["update", "-q"]))?;
    step::run(
        apt_get()
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages),
    )
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::node_major;

    #[test]
    fn node_major_is_read_from_its_version_line() {
        assert_eq!(node_major("v20.20.2"), Some(20));
        assert_eq!(node_major("v8.0.0-nightly"), Some(8));
        assert_eq!(node_major("20.1.0"), None);
        assert_eq!(node_major(""), None);
    }
}
