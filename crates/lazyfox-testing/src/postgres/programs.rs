//! The programs of PostgreSQL on this machine, and the account that they run as.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Names the directory of the programs, where it is none of those that are looked at.
const DIRECTORY: &str = "LAZYFOX_TEST_POSTGRES_BIN";
/// Where Debian has a directory for each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Who runs the server when root runs the tests: PostgreSQL refuses to run as root.
const ACCOUNT: &str = "postgres";

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// The directory of `initdb` and the others.
pub(super) fn find() -> Result<PathBuf> {
    if let Some(directory) = env::var_os(DIRECTORY) {
        let directory = PathBuf::from(directory);
        return has_initdb(&directory)
            .then_some(directory)
            .with_context(|| format!("{DIRECTORY}: there is no initdb"));
    }
    newest(Path::new(DEBIAN))
        .or_else(|| on_path(&env::var_os("PATH")?))
        .with_context(|| {
            format!(
                "PostgreSQL is not installed: `cargo xtask setup` sees to it, \
                 or {DIRECTORY} names the directory of initdb"
            )
        })
}

fn has_initdb(directory: &Path) -> bool {
    directory.join("initdb").is_file()
}

fn newest(versions: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(versions).ok()?.flatten();
    let found = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        has_initdb(&programs).then_some((version, programs))
    });
    found.max().map(|(_, programs)| programs)
}

/// The others are where the file is, and not where a link to it is.
fn on_path(path: &OsStr) -> Option<PathBuf> {
    let linked = env::split_paths(path).find(|directory| has_initdb(directory))?;
    let file = linked.join("initdb").canonicalize().ok()?;
    Some(file.parent()?.to_owned())
}

/// Whom the server runs as, unless as whoever runs the tests.
pub(super) fn account() -> Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    account_of(ACCOUNT, &users).map(Some).with_context(|| {
        format!("PostgreSQL does not run as root, and no user is called {ACCOUNT}")
    })
}

fn account_of(name: &str, users: &str) -> Option<Account> {
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account {
        user: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

/// Whatever the environment says to PostgreSQL is about some other server.
pub(super) fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{Account, account_of, newest, on_path};

    #[test]
    fn the_newest_version_is_taken_and_not_the_last_in_the_alphabet() {
        let home = tempfile::tempdir().unwrap();
        for version in ["9", "15", "common"] {
            let programs = home.path().join(version).join("bin");
            fs::create_dir_all(&programs).unwrap();
            fs::write(programs.join("initdb"), "").unwrap();
        }
        fs::create_dir_all(home.path().join("17/bin")).unwrap();
        assert_eq!(newest(home.path()), Some(home.path().join("15/bin")));
        assert_eq!(newest(&home.path().join("absent")), None);
    }

    #[test]
    fn a_link_to_initdb_leads_to_the_other_programs() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        fs::create_dir_all(home.join("real")).unwrap();
        fs::create_dir_all(home.join("links")).unwrap();
        fs::write(home.join("real/initdb"), "").unwrap();
        symlink(home.join("real/initdb"), home.join("links/initdb")).unwrap();
        assert_eq!(
            on_path(home.join("links").as_os_str()),
            Some(home.join("real"))
        );
    }

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:/bin/sh\n\
                     postgres:x:101:104:administrator,,,:/var/lib/postgresql:/bin/bash\n";
        let found = Account {
            user: 101,
            group: 104,
        };
        assert_eq!(account_of("postgres", users), Some(found));
        assert_eq!(account_of("post", users), None);
    }
}
