//! What providers say of workers, for the fleet.

use std::sync::{Arc, Weak};

use lazyfox_core::id::{EndpointId, WorkerId};

use crate::app::App;
use crate::providers::{Output, Source};

/// Tells the fleet how starts come along, and passes everything on.
pub(crate) struct Heard {
    /// The provider may outlive it.
    pub(crate) app: Weak<App>,
    pub(crate) on: Arc<dyn Output>,
}

impl Output for Heard {
    fn line(&self, endpoint: &EndpointId, worker: &WorkerId, source: Source, line: &str) {
        if source == Source::System
            && let Some(app) = self.app.upgrade()
        {
            app.fleet.prepares(worker, line);
        }
        self.on.line(endpoint, worker, source, line);
    }

    fn runs(&self, worker: &WorkerId) {
        if let Some(app) = self.app.upgrade() {
            app.fleet.runs(worker, app.now());
        }
        self.on.runs(worker);
    }
}
