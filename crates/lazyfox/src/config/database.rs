//! Where the database is that several servers share.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lazyfox_store::postgres::{Access, Trust};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The variable with the password, where it is in no file.
const PASSWORD: &str = "LAZYFOX_DATABASE_PASSWORD";

/// How to reach it. Files are read when it is opened, and not when the configuration is.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// May hold a password, so it is never shown.
    url: String,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    connections: usize,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("password_file", &self.password_file)
            .field("ca_file", &self.ca_file)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// What a configuration says of it; relative paths are relative to `base`. Its URL may come from
    /// elsewhere.
    pub(super) fn configured(
        base: &Path,
        url: Option<String>,
        password_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
        connections: usize,
    ) -> Self {
        let file = |path: Option<PathBuf>| {
            let path = path.filter(|path| !path.as_os_str().is_empty());
            path.map(|path| base.join(path))
        };
        Self {
            url: url.unwrap_or_default(),
            password_file: file(password_file),
            ca_file: file(ca_file),
            connections,
        }
    }

    /// Whether there is one.
    pub(super) fn is_named(&self) -> bool {
        !self.url.is_empty()
    }

    /// A database with nothing but its URL.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            password_file: None,
            ca_file: None,
            connections: 16,
        }
    }

    /// The same with another URL.
    #[must_use]
    pub fn moved(self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self
        }
    }

    /// How to reach it, with all that stands in files.
    ///
    /// # Errors
    /// When one of them cannot be read, or the URL is none.
    pub fn access(&self) -> Result<Access> {
        let password = match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("server.database_password_file {}", path.display()))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => std::env::var(PASSWORD).ok().filter(|it| !it.is_empty()),
        };
        let trust = match &self.ca_file {
            Some(path) => Trust::Roots(certificates(path)?),
            None => Trust::System,
        };
        Ok(Access::parse(&self.url, password, trust, self.connections)?)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let name = || format!("server.database_ca_file {}", path.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .with_context(name)?
        .collect::<Result<_, _>>()
        .with_context(name)?;
    anyhow::ensure!(!certificates.is_empty(), "{} has no certificate", name());
    Ok(certificates)
}
