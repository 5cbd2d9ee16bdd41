//! The name of this server among those that share a database: new at each start, and kept in the data
//! directory, so that the next start knows whose place it takes.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// In the data directory.
const FILE: &str = "server-name";

/// A new name.
#[must_use]
pub fn new() -> String {
    let random = crate::clock::random::<8>();
    format!("{:016x}", u64::from_be_bytes(random))
}

/// The kept name, with the number that the file system gave its file: a directory that was copied says
/// nothing of the server that it is a copy of, which may well be alive.
pub struct Kept {
    path: PathBuf,
    number: u64,
    /// The server of the run before.
    pub earlier: Option<String>,
}

impl Kept {
    /// Reads it. Only whoever holds the data directory may believe it.
    ///
    /// # Errors
    /// When the file can neither be read nor made.
    pub fn read(data: &Path) -> Result<Self> {
        let path = data.join(FILE);
        let name = || format!("cannot use {}", path.display());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(name)?;
        let number = file.metadata().with_context(name)?.ino();
        let text = fs::read_to_string(&path).with_context(name)?;
        let earlier = match text.split_whitespace().collect::<Vec<_>>()[..] {
            [earlier, of] if of == number.to_string() => Some(earlier.to_owned()),
            _ => None,
        };
        Ok(Self {
            path,
            number,
            earlier,
        })
    }

    /// Keeps a name in its place.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, name: &str) -> Result<()> {
        fs::write(&self.path, format!("{name} {}\n", self.number))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_again_where_it_was_kept_and_not_in_a_copy() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Kept::read(dir.path()).unwrap();
        assert_eq!(first.earlier, None);
        let name = new();
        first.write("before").unwrap();
        first.write(&name).unwrap();
        assert_eq!(Kept::read(dir.path()).unwrap().earlier, Some(name));
        fs::copy(dir.path().join(FILE), other.path().join(FILE)).unwrap();
        assert_eq!(Kept::read(other.path()).unwrap().earlier, None);
    }
}
