//! Signatures as the Standard Webhooks specification has them, so that receivers can use its libraries:
//! `v1,` and the HMAC-SHA-256 of `id.timestamp.body`, one for each valid secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::time::Timestamp;
use sha2::Sha256;

/// What a secret begins with in its readable form.
const PREFIX: &str = "whsec_";
/// Bytes of a secret: within the 24 to 64 that the specification asks for.
pub const SECRET_BYTES: usize = 32;

/// The headers that a delivery is known and verified by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`: when this try was made, in seconds.
    pub timestamp: String,
    /// `webhook-signature`.
    pub signature: String,
}

/// Signs a try with every secret that is valid.
#[must_use]
pub fn sign<'a>(
    secrets: impl IntoIterator<Item = &'a [u8]>,
    id: DeliveryId,
    at: Timestamp,
    body: &[u8],
) -> Signed {
    let id = id.to_string();
    let timestamp = (at.as_ms() / 1000).to_string();
    let signatures: Vec<String> = secrets
        .into_iter()
        .map(|secret| {
            let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length of key will do");
            let mac = mac
                .chain_update(&id)
                .chain_update(".")
                .chain_update(&timestamp)
                .chain_update(".")
                .chain_update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    Signed {
        id,
        timestamp,
        signature: signatures.join(" "),
    }
}

/// A secret as it is shown to people.
#[must_use]
pub fn readable(secret: &[u8]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01a209c0-6bd5-7a48-a50f-f634b7d514ae_1";

    fn signed(secrets: &[&[u8]], body: &[u8]) -> Signed {
        let at = Timestamp::from_ms(1_614_265_330_999);
        sign(secrets.iter().copied(), ID.parse().unwrap(), at, body)
    }

    /// The public library signs the same way, and its own test's vector has another form of id.
    #[test]
    fn signatures_are_those_of_the_public_library() {
        for (secret, body) in [
            (vec![7; 32], r#"{"test": 2432232314}"#),
            (vec![0; 24], ""),
            ((0..64).collect(), "{\"output\":\"ünïcode \u{1f98a}\"}"),
        ] {
            let theirs = standardwebhooks::Webhook::new(&readable(&secret)).unwrap();
            let ours = signed(&[&secret], body.as_bytes());
            let expected = theirs.sign(ID, 1_614_265_330, body.as_bytes()).unwrap();
            assert_eq!(ours.signature, expected);
            assert_eq!(
                (ours.id.as_str(), ours.timestamp.as_str()),
                (ID, "1614265330")
            );
        }
    }

    /// As docs/webhooks.md shows it. The library takes the time from the machine.
    #[test]
    fn the_public_library_verifies_a_delivery_with_either_secret() {
        let (old, new, body) = ([1; 32], [2; 32], br#"{"status":"COMPLETED"}"#);
        let now = crate::clock::Clock::system().now();
        let signed = sign([&new[..], &old[..]], ID.parse().unwrap(), now, body);
        let mut headers = axum::http::HeaderMap::new();
        headers.insert("webhook-id", signed.id.parse().unwrap());
        headers.insert("webhook-timestamp", signed.timestamp.parse().unwrap());
        headers.insert("webhook-signature", signed.signature.parse().unwrap());
        for secret in [old, new] {
            let webhook = standardwebhooks::Webhook::new(&readable(&secret)).unwrap();
            webhook.verify(body, &headers).unwrap();
            webhook.verify(b"{}", &headers).unwrap_err();
        }
        let webhook = standardwebhooks::Webhook::new(&readable(&[3; 32])).unwrap();
        webhook.verify(body, &headers).unwrap_err();
    }

    #[test]
    fn two_secrets_make_two_signatures() {
        let both = signed(&[&[1; 32], &[2; 32]], b"{}").signature;
        let (one, other) = (signed(&[&[1; 32]], b"{}"), signed(&[&[2; 32]], b"{}"));
        assert_eq!(both, format!("{} {}", one.signature, other.signature));
    }
}
