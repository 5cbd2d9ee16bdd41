//! The programs of PostgreSQL's server: the tests start clusters of their own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tools;

/// What names the directory of the programs to the tests as well.
const DIRECTORY: &str = "LAZYFOX_TEST_POSTGRES_BIN";
/// Debian's programs are not on the PATH: there is a directory for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Debian's package would make a cluster and start its server, which nobody asked for.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/lazyfox.conf";
const NO_CLUSTER_TEXT: &str = "\
# By `cargo xtask setup` of Lazyfox: its tests need only the programs.
create_main_cluster = false
";

/// Sees to it that clusters can be made.
pub(crate) fn ensure() -> Result<(), String> {
    if let (Some(directory), false) = (env::var_os(DIRECTORY), present()) {
        let directory = directory.display();
        return Err(format!("{DIRECTORY}: there is no initdb in {directory}"));
    }
    if !present() && tools::may_install() {
        make_no_cluster()?;
    }
    tools::ensure(&tools::POSTGRES)
}

/// Whether there is an `initdb` where the tests look for it.
pub(crate) fn present() -> bool {
    let directories: Vec<PathBuf> = match env::var_os(DIRECTORY) {
        Some(directory) => vec![directory.into()],
        None => versions(Path::new(DEBIAN))
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default()))
            .collect(),
    };
    directories.iter().any(|it| it.join("initdb").is_file())
}

fn versions(debian: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(debian).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("bin"))
}

/// Has to be said before the package is there.
fn make_no_cluster() -> Result<(), String> {
    let file = Path::new(NO_CLUSTER);
    file.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(file, NO_CLUSTER_TEXT))
        .map_err(|error| format!("cannot write {NO_CLUSTER}: {error}"))
}
