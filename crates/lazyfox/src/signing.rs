//! What deliveries are signed with: each endpoint's secret, and for a while the one before it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Store, StoreError, WebhookSecret};

use crate::clock;
use crate::secrets::ServerKey;
use crate::webhooks::signature::{self, SECRET_BYTES};

/// How long what was read is good: another server may have made a new secret.
const FRESH_MS: u64 = 2_000;

/// The secrets of all endpoints, as read a moment ago.
#[derive(Default)]
pub struct Signing {
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    endpoints: HashMap<EndpointId, Reading>,
    /// How many secrets were made: what was read before the latest is worth nothing.
    made: u64,
}

#[derive(Clone)]
struct Reading {
    at: Timestamp,
    secrets: Vec<Secret>,
}

/// A secret in the clear.
#[derive(Clone)]
pub struct Secret {
    bytes: Vec<u8>,
    valid_until: Option<Timestamp>,
}

impl Secret {
    /// As the signature needs it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A secret that has just been made. Its text is shown once.
pub struct Made {
    /// For the receiver.
    pub text: String,
    /// Its name.
    pub id: String,
    /// Until when the one before it is valid, if there was one.
    pub previous_until: Option<Timestamp>,
}

/// Why there is nothing to sign with.
#[derive(Debug)]
pub enum NoSecret {
    /// The store cannot answer.
    Store(StoreError),
    /// What is kept was sealed with another key.
    Sealed,
}

impl From<StoreError> for NoSecret {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl Signing {
    /// The secrets that are valid now, the newest first.
    ///
    /// # Errors
    /// When the store cannot answer, or the secrets cannot be opened.
    pub async fn secrets(
        &self,
        store: &dyn Store,
        key: &ServerKey,
        endpoint: &EndpointId,
        now: Timestamp,
    ) -> Result<Vec<Secret>, NoSecret> {
        let mut secrets = match self.known(endpoint, now) {
            Some(secrets) => secrets,
            None => self.read(store, key, endpoint, now).await?,
        };
        secrets.retain(|secret| secret.valid_until.is_none_or(|until| until > now));
        if secrets.is_empty() {
            return Err(NoSecret::Sealed);
        }
        Ok(secrets)
    }

    fn known(&self, endpoint: &EndpointId, now: Timestamp) -> Option<Vec<Secret>> {
        let read = self.lock();
        let reading = read.endpoints.get(endpoint)?;
        // A clock that was set back says nothing about how old the reading is.
        let fresh = now >= reading.at && now.ms_since(reading.at) < FRESH_MS;
        fresh.then(|| reading.secrets.clone())
    }

    async fn read(
        &self,
        store: &dyn Store,
        key: &ServerKey,
        endpoint: &EndpointId,
        now: Timestamp,
    ) -> Result<Vec<Secret>, StoreError> {
        let made = self.lock().made;
        let kept = store.webhook_secrets(endpoint).await?.into_iter();
        let secrets: Vec<Secret> = kept
            .filter_map(|kept| {
                let bytes = key.open_webhook_secret(endpoint, &kept.sealed)?;
                Some(Secret {
                    bytes,
                    valid_until: kept.valid_until,
                })
            })
            .collect();
        let reading = Reading {
            at: now,
            secrets: secrets.clone(),
        };
        let mut read = self.lock();
        if read.made == made {
            read.endpoints.insert(endpoint.clone(), reading);
        }
        Ok(secrets)
    }

    /// Makes a new secret. The one before it stays valid for `overlap_ms`, if it still is.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn make(
        &self,
        store: &dyn Store,
        key: &ServerKey,
        endpoint: &EndpointId,
        overlap_ms: u64,
        now: Timestamp,
    ) -> Result<Made, StoreError> {
        let had_one = !store.webhook_secrets(endpoint).await?.is_empty();
        let bytes: [u8; SECRET_BYTES] = clock::random();
        let id = format!("whs_{}", clock::random_name::<8>());
        let secret = WebhookSecret {
            id: id.clone(),
            sealed: key.seal_webhook_secret(endpoint, &bytes),
            created_at: now,
            valid_until: None,
        };
        let previous_until = now.plus_ms(overlap_ms);
        store
            .add_webhook_secret(endpoint, secret, previous_until)
            .await?;
        let mut read = self.lock();
        read.made += 1;
        read.endpoints.remove(endpoint);
        drop(read);
        Ok(Made {
            text: signature::readable(&bytes),
            id,
            previous_until: had_one.then_some(previous_until),
        })
    }

    /// Makes a secret for an endpoint that has none, so that every delivery is signed. Nobody gets to see
    /// it; the first one that somebody asks for takes its place.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn make_first(
        &self,
        store: &dyn Store,
        key: &ServerKey,
        endpoint: &EndpointId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let kept = store.webhook_secrets(endpoint).await?;
        let Some(newest) = kept.first() else {
            self.make(store, key, endpoint, 0, now).await?;
            return Ok(());
        };
        if key.open_webhook_secret(endpoint, &newest.sealed).is_none() {
            tracing::error!(
                endpoint.id = %endpoint,
                "the webhook secret cannot be opened: server.key is another one than it was sealed with. \
                 Restore that file, or make a new secret with `lazyfox webhook-secret`; until then \
                 webhooks of this endpoint fail"
            );
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
