//! Which release of an endpoint its workers run: a number that goes up with each change of what they run.

use lazyfox_core::id::EndpointId;
use lazyfox_store::StoreError;
use sha2::{Digest as _, Sha256};

use crate::app::App;
use crate::config::Endpoint;
use crate::providers::{ContainerRun, ProcessRun, Pull, Release, Run};

/// Finds out which release each endpoint is at that this server is in charge of, and makes it known to the
/// fleet: workers of another one are replaced from then on.
///
/// # Errors
/// When the store cannot answer.
pub async fn settle(app: &App) -> Result<Vec<(EndpointId, Release)>, StoreError> {
    settle_those(app, |endpoint| app.charge.term(endpoint).is_some()).await
}

/// The same for some of them. Servers whose configurations differ would otherwise outdo each other's
/// releases.
///
/// # Errors
/// When the store cannot answer.
pub async fn settle_those(
    app: &App,
    is_meant: impl Fn(&EndpointId) -> bool,
) -> Result<Vec<(EndpointId, Release)>, StoreError> {
    let mut changed = Vec::new();
    let all = app.endpoints.all();
    let meant: Vec<_> = all.iter().filter(|(id, _)| is_meant(id)).collect();
    if meant.is_empty() {
        return Ok(changed);
    }
    // Only where they are wanted: it may take seconds, and from then on no worker sees one by itself.
    let wanted = meant.iter().any(|(_, it)| it.gpus > 0);
    if wanted || app.config.gpus.names().is_some() {
        app.gpus.look().await;
    }
    for (id, settings) in meant {
        let Some(fingerprint) = fingerprint(settings) else {
            continue;
        };
        let kept = app.store.release(id, fingerprint, app.now()).await?;
        let release = Release(kept.number);
        if app.fleet.release(id, release) {
            changed.push((id.clone(), release));
        }
    }
    app.wakes.scale.notify_one();
    Ok(changed)
}

/// What is the same as long as workers run the same thing; `None` when somebody else starts them.
///
/// Only what differs from nothing is in it, by name, so that a setting that a later version of this program
/// brings along changes no release.
fn fingerprint(settings: &Endpoint) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut part = |name: &str, value: &str| {
        for text in [name, value] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    };
    match settings.run.as_ref()? {
        Run::Process(run) => process(run, &mut part),
        Run::Container(run) => container(run, &mut part),
    }
    for (name, value) in &settings.env {
        part("env", name);
        part("=", value);
    }
    if settings.gpus > 0 {
        part("gpus", &settings.gpus.to_string());
    }
    Some(hash.finalize().into())
}

fn process(run: &ProcessRun, part: &mut impl FnMut(&str, &str)) {
    for word in &run.command {
        part("command", word);
    }
    part("working_dir", &run.working_dir.to_string_lossy());
    limits(run.memory_bytes, run.open_files, part);
}

fn container(run: &ContainerRun, part: &mut impl FnMut(&str, &str)) {
    part("image", &run.image);
    for (name, words) in [("entrypoint", &run.entrypoint), ("command", &run.command)] {
        for word in words.iter().flatten() {
            part(name, word);
        }
    }
    for mount in &run.mounts {
        part("mount", &mount.from.to_string_lossy());
        part(
            if mount.read_only { "ro" } else { "rw" },
            &mount.to.to_string_lossy(),
        );
    }
    if let Some(bytes) = run.shm_bytes {
        part("shm", &bytes.to_string());
    }
    match run.pull {
        Pull::Missing => {}
        Pull::Always => part("pull", "always"),
        Pull::Never => part("pull", "never"),
    }
    if let Some(network) = &run.network {
        part("network", network);
    }
    if let Some(registry) = &run.registry {
        part("registry", &registry.server);
        part("as", &registry.username);
    }
    limits(run.memory_bytes, run.open_files, part);
}

fn limits(memory: Option<u64>, files: Option<u64>, part: &mut impl FnMut(&str, &str)) {
    for (name, limit) in [("memory", memory), ("open_files", files)] {
        if let Some(limit) = limit {
            part(name, &limit.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn of(endpoint: &str) -> Option<[u8; 32]> {
        let text = format!("[endpoints.a]\n{endpoint}");
        let config = Config::parse(&text, Path::new("/base")).unwrap();
        fingerprint(config.endpoints.values().next().unwrap())
    }

    #[test]
    fn what_workers_run_makes_a_release_and_numbers_do_not() {
        let base = of("command = ['a', 'b']");
        for same in [
            "workers_max = 9",
            "scaler = 'REQUEST_COUNT'",
            "idle_timeout_s = 60",
            "execution_timeout_s = 7",
            "prefetch = 'off'",
            "webhook.tries = 7",
            "memory_mib = 0",
        ] {
            assert_eq!(of(&format!("command = ['a', 'b']\n{same}")), base, "{same}");
        }
        for other in [
            "command = ['ab']",
            "command = ['a', 'b']\nenv = { A = 'b' }",
            "command = ['a', 'b']\nworking_dir = 'x'",
            "command = ['a', 'b']\nmemory_mib = 64",
            "command = ['a', 'b']\ngpus = 1",
            "image = 'a'\ncommand = ['a', 'b']",
        ] {
            assert_ne!(of(other), base, "{other}");
        }
        assert_eq!(of("workers_max = 1"), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let mounted = of("image = 'i'\nmounts = ['/a:/b:ro']");
        assert_ne!(mounted, of("image = 'i'\nmounts = ['/a:/b']"));
        assert_ne!(
            of("image = 'i'\nentrypoint = ['x']"),
            of("image = 'i'\ncommand = ['x']")
        );
        assert_ne!(
            of("command = ['x']\nenv = { A = 'b', C = 'd' }"),
            of("command = ['x']\nenv = { A = 'bCd' }")
        );
    }
}
