//! What a worker process sees of the server's environment, and which program a command means.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::providers::StartError;

/// Carried by every process of a worker, with the worker's directory as its value, so that those
/// left behind by a dead server are known again.
pub(super) const MARKER: &str = "LAZYFOX_WORKER_DIR";

/// Variables that workers inherit. Everything else stays behind, because the environment of a
/// server is where its secrets are: its API keys, the address of its database.
const INHERITED: [&str; 19] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// Families of variables that workers inherit: language, GPUs, and where models come from. `HF_TOKEN`
/// is a secret, but the user's own, and gated models cannot be loaded without it.
const INHERITED_PREFIXES: [&str; 4] = ["LC_", "NVIDIA_", "CUDA_", "HF_"];

/// A worker's environment, by name.
pub(super) type Environment = BTreeMap<OsString, OsString>;

/// What is inherited, overruled by what the endpoint says.
pub(super) fn compose(
    inherited: &[(OsString, OsString)],
    own: Vec<(String, String)>,
    home: &Path,
) -> Environment {
    let mut env: Environment = inherited
        .iter()
        .filter(|(name, _)| is_inherited(name))
        .cloned()
        .collect();
    // Without it Python keeps lines back in a buffer, because the log is no terminal, and a worker
    // that is killed takes its last words with it.
    env.insert("PYTHONUNBUFFERED".into(), "1".into());
    env.extend(
        own.into_iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    env.insert(MARKER.into(), home.into());
    env
}

fn is_inherited(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        INHERITED.contains(&name)
            || INHERITED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    })
}

/// The file that a command's first word means: as a shell in `working_dir` would find it.
///
/// Left to the operating system it would be looked for in the worker's own directory, and a failure
/// would not say where.
pub(super) fn find_program(
    program: &str,
    working_dir: &Path,
    env: &Environment,
) -> Result<PathBuf, StartError> {
    if program.contains('/') {
        let path = working_dir.join(program);
        return match path.metadata() {
            Err(error) => Err(StartError::new(format!(
                "program {}: {error}",
                path.display()
            ))),
            Ok(_) if is_executable(&path) => Ok(path),
            Ok(_) => Err(StartError::new(format!(
                "program {} is not executable",
                path.display()
            ))),
        };
    }
    let path = env
        .get(OsStr::new("PATH"))
        .map(OsString::as_os_str)
        .unwrap_or_default();
    std::env::split_paths(path)
        .map(|dir| working_dir.join(dir).join(program))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| {
            let path = path.display();
            StartError::new(format!(
                "program {program:?} was not found in PATH ({path})"
            ))
        })
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_behind_and_the_endpoint_wins() {
        let inherited = [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("HF_HOME", "/models"),
            ("TZ", "UTC"),
            ("DATABASE_URL", "postgres://secret"),
            ("PATHS", "no"),
        ]
        .map(|(name, value)| (name.into(), value.into()));
        let own = vec![
            ("TZ".to_owned(), "CET".to_owned()),
            ("MODEL".to_owned(), "x".to_owned()),
        ];
        let env = compose(&inherited, own, Path::new("/w"));
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        assert_eq!(
            env,
            [
                "HF_HOME=/models",
                "LAZYFOX_WORKER_DIR=/w",
                "LC_ALL=C",
                "MODEL=x",
                "PATH=/bin",
                "PYTHONUNBUFFERED=1",
                "TZ=CET",
            ]
        );
    }
}
