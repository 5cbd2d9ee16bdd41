//! What is kept beside the containers: whose they are, and how far their output was read.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::Context as _;
use lazyfox_core::id::WorkerId;
use serde::{Deserialize, Serialize};

/// Letters of a server's id: as many as no two servers of one engine will share.
const ID_LETTERS: usize = 20;

/// How far the output of a worker was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The second of the epoch in which the last piece was written.
    pub(super) second: i64,
    /// Pieces of that second that were read.
    pub(super) pieces: u64,
    /// The last lines, for the report of the worker's end.
    pub(super) last_lines: Vec<String>,
}

/// `containers` in the data directory.
pub(super) struct Home {
    dir: PathBuf,
}

impl Home {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The id of this data directory, by which its containers are known; `None` when it never had any.
    pub(super) fn server(&self) -> anyhow::Result<Option<String>> {
        let path = self.dir.join("server-id");
        let context = || format!("cannot read {}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) => {
                let id = text.trim();
                let is_sound =
                    id.len() == ID_LETTERS && id.bytes().all(|b| b.is_ascii_alphanumeric());
                anyhow::ensure!(
                    is_sound,
                    "{} is damaged: it should hold {ID_LETTERS} letters and digits, the label \
                     dev.lazyfox.server of this server's containers",
                    path.display()
                );
                Ok(Some(id.to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(context),
        }
    }

    /// Gives this data directory an id. On disk before the first container has it as a label, or a
    /// power loss would leave one that nobody knows.
    pub(super) fn make_server(&self) -> io::Result<String> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(self.marks())?;
        let id = crate::clock::random_name::<ID_LETTERS>();
        let unfinished = self.dir.join("server-id.new");
        let mut file = private().open(&unfinished)?;
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        fs::rename(unfinished, self.dir.join("server-id"))?;
        fs::File::open(&self.dir)?.sync_all()?;
        Ok(id)
    }

    /// How far a worker's output was read; from nothing when that is not known.
    pub(super) fn mark(&self, worker: &WorkerId) -> Mark {
        let read = fs::read(self.marks().join(worker.as_str()));
        let mark = read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        mark.unwrap_or_default()
    }

    /// Writes down how far a worker's output was read. Whole or not at all, but not synced: after a
    /// power loss no worker goes on.
    pub(super) fn set_mark(&self, worker: &WorkerId, mark: &Mark) -> io::Result<()> {
        let path = self.marks().join(worker.as_str());
        // No worker's name has a dot.
        let unfinished = path.with_extension("new");
        // What workers write may hold inputs of jobs.
        private()
            .open(&unfinished)?
            .write_all(&serde_json::to_vec(mark)?)?;
        fs::rename(unfinished, path)
    }

    /// Forgets a worker that is gone.
    pub(super) fn forget(&self, worker: &WorkerId) {
        let path = self.marks().join(worker.as_str());
        for path in [path.with_extension("new"), path] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a file of a worker was left");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Forgets all workers but these.
    pub(super) fn keep_only(&self, known: impl Fn(&WorkerId) -> bool) {
        for entry in self.marks().read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let worker = name.strip_suffix(".new").unwrap_or(&name).parse();
            if let Ok(worker) = worker
                && !known(&worker)
            {
                self.forget(&worker);
            }
        }
    }

    fn marks(&self) -> PathBuf {
        self.dir.join("read")
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("containers"));
        (dir, home)
    }

    #[test]
    fn a_directory_keeps_its_id_and_a_damaged_one_is_an_error() {
        let (_dir, home) = home();
        assert_eq!(home.server().unwrap(), None);
        let id = home.make_server().unwrap();
        assert_eq!(home.server().unwrap(), Some(id));
        fs::write(home.dir.join("server-id"), "x").unwrap();
        let why = home.server().unwrap_err().to_string();
        assert!(why.contains("server-id is damaged"), "{why}");
    }

    #[test]
    fn marks_are_kept_until_the_worker_is_gone() {
        let (_dir, home) = home();
        home.make_server().unwrap();
        let [one, two] = ["one", "two"].map(|name| name.parse::<WorkerId>().unwrap());
        assert_eq!(home.mark(&one), Mark::default());
        let mark = Mark {
            second: 5,
            pieces: 2,
            last_lines: vec!["last".to_owned()],
        };
        home.set_mark(&one, &mark).unwrap();
        home.set_mark(&two, &mark).unwrap();
        assert_eq!(home.mark(&one), mark);
        home.keep_only(|worker| *worker == one);
        assert_eq!(home.mark(&one), mark);
        assert_eq!(home.mark(&two), Mark::default());
        home.forget(&one);
        assert_eq!(home.marks().read_dir().unwrap().count(), 0);
    }
}
