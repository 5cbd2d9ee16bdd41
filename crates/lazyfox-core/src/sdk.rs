//! What each version of the public worker SDK can bear, and our own worker. One table; every row has a test.
//!
//! The versions differ in ways that lose jobs: whether their heartbeats and their polls can be believed.
//! An unknown version gets the careful answer everywhere.

/// A version of what a worker is made with; only those of one [`Runtime`] can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

const fn v(major: u16, minor: u16, patch: u16) -> Version {
    Version {
        major,
        minor,
        patch,
    }
}

impl Version {
    /// Reads `1.12.0`; a suffix such as `rc2` is dropped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '.').map(|part| {
            let digits = part
                .split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap_or("");
            digits.parse::<u16>().ok()
        });
        let (major, minor) = (parts.next()??, parts.next()??);
        Some(Self {
            major,
            minor,
            patch: parts.next().flatten().unwrap_or(0),
        })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What a worker is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// The public Python SDK.
    Sdk(Version),
    /// `lazyfox worker`.
    Lazyfox(Version),
}

impl Runtime {
    /// Reads the user agent of a poll: `RunPod-Python-SDK/1.12.0 (Linux …)` or `lazyfox-worker/0.1.0`.
    #[must_use]
    pub fn from_user_agent(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('/')?;
        let version = Version::parse(rest.split(' ').next()?)?;
        match name {
            "RunPod-Python-SDK" => Some(Self::Sdk(version)),
            "lazyfox-worker" => Some(Self::Lazyfox(version)),
            _ => None,
        }
    }

    /// Reads `runpod_version` of a heartbeat: `1.12.0`, or `lazyfox-0.1.0` as [`Runtime`] prints itself.
    #[must_use]
    pub fn from_heartbeat(text: &str) -> Option<Self> {
        match text.strip_prefix("lazyfox-") {
            Some(version) => Version::parse(version).map(Self::Lazyfox),
            None => Version::parse(text).map(Self::Sdk),
        }
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sdk(version) => write!(f, "{version}"),
            Self::Lazyfox(version) => write!(f, "lazyfox-{version}"),
        }
    }
}

/// What a worker can be trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Its heartbeats name all jobs it works on, so one that is not named is lost. Job tracking was
    /// broken in 1.7.11 to 1.10.0, and before that heartbeats left jobs out in other ways.
    pub heartbeats_name_jobs: bool,
    /// `job_in_progress=0` on a poll proves that it works on nothing. Not so in 1.7.0 and 1.7.1
    /// (tracking broken) and in 1.7.12 to 1.10.0 (a stale job file).
    pub polls_tell_idle: bool,
    /// A list may answer a poll for one job. Until 1.7.0 it is an error, and its jobs are lost.
    pub takes_lists: bool,
    /// A list longer than what was asked for is run one job after the other, as many at once as there are
    /// slots. 2.0 comes to a standstill with it.
    pub takes_more: bool,
    /// A job that is taken while others run starts at once. From 1.7.2 to 1.9.0 it waits until one
    /// of them has ended.
    pub starts_beside_running: bool,
    /// It never takes more than it has slots for. 1.4 to 1.6.2 send a poll too many, 1.7.0 polls
    /// without a bound, 1.7.2 to 1.7.4 take a second batch.
    pub keeps_to_its_slots: bool,
    /// What says how many slots it has.
    pub slots_by: SlotsBy,
}

/// What says how many jobs a worker runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotsBy {
    /// The most jobs that it ever asked for.
    Batch,
    /// The polls that it keeps open while there is nothing: one for each slot.
    Polls,
    /// It has one, whatever its handler says.
    One,
}

impl Abilities {
    /// The row of the table for this worker.
    #[must_use]
    pub fn of(runtime: Option<Runtime>) -> Self {
        let version = match runtime {
            Some(Runtime::Sdk(version)) => version,
            // Made for this server, it has never been otherwise.
            Some(Runtime::Lazyfox(_)) => {
                return Self {
                    heartbeats_name_jobs: true,
                    polls_tell_idle: true,
                    takes_lists: true,
                    takes_more: false,
                    starts_beside_running: true,
                    keeps_to_its_slots: true,
                    slots_by: SlotsBy::Batch,
                };
            }
            None => {
                return Self {
                    heartbeats_name_jobs: false,
                    polls_tell_idle: false,
                    takes_lists: false,
                    takes_more: false,
                    starts_beside_running: true,
                    keeps_to_its_slots: true,
                    slots_by: SlotsBy::Batch,
                };
            }
        };
        let tracking_broken = (v(1, 7, 0)..=v(1, 7, 1)).contains(&version)
            || (v(1, 7, 12)..=v(1, 10, 0)).contains(&version);
        Self {
            heartbeats_name_jobs: version >= v(1, 10, 1),
            polls_tell_idle: version >= v(1, 0, 0) && !tracking_broken,
            takes_lists: version >= v(1, 7, 1),
            takes_more: (v(1, 7, 1)..v(2, 0, 0)).contains(&version),
            starts_beside_running: !(v(1, 7, 2)..=v(1, 9, 0)).contains(&version),
            keeps_to_its_slots: !(v(1, 4, 0)..=v(1, 7, 0)).contains(&version)
                && !(v(1, 7, 2)..=v(1, 7, 4)).contains(&version),
            slots_by: if version == v(1, 7, 0) {
                SlotsBy::One
            } else if version < v(1, 7, 1) {
                SlotsBy::Polls
            } else {
                SlotsBy::Batch
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_both_places() {
        let agent = "RunPod-Python-SDK/1.12.0 (Linux 6.1.0; x86_64) Language/Python 3.11.7";
        let sdk = Runtime::Sdk(v(1, 12, 0));
        assert_eq!(Runtime::from_user_agent(agent), Some(sdk));
        assert_eq!(Runtime::from_heartbeat(&sdk.to_string()), Some(sdk));
        let own = Runtime::Lazyfox(v(0, 1, 0));
        assert_eq!(Runtime::from_user_agent("lazyfox-worker/0.1.0"), Some(own));
        assert_eq!(Runtime::from_heartbeat(&own.to_string()), Some(own));
        assert_eq!(Version::parse("2.0.0rc2"), Some(v(2, 0, 0)));
        assert_eq!(Version::parse("1.7"), Some(v(1, 7, 0)));
        for unknown in ["", "one", "1", "1.x", "ureq/2.9.1", "99999999.1.1"] {
            assert_eq!(Version::parse(unknown), None, "{unknown}");
        }
        for unknown in [
            "Python/3.11 aiohttp/3.9",
            "lazyfox/0.1.0",
            "lazyfox-worker",
            "1.12.0",
        ] {
            assert_eq!(Runtime::from_user_agent(unknown), None, "{unknown}");
        }
        for unknown in ["", "lazyfox", "lazyfox-", "lazyfox-x"] {
            assert_eq!(Runtime::from_heartbeat(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_table_row_by_row() {
        let row = |text: &str| {
            let it = Abilities::of(Runtime::from_heartbeat(text));
            [
                it.heartbeats_name_jobs,
                it.polls_tell_idle,
                it.takes_lists,
                it.takes_more,
                it.starts_beside_running,
                it.keeps_to_its_slots,
                it.slots_by == SlotsBy::Batch,
            ]
            .map(u8::from)
        };
        //                       names idle lists more beside slots batch
        for (version, expected) in [
            ("unknown", [0, 0, 0, 0, 1, 1, 1]),
            ("0.9.12", [0, 0, 0, 0, 1, 1, 0]),
            ("1.3.7", [0, 1, 0, 0, 1, 1, 0]),
            ("1.4.0", [0, 1, 0, 0, 1, 0, 0]),
            ("1.6.2", [0, 1, 0, 0, 1, 0, 0]),
            ("1.7.0", [0, 0, 0, 0, 1, 0, 0]),
            ("1.7.1", [0, 0, 1, 1, 1, 1, 1]),
            ("1.7.2", [0, 1, 1, 1, 0, 0, 1]),
            ("1.7.3", [0, 1, 1, 1, 0, 0, 1]),
            ("1.7.4", [0, 1, 1, 1, 0, 0, 1]),
            ("1.7.5", [0, 1, 1, 1, 0, 1, 1]),
            ("1.7.11", [0, 1, 1, 1, 0, 1, 1]),
            ("1.7.12", [0, 0, 1, 1, 0, 1, 1]),
            ("1.7.13", [0, 0, 1, 1, 0, 1, 1]),
            ("1.9.0", [0, 0, 1, 1, 0, 1, 1]),
            ("1.9.1", [0, 0, 1, 1, 1, 1, 1]),
            ("1.10.0", [0, 0, 1, 1, 1, 1, 1]),
            ("1.10.1", [1, 1, 1, 1, 1, 1, 1]),
            ("1.12.0", [1, 1, 1, 1, 1, 1, 1]),
            ("2.0.0rc2", [1, 1, 1, 0, 1, 1, 1]),
            // Our own versions are not those of the SDK.
            ("lazyfox-0.1.0", [1, 1, 1, 0, 1, 1, 1]),
            ("lazyfox-1.7.0", [1, 1, 1, 0, 1, 1, 1]),
        ] {
            assert_eq!(row(version), expected, "{version}");
        }
    }
}
