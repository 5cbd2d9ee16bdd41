//! What a worker process sees of the server's environment, and which program a command means.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::providers::StartError;

/// Carried by every process of a worker, with the worker's directory as its value, so that those
/// left behind by a dead server are known again.
pub(crate) const MARKER: &str = "LAZYFOX_WORKER_DIR";

/// Variables that workers inherit. Everything else stays behind, because the environment of a
/// server is where its secrets are: its API keys, the address of its database. `HF_TOKEN` is a secret
/// too, but the user's own, and gated models cannot be loaded without it; and so may be the address
/// of a proxy, without which nothing is reached at all.
const INHERITED: [&str; 21] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "LD_LIBRARY_PATH",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
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

/// Families of variables that workers inherit: language, GPUs, and where models come from.
const INHERITED_PREFIXES: [&str; 4] = ["LC_", "NVIDIA_", "CUDA_", "HF_"];

/// What a name of a secret has in it, such as `NVIDIA_API_KEY`: of a family they stay behind.
const SECRET_WORDS: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"];

/// What decides which GPUs a program sees. Of the two that AMD's libraries read, one counts in what the
/// other has left over, so only the first of them is used to choose.
const VISIBLE: [&str; 3] = [
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
];
const VISIBLE_BELOW: [&str; 2] = ["ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"];
/// Number of GPUs, by the public contract.
const GPU_COUNT: &str = "RUNPOD_GPU_COUNT";

/// A worker's environment, by name.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// The GPUs that a worker sees.
#[derive(Clone, Copy)]
pub(super) enum Gpus<'a> {
    /// Nobody here gives any out: it sees those that it finds.
    Any,
    /// Those that were given to it, which may be none.
    Given(&'a [String]),
}

/// What is inherited, overruled by what the endpoint says; and above both the GPUs that are the worker's
/// own. Where it has none, the endpoint may still say otherwise: to share one by hand is a choice.
pub(super) fn compose(
    inherited: &[(OsString, OsString)],
    own: Vec<(String, String)>,
    server_host: &str,
    home: &Path,
    gpus: Gpus<'_>,
) -> Environment {
    let mut env: Environment = inherited
        .iter()
        .filter(|(name, _)| is_inherited(name))
        .cloned()
        .collect();
    // Without it Python keeps lines back in a buffer, because the log is no terminal, and a worker
    // that is killed takes its last words with it.
    env.insert("PYTHONUNBUFFERED".into(), "1".into());
    if let Gpus::Given([]) = gpus {
        let hidden = VISIBLE.iter().chain(&VISIBLE_BELOW);
        env.extend(hidden.map(|name| (name.into(), OsString::new())));
        env.insert(GPU_COUNT.into(), "0".into());
    }
    env.extend(
        own.into_iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    if let Gpus::Given(names @ [_, ..]) = gpus {
        give(&mut env, names);
    }
    env.insert(MARKER.into(), home.into());
    reach_directly(&mut env, server_host);
    env
}

/// Lets a worker see these GPUs and no others, whatever else was said.
fn give(env: &mut Environment, names: &[String]) {
    for name in VISIBLE {
        env.insert(name.into(), names.join(",").into());
    }
    for name in VISIBLE_BELOW {
        env.remove(OsStr::new(name));
    }
    // By itself CUDA counts from the fastest one on.
    env.insert("CUDA_DEVICE_ORDER".into(), "PCI_BUS_ID".into());
    env.insert(GPU_COUNT.into(), names.len().to_string().into());
}

/// Adds a host to those that are reached without a proxy. A proxy in the environment is there for the
/// internet; between a worker and its server it would hold back polls and lose results.
pub(in crate::providers) fn reach_directly(env: &mut Environment, host: &str) {
    let names = ["NO_PROXY", "no_proxy"].map(OsStr::new);
    // Programs differ in which of the two they read, and many read only one.
    let values = names.map(|name| {
        env.get(name)
            .or_else(|| names.iter().find_map(|it| env.get(*it)))
    });
    let values = values.map(|value| {
        let mut hosts = value.cloned().unwrap_or_default();
        // The star means all, but only where it stands alone.
        if hosts != "*" {
            if !hosts.is_empty() {
                hosts.push(",");
            }
            hosts.push(host);
        }
        hosts
    });
    for (name, value) in names.into_iter().zip(values) {
        env.insert(name.to_owned(), value);
    }
}

fn is_inherited(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        INHERITED.contains(&name)
            || INHERITED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
                && !SECRET_WORDS.iter().any(|word| name.contains(word))
    })
}

/// The file that a command's first word means: as a shell in `working_dir` would find it.
///
/// Left to the operating system it would be looked for in the worker's own directory, and a failure
/// would not say where.
pub(crate) fn find_program(
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
            ("HF_TOKEN", "of the user"),
            ("NVIDIA_API_KEY", "of the server"),
            ("HF_SOME_SECRET", "of the server"),
            ("CUDA_VISIBLE_DEVICES", "2"),
            ("TZ", "UTC"),
            ("DATABASE_URL", "postgres://secret"),
            ("PATHS", "no"),
        ]
        .map(|(name, value)| (name.into(), value.into()));
        let own = vec![
            ("TZ".to_owned(), "CET".to_owned()),
            ("MODEL".to_owned(), "x".to_owned()),
        ];
        let env = compose(&inherited, own, "127.0.0.1", Path::new("/w"), Gpus::Any);
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        assert_eq!(
            env,
            [
                "CUDA_VISIBLE_DEVICES=2",
                "HF_HOME=/models",
                "HF_TOKEN=of the user",
                "LAZYFOX_WORKER_DIR=/w",
                "LC_ALL=C",
                "MODEL=x",
                "NO_PROXY=127.0.0.1",
                "PATH=/bin",
                "PYTHONUNBUFFERED=1",
                "TZ=CET",
                "no_proxy=127.0.0.1",
            ]
        );
    }

    #[test]
    fn no_proxy_stands_between_a_worker_and_its_server() {
        let check = |inherited: &[(&str, &str)], own: &[(&str, &str)], expected: [&str; 2]| {
            let inherited: Vec<_> = inherited
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect();
            let own = own
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let env = compose(&inherited, own, "::1", Path::new("/w"), Gpus::Any);
            let found =
                ["NO_PROXY", "no_proxy"].map(|name| env[OsStr::new(name)].to_str().unwrap());
            assert_eq!(found, expected);
        };
        check(&[("no_proxy", "a,b")], &[], ["a,b,::1", "a,b,::1"]);
        check(
            &[("NO_PROXY", "a"), ("no_proxy", "b")],
            &[],
            ["a,::1", "b,::1"],
        );
        check(
            &[("NO_PROXY", "a")],
            &[("NO_PROXY", "c")],
            ["c,::1", "c,::1"],
        );
        check(&[("NO_PROXY", "*")], &[], ["*", "*"]);
    }

    /// What a worker is told of GPUs, given what the server and the endpoint say.
    fn told(inherited: &[(&str, &str)], own: &[(&str, &str)], gpus: Gpus<'_>) -> String {
        let inherited: Vec<_> = inherited
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let own = own
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let env = compose(&inherited, own, "", Path::new("/w"), gpus);
        let words = ["VISIBLE", "DEVICE_OR", "GPU_COUNT"];
        let told = env.iter().filter(|(name, _)| {
            let name = name.to_str().unwrap();
            words.iter().any(|word| name.contains(word))
        });
        let told = told.map(|(name, value)| format!("{}={}", name.display(), value.display()));
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_worker_sees_the_gpus_that_are_its_own() {
        let two = ["1".to_owned(), "3".to_owned()];
        let inherited = [
            ("CUDA_VISIBLE_DEVICES", "7"),
            ("CUDA_DEVICE_ORDER", "FASTEST_FIRST"),
        ];
        let own = [
            ("CUDA_VISIBLE_DEVICES", "0,1"),
            ("ROCR_VISIBLE_DEVICES", "0"),
        ];
        let given = "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1,3 HIP_VISIBLE_DEVICES=1,3 \
                     NVIDIA_VISIBLE_DEVICES=1,3 RUNPOD_GPU_COUNT=2";
        assert_eq!(told(&inherited, &own, Gpus::Given(&two)), given);
        assert_eq!(told(&[], &[], Gpus::Given(&two)), given);
    }

    #[test]
    fn a_worker_without_gpus_sees_none_unless_the_endpoint_says_so() {
        let inherited = [("CUDA_VISIBLE_DEVICES", "7")];
        let none = "CUDA_VISIBLE_DEVICES= GPU_DEVICE_ORDINAL= HIP_VISIBLE_DEVICES= \
                    NVIDIA_VISIBLE_DEVICES= ROCR_VISIBLE_DEVICES= RUNPOD_GPU_COUNT=0";
        assert_eq!(told(&inherited, &[], Gpus::Given(&[])), none);
        let shared = told(
            &inherited,
            &[("CUDA_VISIBLE_DEVICES", "0")],
            Gpus::Given(&[]),
        );
        assert_eq!(
            shared,
            none.replace("CUDA_VISIBLE_DEVICES=", "CUDA_VISIBLE_DEVICES=0")
        );
        // Where nobody gives any out, a worker sees what the server sees.
        assert_eq!(told(&inherited, &[], Gpus::Any), "CUDA_VISIBLE_DEVICES=7");
    }
}
