//! Who is calling: API keys, looked up by their hash.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Access, Key, Store, StoreError};

use crate::{clock, secrets};

/// How long a revoked key may still work: `lazyfox key revoke` writes beside the server.
const FRESH_MS: u64 = 2_000;

/// What every key begins with, so that people and secret scanners recognise one.
const PREFIX: &str = "lfx_";

/// The keys of the store, as read a moment ago.
#[derive(Default)]
pub struct KeyRing {
    read: Mutex<Option<Reading>>,
}

/// The valid keys by their hash, and when they were read.
struct Reading {
    at: Timestamp,
    keys: HashMap<[u8; 32], Key>,
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To look at jobs.
    Read,
    /// To submit, cancel, retry, purge.
    Write,
    /// To change what holds for an endpoint's other callers too.
    Admin,
}

impl KeyRing {
    /// Finds the key; `None` when there is none or it is revoked.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn find(
        &self,
        store: &dyn Store,
        text: &str,
        now: Timestamp,
    ) -> Result<Option<Key>, StoreError> {
        let hash = secrets::digest(text.as_bytes());
        if let Some(key) = self.known(&hash, now) {
            return Ok(Some(key));
        }
        // Unknown or not fresh: the store knows. A flood of wrong keys costs one small read each.
        let keys: HashMap<[u8; 32], Key> = store
            .keys()
            .await?
            .into_iter()
            .filter(|key| key.revoked_at.is_none())
            .map(|key| (key.hash, key))
            .collect();
        let found = keys.get(&hash).cloned();
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reading { at: now, keys });
        Ok(found)
    }

    fn known(&self, hash: &[u8; 32], now: Timestamp) -> Option<Key> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Reading { at, keys } = read.as_ref()?;
        // A clock that was set back says nothing about how old the reading is.
        let fresh = now >= *at && now.ms_since(*at) < FRESH_MS;
        // A hash is looked up by its value: what that takes says nothing about the key behind it.
        fresh.then(|| keys.get(hash).cloned()).flatten()
    }
}

/// Whether the key is good for this.
#[must_use]
pub fn allows(key: &Key, endpoint: &EndpointId, need: Need) -> bool {
    let here = key
        .endpoints
        .as_ref()
        .is_none_or(|names| names.contains(endpoint));
    match key.access {
        Access::Admin => true,
        Access::ReadWrite => here && need != Need::Admin,
        Access::ReadOnly => here && need == Need::Read,
    }
}

/// Makes a key: its text, which is shown once, and what is kept of it.
#[must_use]
pub fn make(
    label: &str,
    access: Access,
    endpoints: Option<Vec<EndpointId>>,
    now: Timestamp,
) -> (String, Key) {
    let text = format!("{PREFIX}{}", clock::random_name::<32>());
    let key = Key {
        id: format!("key_{}", clock::random_name::<8>()),
        label: label.to_owned(),
        hash: secrets::digest(text.as_bytes()),
        access,
        endpoints,
        created_at: now,
        revoked_at: None,
    };
    (text, key)
}
