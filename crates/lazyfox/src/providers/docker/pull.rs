//! Pulls images: one pull of an image at a time, whoever waits for it, and it ends when nobody does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::container::with_tag;
use super::engine::{Engine, Trouble};
use crate::providers::RegistryLogin;

/// A pull of which nothing is heard for so long is given up.
const STALL: Duration = Duration::from_secs(600);

/// How often those who wait say how far it is.
const SAY_EVERY: Duration = Duration::from_secs(1);

const MB: u64 = 1_000_000;

/// How far a pull is.
#[derive(Clone, Debug, Default)]
struct Progress {
    layers: BTreeMap<String, Layer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    is_here: bool,
    current: u64,
    total: u64,
}

impl Progress {
    fn note(&mut self, said: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&said.id, said.status.as_deref()) else {
            return;
        };
        let is_here = matches!(status, "Pull complete" | "Already exists");
        let is_of_a_layer = matches!(
            status,
            "Pulling fs layer"
                | "Waiting"
                | "Downloading"
                | "Verifying Checksum"
                | "Download complete"
                | "Extracting"
        );
        if !is_here && !is_of_a_layer {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        layer.is_here |= is_here;
        if let ("Downloading", Some(detail)) = (status, &said.progress_detail) {
            let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            layer.current = bytes(detail.current);
            layer.total = bytes(detail.total).max(layer.current);
        }
        if is_here || status == "Download complete" {
            layer.current = layer.total;
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers.values();
        let here = layers.clone().filter(|layer| layer.is_here).count();
        let current: u64 = layers.clone().map(|layer| layer.current).sum();
        let total: u64 = layers.clone().map(|layer| layer.total).sum();
        write!(f, "{here} of {} layers", layers.count())?;
        if total > 0 {
            write!(f, ", {} of {} MB", current / MB, total / MB)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum State {
    Pulling(Progress),
    Over(Result<(), Trouble>),
}

type Pull = watch::Sender<State>;

/// The pulls under way, by image and account.
#[derive(Clone, Default)]
pub(super) struct Pulls(Arc<Mutex<BTreeMap<String, Weak<Pull>>>>);

impl Pulls {
    /// Pulls an image, or waits for who does; says how far it is. Dropped, it waits no longer.
    pub(super) async fn pull(
        &self,
        engine: &Arc<Engine>,
        image: &str,
        login: Option<&RegistryLogin>,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<(), Trouble> {
        let mut state = self.join(engine, image, login);
        say(&format!("pulling {image}"));
        let begun = Instant::now();
        let mut said = begun;
        loop {
            let seen = state.borrow_and_update().clone();
            match seen {
                State::Over(Ok(())) => {
                    say(&format!(
                        "pulled {image} in {} s",
                        begun.elapsed().as_secs()
                    ));
                    return Ok(());
                }
                State::Over(Err(trouble)) => return Err(trouble),
                State::Pulling(progress) => {
                    if said.elapsed() >= SAY_EVERY && !progress.layers.is_empty() {
                        said = Instant::now();
                        say(&format!("pulling {image}: {progress}"));
                    }
                }
            }
            if state.changed().await.is_err() {
                let reason = "the pull broke off".to_owned();
                return Err(Trouble::Refused { status: 0, reason });
            }
        }
    }

    fn join(
        &self,
        engine: &Arc<Engine>,
        image: &str,
        login: Option<&RegistryLogin>,
    ) -> watch::Receiver<State> {
        // The account shows without its password.
        let key = format!("{image} {login:?}");
        let mut pulls = self.pulls();
        if let Some(pull) = pulls.get(&key).and_then(Weak::upgrade) {
            return pull.subscribe();
        }
        let pull = Arc::new(watch::Sender::new(State::Pulling(Progress::default())));
        pulls.insert(key.clone(), Arc::downgrade(&pull));
        let state = pull.subscribe();
        let (pulls, engine) = (self.clone(), Arc::clone(engine));
        let (image, login) = (image.to_owned(), login.cloned());
        tokio::spawn(async move {
            tokio::select! {
                over = run(&engine, &image, login, &pull) => {
                    pulls.pulls().remove(&key);
                    pull.send_replace(State::Over(over));
                }
                // The engine ends a pull whose caller hangs up.
                () = pulls.until_unwanted(&key, &pull) => {}
            }
        });
        state
    }

    /// Returns when nobody waits any more, and then nobody can join either.
    async fn until_unwanted(&self, key: &str, pull: &Pull) {
        loop {
            pull.closed().await;
            let mut pulls = self.pulls();
            if pull.receiver_count() == 0 {
                pulls.remove(key);
                return;
            }
        }
    }

    fn pulls(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Pull>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(
    engine: &Engine,
    image: &str,
    login: Option<RegistryLogin>,
    pull: &Pull,
) -> Result<(), Trouble> {
    let docker = engine.docker().await?;
    let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image));
    let account = login.map(|login| DockerCredentials {
        username: Some(login.username),
        password: Some(login.password),
        serveraddress: Some(login.server),
        ..DockerCredentials::default()
    });
    let mut steps = docker.create_image(Some(options.build()), None, account);
    let mut progress = Progress::default();
    loop {
        let Ok(step) = tokio::time::timeout(STALL, steps.next()).await else {
            return Err(Trouble::Refused {
                status: 0,
                reason: format!("nothing came of it for {} s", STALL.as_secs()),
            });
        };
        let Some(step) = step else { return Ok(()) };
        progress.note(&engine.heard(step)?);
        pull.send_replace(State::Pulling(progress.clone()));
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn said(id: &str, status: &str, bytes: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: bytes.map(|(current, total)| ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn progress_counts_layers_and_bytes() {
        let mut progress = Progress::default();
        for (step, expected) in [
            (said("latest", "Pulling from img", None), "0 of 0 layers"),
            (said("a", "Pulling fs layer", None), "0 of 1 layers"),
            (said("b", "Already exists", None), "1 of 2 layers"),
            (
                said("a", "Downloading", Some((2_000_000, 5_900_000))),
                "1 of 2 layers, 2 of 5 MB",
            ),
            (
                said("a", "Download complete", None),
                "1 of 2 layers, 5 of 5 MB",
            ),
            // How much is unpacked is of another size.
            (
                said("a", "Extracting", Some((1, 2))),
                "1 of 2 layers, 5 of 5 MB",
            ),
            (said("a", "Pull complete", None), "2 of 2 layers, 5 of 5 MB"),
        ] {
            progress.note(&step);
            assert_eq!(progress.to_string(), expected);
        }
    }
}
