//! Names of things: parsed once at the edge, valid ever after.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// First path segments under `/v2/` that management calls use; an endpoint of that name could not
/// be told from them.
pub const RESERVED_ENDPOINTS: [&str; 12] = [
    "serverless",
    "templates",
    "pods",
    "catalog",
    "registries",
    "network-volumes",
    "global-volumes",
    "billing",
    "account",
    "clusters",
    "flash",
    "openapi.json",
];

/// Longest name of an endpoint or worker, in bytes: they travel in URLs, log lines and file names.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadId {
    /// Empty, too long, or with characters that would need escaping in a URL.
    Shape,
    /// One of [`RESERVED_ENDPOINTS`].
    Reserved,
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape => write!(
                f,
                "must be 1 to {NAME_BYTES_MAX} characters of A-Z, a-z, 0-9, '-' and '_'"
            ),
            Self::Reserved => write!(f, "is reserved for the management API"),
        }
    }
}

impl std::error::Error for BadId {}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $refuse:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as it stands in URLs.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let refuse: fn(&str) -> bool = $refuse;
                if refuse(text) {
                    return Err(BadId::Reserved);
                }
                if !is_name(text) {
                    return Err(BadId::Shape);
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A named queue and the settings of the workers behind it.
    EndpointId,
    |text| RESERVED_ENDPOINTS.contains(&text)
);

name!(
    /// One worker from its start to its end. Never used twice: the worker's URLs carry nothing but
    /// this and the job, so a second start under the same id could speak for the first.
    WorkerId,
    |_| false
);

/// A job: a UUID (version 7, so that ids sort by time), with the prefix `sync-` when it came
/// through `/runsync`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    uuid: [u8; 16],
    sync: bool,
}

impl JobId {
    /// Makes a version 7 UUID of the time and sixteen random bytes.
    #[must_use]
    pub fn new(now: crate::time::Timestamp, random: [u8; 16], sync: bool) -> Self {
        let mut uuid = random;
        let ms = now.as_ms().max(0).to_be_bytes();
        // A timestamp has 48 bits in a UUID, which lasts until the year 10889.
        uuid[..6].copy_from_slice(&ms[2..]);
        uuid[6] = 0x70 | (uuid[6] & 0x0f);
        uuid[8] = 0x80 | (uuid[8] & 0x3f);
        Self { uuid, sync }
    }

    /// Whether the job came through `/runsync`.
    #[must_use]
    pub const fn is_sync(&self) -> bool {
        self.sync
    }

    /// Seventeen bytes for a store: the UUID, then 1 for a sync job, else 0.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..16].copy_from_slice(&self.uuid);
        bytes[16] = u8::from(self.sync);
        bytes
    }

    /// The reverse of [`JobId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&sync, uuid) = bytes.split_last()?;
        let uuid = uuid.try_into().ok()?;
        (sync < 2).then_some(Self {
            uuid,
            sync: sync == 1,
        })
    }
}

/// The text is not the id of any job this server could have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAJobId;

const SYNC_PREFIX: &str = "sync-";
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl FromStr for JobId {
    type Err = NotAJobId;

    #[expect(
        clippy::indexing_slicing,
        reason = "36 characters without 4 hyphens are 32 digits, two for each of 16 bytes"
    )]
    fn from_str(text: &str) -> Result<Self, NotAJobId> {
        let (sync, hex) = match text.strip_prefix(SYNC_PREFIX) {
            Some(rest) => (true, rest.as_bytes()),
            None => (false, text.as_bytes()),
        };
        if hex.len() != 36 {
            return Err(NotAJobId);
        }
        let mut uuid = [0_u8; 16];
        let mut digits = 0;
        for (at, &byte) in hex.iter().enumerate() {
            if HYPHENS.contains(&at) {
                if byte != b'-' {
                    return Err(NotAJobId);
                }
                continue;
            }
            // Upper case is refused: two spellings of one job would be two keys in a log search.
            let nibble = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return Err(NotAJobId),
            };
            uuid[digits / 2] = (uuid[digits / 2] << 4) | nibble;
            digits += 1;
        }
        Ok(Self { uuid, sync })
    }
}

impl fmt::Display for JobId {
    #[expect(
        clippy::indexing_slicing,
        reason = "16 bytes of two digits and 4 hyphens are 36 characters; a nibble is below 16"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for byte in self.uuid {
            if HYPHENS.contains(&at) {
                at += 1;
            }
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 0x0f)];
            at += 2;
        }
        if self.sync {
            f.write_str(SYNC_PREFIX)?;
        }
        f.write_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One webhook to be delivered: which job's, and the how manieth of it, counted from 1. The same over all
/// tries, so that a receiver can drop what it has already; no store that is made anew repeats one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// Whose end it reports.
    pub job: JobId,
    /// Which of the job's deliveries: each end of a job that was retried has its own.
    pub number: u32,
}

/// The text is not the id of any delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADeliveryId;

impl FromStr for DeliveryId {
    type Err = NotADeliveryId;

    fn from_str(text: &str) -> Result<Self, NotADeliveryId> {
        let (job, digits) = text.rsplit_once('_').ok_or(NotADeliveryId)?;
        let number: u32 = digits.parse().map_err(|_| NotADeliveryId)?;
        // One spelling for each: no leading zeros, no plus sign.
        if number == 0 || digits != number.to_string() {
            return Err(NotADeliveryId);
        }
        let job = job.parse().map_err(|_| NotADeliveryId)?;
        Ok(Self { job, number })
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.job, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn job_ids_print_and_parse_back() {
        for sync in [false, true] {
            let id = JobId::new(Timestamp::from_ms(1_795_456_789_012), [0xab; 16], sync);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(JobId::from_bytes(&id.to_bytes()), Some(id));
        }
        let id = JobId::new(Timestamp::from_ms(0x0123_4567_89ab), [0xff; 16], true);
        assert_eq!(id.to_string(), "sync-01234567-89ab-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn job_ids_sort_by_time() {
        let earlier = JobId::new(Timestamp::from_ms(1_000), [0xff; 16], false);
        let later = JobId::new(Timestamp::from_ms(1_001), [0x00; 16], false);
        assert!(earlier < later);
    }

    #[test]
    fn texts_that_are_no_job_ids() {
        for text in [
            "",
            "sync-",
            "01234567-89ab-7fff-bfff-fffffffffff",
            "01234567-89ab-7fff-bfff-fffffffffffff",
            "01234567-89ab-7fff-bfff-fffffffffffg",
            "01234567-89AB-7fff-bfff-ffffffffffff",
            "01234567089ab-7fff-bfff-ffffffffffff",
            "sync-sync-01234567-89ab-7fff-bfff-ffffffffffff",
        ] {
            assert_eq!(text.parse::<JobId>(), Err(NotAJobId), "{text}");
        }
    }

    #[test]
    fn delivery_ids_print_and_parse_back() {
        let job = JobId::new(Timestamp::from_ms(1_795_456_789_012), [7; 16], true);
        let id = DeliveryId { job, number: 12 };
        assert_eq!(id.to_string(), format!("{job}_12"));
        assert_eq!(id.to_string().parse(), Ok(id));
        for number in ["", "0", "01", "+1", "-1", "1_1", "4294967296"] {
            let text = format!("{job}_{number}");
            assert_eq!(text.parse::<DeliveryId>(), Err(NotADeliveryId), "{text}");
        }
        assert_eq!("_1".parse::<DeliveryId>(), Err(NotADeliveryId));
    }

    #[test]
    fn endpoint_names() {
        assert!("my_endpoint-1".parse::<EndpointId>().is_ok());
        assert_eq!("serverless".parse::<EndpointId>(), Err(BadId::Reserved));
        assert_eq!("openapi.json".parse::<EndpointId>(), Err(BadId::Reserved));
        for bad in ["", "a b", "a/b", "ü", &"a".repeat(65)] {
            assert_eq!(bad.parse::<EndpointId>(), Err(BadId::Shape), "{bad}");
        }
    }
}
