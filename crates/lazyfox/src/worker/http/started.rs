//! The server that does the jobs, where this worker runs it itself.

use std::io;
use std::process::Stdio;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::providers::Exit;
use crate::worker::process::{Process, Program};
use crate::worker::settings::Settings;
use crate::worker::watchdog::Watchdog;

/// A server that was started. Dropped, it is asked to end.
pub(in crate::worker) struct Started {
    name: String,
    life: watch::Receiver<Life>,
    stop: Arc<Notify>,
}

#[derive(Clone, PartialEq, Eq)]
enum Life {
    Runs,
    /// By itself.
    Exited(Exit),
    /// Because we asked it to.
    Stopped,
}

impl Started {
    /// Starts it. What it writes goes where this worker's own log goes.
    ///
    /// # Errors
    /// When the system refuses.
    pub(in crate::worker) fn start(
        program: &Program,
        settings: &Settings,
        watchdog: &Arc<Watchdog>,
    ) -> io::Result<Self> {
        let mut command = program.command(settings);
        command.stdin(Stdio::null());
        let mut process = Process::start(&mut command, watchdog)?;
        let (tell, life) = watch::channel(Life::Runs);
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        tokio::spawn(async move {
            let end = tokio::select! {
                exit = process.ended() => Life::Exited(exit),
                () = stopped.notified() => {
                    process.stop().await;
                    Life::Stopped
                }
            };
            tell.send_replace(end);
        });
        let name = program.path.display().to_string();
        Ok(Self { name, life, stop })
    }

    /// Returns when it has exited by itself, and says how.
    pub(in crate::worker) async fn exited(&self) -> String {
        let mut life = self.life.clone();
        let end = life.wait_for(|life| *life != Life::Runs).await;
        match end.map(|life| life.clone()) {
            Ok(Life::Exited(exit)) => format!("the server {} {exit}", self.name),
            Ok(Life::Stopped | Life::Runs) | Err(_) => std::future::pending().await,
        }
    }

    /// Ends it, and waits until it is gone.
    pub(in crate::worker) async fn stop(&self) {
        self.stop.notify_one();
        let mut life = self.life.clone();
        // The task that would tell is gone only together with the process.
        life.wait_for(|life| *life != Life::Runs).await.ok();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}
