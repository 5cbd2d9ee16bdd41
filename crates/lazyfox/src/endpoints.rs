//! The endpoints' settings as they are now: they change while the server runs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use lazyfox_core::id::EndpointId;

use crate::config::Endpoint;

/// All endpoints, by name.
pub type ByName = BTreeMap<EndpointId, Arc<Endpoint>>;

/// The settings of all endpoints. Who has got one's keeps it as it was.
pub struct Endpoints {
    now: RwLock<Arc<ByName>>,
}

impl Endpoints {
    /// These.
    #[must_use]
    pub fn new(endpoints: BTreeMap<EndpointId, Endpoint>) -> Self {
        let by_name = endpoints.into_iter().map(|(id, it)| (id, Arc::new(it)));
        Self {
            now: RwLock::new(Arc::new(by_name.collect())),
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

    /// From now on these.
    pub fn replace(&self, endpoints: ByName) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(endpoints);
    }
}
