//! The endpoints' settings as they are now: what the configuration says, and what was changed since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use lazyfox_core::id::EndpointId;

use crate::changes::Changes;
use crate::config::Endpoint;

/// All endpoints, by name.
pub type ByName = BTreeMap<EndpointId, Arc<Endpoint>>;

/// The settings of all endpoints. Who has got one's keeps it as it was.
pub struct Endpoints {
    now: RwLock<Arc<ByName>>,
    parts: Mutex<Parts>,
    /// Held by who changes something from what it reads until all know of it.
    changing: tokio::sync::Mutex<()>,
}

struct Parts {
    configured: BTreeMap<EndpointId, Endpoint>,
    changes: BTreeMap<EndpointId, Changes>,
    /// What was in force last of endpoints that are not there any more: their workers still have jobs.
    removed: ByName,
}

impl Parts {
    fn together(&self) -> Arc<ByName> {
        let together = self.configured.iter().map(|(id, configured)| {
            let mut settings = configured.clone();
            if let Some(changes) = self.changes.get(id) {
                changes.apply(&mut settings);
            }
            (id.clone(), Arc::new(settings))
        });
        Arc::new(together.collect())
    }
}

impl Endpoints {
    /// These, unchanged.
    #[must_use]
    pub fn new(configured: BTreeMap<EndpointId, Endpoint>) -> Self {
        let parts = Parts {
            configured,
            changes: BTreeMap::new(),
            removed: ByName::new(),
        };
        Self {
            now: RwLock::new(parts.together()),
            parts: Mutex::new(parts),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Arc<ByName> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<Arc<Endpoint>> {
        self.all().get(id).cloned()
    }

    /// One of them, or what was in force last of one that is not there any more. Of one that went before
    /// this server was started nothing is known.
    #[must_use]
    pub fn last(&self, id: &EndpointId) -> Option<Arc<Endpoint>> {
        self.get(id)
            .or_else(|| self.parts().removed.get(id).cloned())
    }

    /// As the configuration says it, without changes.
    #[must_use]
    pub fn configured(&self, id: &EndpointId) -> Option<Endpoint> {
        self.parts().configured.get(id).cloned()
    }

    /// What was changed of an endpoint.
    #[must_use]
    pub fn changes(&self, id: &EndpointId) -> Changes {
        self.parts().changes.get(id).cloned().unwrap_or_default()
    }

    /// Waits until nobody else changes anything, and keeps others from it: a change follows from what was
    /// read before it, and is kept in the store before it is in force.
    pub async fn alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// From now on the configuration says this. What was changed stays changed.
    pub fn configure(&self, configured: BTreeMap<EndpointId, Endpoint>) {
        let mut parts = self.parts();
        parts.configured = configured;
        for (id, settings) in self.all().iter() {
            parts.removed.insert(id.clone(), Arc::clone(settings));
        }
        let Parts {
            configured,
            removed,
            ..
        } = &mut *parts;
        removed.retain(|id, _| !configured.contains_key(id));
        self.put(&parts);
    }

    /// From now on this is what was changed of an endpoint, in all.
    pub fn change(&self, id: &EndpointId, changes: Changes) {
        let mut parts = self.parts();
        parts.changes.insert(id.clone(), changes);
        self.put(&parts);
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, parts: &Parts) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = parts.together();
    }
}
