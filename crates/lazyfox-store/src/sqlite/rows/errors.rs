//! What errors of SQLite mean.

use crate::StoreError;

/// A rule of the tables, such as that an id is there once.
pub(super) fn is_refusal(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(
        e.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

/// Errors of a running store. What cannot be read back stays the operator's to repair; everything
/// else may pass.
pub(super) fn unavailable(e: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    match e.sqlite_error_code() {
        // Not SQLite's: a row is missing, or is not of the form that is read.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt(e.to_string())
        }
        Some(ErrorCode::DiskFull) => StoreError::Unavailable(format!("{e} (the disk is full)")),
        Some(_) => StoreError::Unavailable(e.to_string()),
    }
}
