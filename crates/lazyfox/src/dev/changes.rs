//! A handler that was edited takes effect at once.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::scale::Phase;

use crate::app::App;

/// How often the files are looked at: about as long as it takes to go from the editor to the terminal.
const LOOK: Duration = Duration::from_secs(1);

/// Replaces the workers whenever the handler was written: each finishes what it has and goes, and the next
/// job gets a new one. Only the handler is looked at, not what it imports.
pub(super) async fn follow(app: &App, endpoint: &EndpointId, handler: &Path) -> Infallible {
    let mut outdated = Vec::new();
    let requirements = handler.with_file_name("requirements.txt");
    let mut handler_at = written_at(handler).await;
    let mut requirements_at = written_at(&requirements).await;
    loop {
        tokio::time::sleep(LOOK).await;
        retire(app, endpoint, &mut outdated);
        // A file that is not there is one that an editor is just replacing.
        if let Some(at) = written_at(handler).await
            && handler_at.replace(at) != Some(at)
        {
            outdated = app.fleet.all_managed();
            retire(app, endpoint, &mut outdated);
            tracing::info!("the handler changed; the next job gets a new worker");
        }
        if let Some(at) = written_at(&requirements).await
            && requirements_at.replace(at) != Some(at)
        {
            tracing::warn!("requirements.txt changed; start `lazyfox dev` again to install it");
        }
    }
}

/// Retires those that have asked for a job. One that is just starting has to do so first: ended before, it
/// would count as a start that failed, and the job that waits for it with it.
fn retire(app: &App, endpoint: &EndpointId, outdated: &mut Vec<WorkerId>) {
    if outdated.is_empty() {
        return;
    }
    let members = app.fleet.members(endpoint, &HashSet::new());
    outdated.retain(|worker| {
        let member = members.iter().find(|member| member.worker == *worker);
        let starting = member.is_some_and(|it| it.phase == Phase::Starting);
        if !starting {
            app.fleet.retire(worker, "the handler changed");
        }
        starting
    });
    app.wakes.scale.notify_one();
}

async fn written_at(path: &Path) -> Option<SystemTime> {
    tokio::fs::metadata(path).await.ok()?.modified().ok()
}
