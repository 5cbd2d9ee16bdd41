//! What a data directory holds, given away or filled in as a whole.

use std::path::{Path, PathBuf};

use super::files::{self, Held};
use super::rows::SqlRows;
use crate::StoreError;
use crate::moving::{Carrier, Record, refusal};

/// All that a data directory holds, while no server uses it.
pub struct Holdings {
    rows: SqlRows,
    dir: PathBuf,
    /// Last: the lock is let go when the database is closed.
    _held: Held,
}

impl Holdings {
    /// Opens the store of a data directory that no server uses, making both when they are missing, and brings
    /// it to the present format.
    ///
    /// # Errors
    /// As [`super::SqliteStore::open`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let held = files::hold(dir)?;
        Ok(Self {
            rows: SqlRows::new(files::connect(dir)?),
            dir: dir.to_path_buf(),
            _held: held,
        })
    }

    /// Gives every record.
    ///
    /// # Errors
    /// The first one of `each`; or when something cannot be read.
    pub fn each<E: From<StoreError>>(
        &mut self,
        each: &mut dyn FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        self.rows.each_record(each)
    }

    /// Fills an empty store in one transaction.
    ///
    /// # Errors
    /// The first one of the carrier; when the store is not empty, or cannot be written. Nothing is kept then.
    pub fn fill<E: From<StoreError>>(mut self, carrier: &mut dyn Carrier<E>) -> Result<(), E> {
        let filled = self.write(carrier);
        if filled.is_err() {
            self.rows.rollback();
        }
        self.rows.close();
        filled
    }

    fn write<E: From<StoreError>>(&mut self, carrier: &mut dyn Carrier<E>) -> Result<(), E> {
        let place = format!("in {}", self.dir.display());
        if let Some(refusal) = refusal(&place, &self.rows.contents()?) {
            return Err(refusal.into());
        }
        while let Some(record) = carrier.next()? {
            self.rows.keep_record(record)?;
        }
        self.rows
            .each_record(&mut |record| carrier.read_back(record))?;
        carrier.confirm()?;
        Ok(self.rows.commit()?)
    }
}
