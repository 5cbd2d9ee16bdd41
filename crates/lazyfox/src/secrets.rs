//! The server's own secret and what is made of it: sealed `s3Config`s and webhook secrets, and workers'
//! tokens.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hmac::{Hmac, Mac as _};
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use sha2::{Digest as _, Sha256};

use crate::clock;

/// The file within the data directory.
pub const KEY_FILE: &str = "server.key";

const NONCE_BYTES: usize = 12;

/// What only this server knows. Backups of the data directory must hold it: without it, sealed
/// `s3Config`s and webhook secrets are lost and workers that outlived the server are strangers.
#[derive(Clone)]
pub struct ServerKey {
    s3_configs: Key,
    webhook_secrets: Key,
    tokens: [u8; 32],
    /// By what others know it.
    hash: [u8; 32],
}

impl ServerKey {
    /// Reads the key in a file, making one when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is not a key.
    pub fn load(path: &Path) -> Result<Self> {
        let made = || -> std::io::Result<()> {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&clock::random::<32>())?;
            file.sync_all()
        };
        match made() {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                return Err(e).with_context(|| format!("cannot make the key {}", path.display()));
            }
        }
        let bytes =
            fs::read(path).with_context(|| format!("cannot read the key {}", path.display()))?;
        let secret: [u8; 32] = bytes.try_into().map_err(|_| {
            anyhow!(
                "{} is not a key of 32 bytes; restore it from a backup",
                path.display()
            )
        })?;
        Ok(Self::from_secret(secret))
    }

    /// A key that is gone with the process.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::from_secret(clock::random())
    }

    fn from_secret(secret: [u8; 32]) -> Self {
        let derived = |purpose: &str| -> [u8; 32] {
            Sha256::new()
                .chain_update(secret)
                .chain_update(purpose)
                .finalize()
                .into()
        };
        Self {
            s3_configs: Key::from(derived("s3Config")),
            webhook_secrets: Key::from(derived("webhook secrets")),
            tokens: derived("worker tokens"),
            hash: derived("the name of the key"),
        }
    }

    /// What tells it from other keys, and tells nothing of it.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Encrypts a job's credentials. They can only be opened as this job's.
    #[must_use]
    pub fn seal(&self, job: JobId, secret: &[u8]) -> Vec<u8> {
        seal(&self.s3_configs, &job.to_bytes(), secret)
    }

    /// Decrypts what [`ServerKey::seal`] made; `None` when it was made with another key.
    #[must_use]
    pub fn open(&self, job: JobId, sealed: &[u8]) -> Option<Vec<u8>> {
        open(&self.s3_configs, &job.to_bytes(), sealed)
    }

    /// Encrypts a webhook secret. It can only be opened as this endpoint's.
    #[must_use]
    pub fn seal_webhook_secret(&self, endpoint: &EndpointId, secret: &[u8]) -> Vec<u8> {
        seal(&self.webhook_secrets, endpoint.as_str().as_bytes(), secret)
    }

    /// Decrypts what [`ServerKey::seal_webhook_secret`] made; `None` when it was made with another key.
    #[must_use]
    pub fn open_webhook_secret(&self, endpoint: &EndpointId, sealed: &[u8]) -> Option<Vec<u8>> {
        open(&self.webhook_secrets, endpoint.as_str().as_bytes(), sealed)
    }

    /// The token of a worker: it takes and reports jobs of its endpoint under its own name, nothing
    /// else. It is computed, not kept, so it outlives a restart of the server.
    #[must_use]
    pub fn worker_token(&self, endpoint: &EndpointId, worker: &WorkerId) -> String {
        let tag = self.mac(endpoint, worker).finalize().into_bytes();
        let hex: String = tag
            .iter()
            .take(20)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("lfw_{hex}")
    }

    /// Whether this is the worker's token; takes as long for a wrong one as for the right one.
    #[must_use]
    pub fn is_worker_token(&self, endpoint: &EndpointId, worker: &WorkerId, token: &str) -> bool {
        let Some(hex) = token.strip_prefix("lfw_") else {
            return false;
        };
        let Some(tag) = unhex(hex) else { return false };
        tag.len() == 20
            && self
                .mac(endpoint, worker)
                .verify_truncated_left(&tag)
                .is_ok()
    }

    fn mac(&self, endpoint: &EndpointId, worker: &WorkerId) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.tokens);
        // A name has no slash, so the pair cannot be read in two ways.
        mac.expect("any length of key will do")
            .chain_update(format!("{endpoint}/{worker}"))
    }
}

fn seal(key: &Key, owner: &[u8], secret: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_BYTES] = clock::random();
    let payload = Payload {
        msg: secret,
        aad: owner,
    };
    let sealed = ChaCha20Poly1305::new(key)
        .encrypt(&Nonce::from(nonce), payload)
        .expect("a short message can always be encrypted");
    [&nonce[..], &sealed].concat()
}

fn open(key: &Key, owner: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    let payload = Payload {
        msg: sealed,
        aad: owner,
    };
    ChaCha20Poly1305::new(key)
        .decrypt(&Nonce::from(nonce), payload)
        .ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// SHA-256: how API keys are kept.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazyfox_core::time::Timestamp;

    fn job(n: u8) -> JobId {
        JobId::new(Timestamp::from_ms(1), [n; 16], false)
    }

    #[test]
    fn sealed_secrets_open_only_for_their_job_and_their_server() {
        let key = ServerKey::ephemeral();
        let sealed = key.seal(job(1), b"accessSecret");
        assert!(!sealed.windows(6).any(|window| window == b"Secret"));
        assert_eq!(
            key.open(job(1), &sealed).as_deref(),
            Some(&b"accessSecret"[..])
        );
        assert_eq!(key.open(job(2), &sealed), None);
        assert_eq!(ServerKey::ephemeral().open(job(1), &sealed), None);
        assert_eq!(key.open(job(1), b"short"), None);
    }

    #[test]
    fn webhook_secrets_open_only_for_their_endpoint() {
        let key = ServerKey::ephemeral();
        let [a, b]: [EndpointId; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let sealed = key.seal_webhook_secret(&a, b"secret");
        assert_eq!(
            key.open_webhook_secret(&a, &sealed).as_deref(),
            Some(&b"secret"[..])
        );
        assert_eq!(key.open_webhook_secret(&b, &sealed), None);
        // One kind of secret cannot be passed off as the other.
        assert_eq!(key.open(job(1), &key.seal_webhook_secret(&a, b"x")), None);
    }

    #[test]
    fn a_token_is_good_for_one_worker_of_one_endpoint() {
        let key = ServerKey::ephemeral();
        let id = |name: &str| name.parse().unwrap();
        let token = key.worker_token(&id("ep"), &"w1".parse().unwrap());
        assert!(key.is_worker_token(&id("ep"), &"w1".parse().unwrap(), &token));
        assert!(!key.is_worker_token(&id("ep"), &"w2".parse().unwrap(), &token));
        assert!(!key.is_worker_token(&id("other"), &"w1".parse().unwrap(), &token));
        for wrong in ["", "lfw_", "lfw_zz", &token[..20], "lfw_é"] {
            assert!(
                !key.is_worker_token(&id("ep"), &"w1".parse().unwrap(), wrong),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_key_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let sealed = ServerKey::load(&dir.path().join(KEY_FILE))
            .unwrap()
            .seal(job(1), b"x");
        assert!(
            ServerKey::load(&dir.path().join(KEY_FILE))
                .unwrap()
                .open(job(1), &sealed)
                .is_some()
        );
        let mode = fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(dir.path().join(KEY_FILE), b"short").unwrap();
        assert!(ServerKey::load(&dir.path().join(KEY_FILE)).is_err());
    }
}
