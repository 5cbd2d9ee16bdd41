//! Who is in charge of a directory of workers: one server, or the guard while it ends what is left there.
//!
//! It is not the lock of the store. Some stores have none; and the guard has to take this one now and
//! then, for which no server may be refused: so a server waits for it.

use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Not the name of a worker.
const FILE: &str = ".lock";

/// How long a server waits: far longer than the guard needs to end the workers of one directory.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long between two tries.
const AGAIN: Duration = Duration::from_millis(20);

/// Being in charge, until it is dropped. The kernel takes it back when the process ends, however that is.
pub(crate) struct Hold(File);

impl Hold {
    /// Waits until nobody else is in charge of this directory, which must exist.
    ///
    /// # Errors
    /// When somebody stays.
    pub(crate) async fn take(dir: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot lock the directory of workers {}", dir.display());
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                match Self::try_take(dir) {
                    Ok(None) => tokio::time::sleep(AGAIN).await,
                    Ok(Some(hold)) => return Ok(hold),
                    Err(error) => return Err(error),
                }
            }
        });
        if let Ok(taken) = taken.await {
            return taken.with_context(context);
        }
        let pid = std::fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        bail!(
            "cannot use the directory of workers {}: the process {} does; stop it first, or choose \
             another data directory (--data)",
            dir.display(),
            pid.trim()
        )
    }

    /// Takes charge if nobody else is.
    pub(crate) fn try_take(dir: &Path) -> io::Result<Option<Self>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(FILE))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut hold = Self(file);
        // Only for people; a failure to note it hurts nobody.
        let _ = hold.note_pid();
        Ok(Some(hold))
    }

    fn note_pid(&mut self) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        write!(self.0, "{}", std::process::id())
    }
}

impl Drop for Hold {
    /// Closing the file is not enough: a process that is just being started from another thread has a
    /// copy of it until it runs its program, and the lock would stay as long.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_waits_for_who_is_there_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let first = Hold::take(dir.path()).await.unwrap();
        assert!(Hold::try_take(dir.path()).unwrap().is_none());
        let error = Hold::take(dir.path()).await.err().unwrap().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");

        let path = dir.path().to_owned();
        let second = tokio::spawn(async move { Hold::take(&path).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        let _second = second.await.unwrap().unwrap();
    }
}
