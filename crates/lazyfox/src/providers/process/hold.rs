//! Who is in charge of a directory of workers: one server, or the guard while it ends what is left there.
//!
//! It is not the lock of the store. Some stores have none; and the guard has to take this one now and
//! then, for which no server may be refused: so a server waits for it.

use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Not the name of a worker.
const FILE: &str = ".lock";

/// How long a server waits: far longer than the guard needs to end the workers of one directory.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long between two tries.
const AGAIN: Duration = Duration::from_millis(20);

/// Being in charge of a directory of workers, until it is dropped. The kernel takes it back when the process
/// ends, however that is.
pub struct Hold {
    dir: PathBuf,
    file: File,
}

impl Hold {
    /// Waits until nobody else is in charge of this directory, which is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or somebody stays.
    pub async fn take(dir: &Path) -> anyhow::Result<Self> {
        // Workers stand elsewhere, so no path that they get may be relative.
        let absolute = std::path::absolute(dir);
        let dir = &*absolute.with_context(|| format!("cannot tell where {} is", dir.display()))?;
        // What workers write is nobody else's business, and neither is what lies beside it.
        let mut private = std::fs::DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("cannot make the directory of workers {}", dir.display()))?;
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
        let mut hold = Self {
            dir: dir.to_owned(),
            file,
        };
        // Only for people; a failure to note it hurts nobody.
        let _ = hold.note_pid();
        Ok(Some(hold))
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn note_pid(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        write!(self.file, "{}", std::process::id())
    }
}

impl Drop for Hold {
    /// Closing the file is not enough: a process that is just being started from another thread has a
    /// copy of it until it runs its program, and the lock would stay as long.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Who is in charge of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody.
    Nobody,
    /// A server, or a guard that ends what is there; its process id, once it is noted.
    Process(Option<u32>),
    /// There is no such directory, so there are no workers either.
    NoDirectory,
}

/// Looks who is in charge. It leaves nothing behind, and other looks at the same time are not mistaken
/// for a server.
pub(crate) fn holder(dir: &Path) -> io::Result<Holder> {
    let path = dir.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(match dir.try_exists()? {
                true => Holder::Nobody,
                false => Holder::NoDirectory,
            });
        }
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| Holder::Nobody),
        Err(TryLockError::WouldBlock) => {
            let pid = std::fs::read_to_string(path)?;
            Ok(Holder::Process(pid.trim().parse().ok()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_waits_for_who_is_there_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let me = Holder::Process(Some(std::process::id()));
        assert_eq!(holder(dir.path()).unwrap(), Holder::Nobody);
        let first = Hold::take(dir.path()).await.unwrap();
        assert_eq!(holder(dir.path()).unwrap(), me);
        assert!(Hold::try_take(dir.path()).unwrap().is_none());
        let error = Hold::take(dir.path()).await.err().unwrap().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");

        let path = dir.path().to_owned();
        let second = tokio::spawn(async move { Hold::take(&path).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        let _second = second.await.unwrap().unwrap();
        assert_eq!(holder(dir.path()).unwrap(), me);
    }

    #[test]
    fn looking_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()).unwrap(), Holder::Nobody);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let gone = dir.path().join("gone");
        assert_eq!(holder(&gone).unwrap(), Holder::NoDirectory);
        drop(Hold::try_take(dir.path()).unwrap());
        assert_eq!(holder(dir.path()).unwrap(), Holder::Nobody);
    }
}
