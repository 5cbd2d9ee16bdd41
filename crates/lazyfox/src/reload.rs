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
/// Nothing has changed then, unless the store went away half-way; the next call does the rest.
pub async fn reload(app: &App) -> Result<Reloaded, ReloadError> {
    let Some(file) = app.config.source.clone() else {
        let why = "this server was started without a configuration file";
        return Err(ReloadError::Config(why.to_owned()));
    };
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
    app.endpoints.configure(config.endpoints);
    for id in &done.added {
        let (store, key) = (&*app.store, &app.key);
        app.signing.make_first(store, key, id, app.now()).await?;
    }
    for id in &done.changed {
        app.fleet.forget_failures(id);
    }
    done.releases = release::settle(app).await?;
    tracing::info!(
        added = ?done.added, removed = ?done.removed, changed = ?done.changed,
        releases = ?done.releases, "configuration read again"
    );
    Ok(done)
}
