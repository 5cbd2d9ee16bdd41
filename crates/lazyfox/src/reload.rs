//! The configuration is read once more while the server runs. What it says of endpoints is taken
//! over as a whole or not at all; what it says of the server itself is read at a start only.

use lazyfox_core::id::EndpointId;
use lazyfox_store::StoreError;

use crate::app::App;
use crate::config::Config;
use crate::providers::Release;
use crate::release;

/// What a new configuration brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Endpoints that were not there before.
    pub added: Vec<EndpointId>,
    /// Endpoints that are not there any more: their workers go, their jobs stay in the store.
    pub removed: Vec<EndpointId>,
    /// Endpoints with other settings than before.
    pub changed: Vec<EndpointId>,
    /// Those of all these whose workers are replaced, and by which release.
    pub releases: Vec<(EndpointId, Release)>,
}

/// Why nothing was taken over.
#[derive(Debug)]
pub enum ReloadError {
    /// The file cannot be read, or something in it is wrong.
    Config(String),
    /// The store cannot answer.
    Store(StoreError),
}

impl From<StoreError> for ReloadError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// Reads the file that the server was started with, and takes over what it says of endpoints.
///
/// # Errors
/// No settings have changed then, or all have and the store went away before all releases were kept: the
/// next call does the rest.
pub async fn reload(app: &App) -> Result<Reloaded, ReloadError> {
    let Some(file) = app.config.source.clone() else {
        let why = "this server was started without a configuration file";
        return Err(ReloadError::Config(why.to_owned()));
    };
    // Of two at once the second reads the file after the first has taken it over, or an older text could win.
    let _alone = app.endpoints.alone().await;
    let read = tokio::task::spawn_blocking(move || Config::read(&file));
    let config = read
        .await
        .map_err(|e| ReloadError::Config(e.to_string()))?
        .map_err(|e| ReloadError::Config(format!("{e:#}")))?;
    let before = app.endpoints.all();
    let mut done = Reloaded::default();
    for (id, settings) in &config.endpoints {
        match app.endpoints.configured(id) {
            None => done.added.push(id.clone()),
            Some(old) if old != *settings => done.changed.push(id.clone()),
            Some(_) => {}
        }
    }
    let gone = before
        .keys()
        .filter(|id| !config.endpoints.contains_key(*id));
    done.removed.extend(gone.cloned());
    // Of all, as at a start: where an earlier call failed some have none. Nobody may get a job before.
    for id in config.endpoints.keys() {
        let (store, key) = (&*app.store, &app.key);
        app.signing.make_first(store, key, id, app.now()).await?;
    }
    app.endpoints.configure(config.endpoints);
    for id in &done.changed {
        app.fleet.forget_failures(id);
    }
    done.releases = release::settle(app).await?;
    app.wakes.charge.notify_one();
    tracing::info!(
        added = ?done.added, removed = ?done.removed, changed = ?done.changed,
        releases = ?done.releases, "configuration read again"
    );
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lazyfox_core::time::Timestamp;

    use super::*;
    use crate::clock::Clock;
    use crate::failing::FailingStore;
    use crate::secrets::ServerKey;

    const NOW: Timestamp = Timestamp::from_ms(1_000);

    #[tokio::test]
    async fn a_reload_that_the_store_fails_is_made_up_for_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lazyfox.toml");
        std::fs::write(&file, "[endpoints.a]\ncommand = ['a']").unwrap();
        let store = Arc::new(FailingStore::new(NOW));
        let config = Config::read(&file).unwrap();
        let (key, clock) = (ServerKey::ephemeral(), Clock::manual(NOW));
        let app = App::new(config, store.clone(), key, clock, "");
        release::settle(&app).await.unwrap();

        let two = "[endpoints.a]\ncommand = ['b']\n[endpoints.b]\ncommand = ['a']";
        std::fs::write(&file, two).unwrap();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        store.fail_next("add_webhook_secret");
        reload(&app).await.unwrap_err();
        assert!(store.has_failed() && app.endpoint(&b).is_none());
        store.fail_next("release");
        reload(&app).await.unwrap_err();
        assert!(store.has_failed() && app.endpoint(&b).is_some());
        let done = reload(&app).await.unwrap();
        assert_eq!(done.releases, [(a, Release(2)), (b.clone(), Release(1))]);
        let secrets = app.store.webhook_secrets(&b).await.unwrap();
        assert_eq!(secrets.len(), 1);
    }
}
