//! Whether the server that does the jobs is up.

use std::time::Duration;

use reqwest::Url;
use tokio::net::TcpStream;

use super::Started;
use crate::client::reason;
use crate::clock::Clock;
use crate::worker::pause;

/// Pause between two looks.
const EVERY: Duration = Duration::from_millis(200);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);

/// What shows that a server is up.
#[derive(Clone, Debug)]
pub(in crate::worker) enum Target {
    /// It answers 2xx here.
    Health(Url),
    /// It takes connections at this host and port.
    Port(String, u16),
}

/// Waits until a server is up.
pub(in crate::worker) struct Ready {
    http: reqwest::Client,
    target: Target,
    /// Before the server that waits for this worker gives it up, so that it hears why.
    limit: Duration,
    clock: Clock,
}

impl Ready {
    pub(in crate::worker) fn new(
        http: reqwest::Client,
        target: Target,
        init_timeout: Duration,
        clock: Clock,
    ) -> Self {
        let margin = (init_timeout / 10).min(Duration::from_secs(5));
        Self {
            http,
            target,
            limit: init_timeout - margin,
            clock,
        }
    }

    /// Returns when it is.
    ///
    /// # Errors
    /// When it is not in time, or exits.
    pub(in crate::worker) async fn wait(&self, started: Option<&Started>) -> Result<(), String> {
        let exited = async {
            match started {
                Some(started) => started.exited().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            why = exited => Err(why),
            up = self.up() => up,
        }
    }

    async fn up(&self) -> Result<(), String> {
        let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        let until = self.clock.now().plus_ms(limit_ms);
        loop {
            let Err(why) = self.look().await else {
                return Ok(());
            };
            if self.clock.now() >= until {
                return Err(format!(
                    "{} within {} s, a little less than RUNPOD_INIT_TIMEOUT: {why}",
                    match &self.target {
                        Target::Health(url) => format!("{url} did not answer 2xx"),
                        Target::Port(host, port) => format!("{host}:{port} took no connection"),
                    },
                    self.limit.as_secs_f32()
                ));
            }
            pause::wait(&self.clock, EVERY).await;
        }
    }

    async fn look(&self) -> Result<(), String> {
        match &self.target {
            Target::Health(url) => {
                let response = self.http.get(url.clone()).timeout(LOOK).send().await;
                let status = response.map_err(|e| reason(&e))?.status();
                if status.is_success() {
                    Ok(())
                } else {
                    Err(format!("HTTP {status}"))
                }
            }
            Target::Port(host, port) => {
                let connected = TcpStream::connect((host.as_str(), *port));
                match tokio::time::timeout(LOOK, connected).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(e)) => Err(e.to_string()),
                    Err(_) => Err("timed out".to_owned()),
                }
            }
        }
    }
}
