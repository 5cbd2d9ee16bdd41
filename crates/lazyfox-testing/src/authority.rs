//! A certificate authority that nobody knows, for servers on loopback.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// What a server on loopback is called.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A certificate authority. One that signed nothing is what a client must not fall for.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a server shows, and the key that proves it, both as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// Makes a new one, unlike all others.
    #[expect(
        clippy::new_without_default,
        reason = "each is a different one, which a default is not"
    )]
    #[must_use]
    pub fn new() -> Self {
        Self::make().unwrap_or_else(|error| panic!("cannot make an authority: {error:#}"))
    }

    /// Its own certificate: what a client that trusts it has to be given.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn make() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    /// Signs a new key for a server on loopback.
    pub(crate) fn sign(&self) -> Result<Identity> {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params
            .signed_by(&key, &self.0)
            .context("cannot sign the certificate of a server")?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
