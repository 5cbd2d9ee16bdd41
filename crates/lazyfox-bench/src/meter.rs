//! CPU time of servers, of a PostgreSQL and of this tool, from /proc.

use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::server::Server;

/// Unit of the CPU times in /proc: Linux shows them to users in hundredths of a second on every
/// architecture, whatever its timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Takes CPU times from one moment to another.
pub(crate) struct Meter<'a> {
    servers: &'a [Server],
    postmaster: Option<Postmaster>,
    began: Instant,
    before: Cpu,
}

/// CPU time so far, in seconds.
struct Cpu {
    server_s: f64,
    postgres_s: f64,
    own_s: f64,
}

/// What a [`Meter`] has read.
pub(crate) struct Spent {
    /// Of all servers together.
    pub(crate) server_cpu_s: f64,
    /// Of all processes of PostgreSQL; not a number where they are not known.
    pub(crate) postgres_cpu_s: f64,
    pub(crate) own_cpu_s: f64,
    pub(crate) time: Range<Instant>,
}

impl<'a> Meter<'a> {
    /// Of one server that has no database.
    pub(crate) fn start(server: &'a Server) -> Result<Self> {
        Self::start_over(std::slice::from_ref(server), None)
    }

    /// Of servers and the PostgreSQL that they share.
    pub(crate) fn start_over(
        servers: &'a [Server],
        postmaster: Option<Postmaster>,
    ) -> Result<Self> {
        Ok(Self {
            servers,
            postmaster,
            before: Cpu::read(servers, postmaster)?,
            began: Instant::now(),
        })
    }

    pub(crate) fn read(&self) -> Result<Spent> {
        let ended = Instant::now();
        let after = Cpu::read(self.servers, self.postmaster)?;
        Ok(Spent {
            server_cpu_s: after.server_s - self.before.server_s,
            postgres_cpu_s: after.postgres_s - self.before.postgres_s,
            own_cpu_s: after.own_s - self.before.own_s,
            time: self.began..ended,
        })
    }
}

impl Spent {
    pub(crate) fn seconds(&self) -> f64 {
        (self.time.end - self.time.start).as_secs_f64()
    }
}

impl Cpu {
    fn read(servers: &[Server], postmaster: Option<Postmaster>) -> Result<Self> {
        let mut server_s = 0.0;
        for server in servers {
            server_s += server.cpu_s()?;
        }
        Ok(Self {
            server_s,
            postgres_s: postmaster.map_or(Ok(f64::NAN), Postmaster::cpu_s)?,
            own_s: cpu_s("self")?,
        })
    }
}

/// CPU time of a process so far, in seconds.
pub(crate) fn cpu_s(pid: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(path).context("the server has ended")?;
    Ok(Stat::parse(&stat)?.own_s)
}

/// The process of a PostgreSQL on this machine whose children are all others of it.
#[derive(Clone, Copy)]
pub(crate) struct Postmaster(u32);

impl Postmaster {
    /// The one of a server process, if that is on this machine.
    pub(crate) fn of(backend: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{backend}/stat")).ok()?;
        let parent = Stat::parse(&stat).ok()?.parent;
        let name = fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
        // A process of that number may be something else where the database is elsewhere.
        name.starts_with("postgres").then_some(Self(parent))
    }

    /// CPU time of all processes so far, those that have ended with them.
    fn cpu_s(self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.0);
        let stat = fs::read_to_string(path).context("PostgreSQL has ended")?;
        // It is read first: a child that ends meanwhile is then missed for once, and not counted
        // twice.
        let stat = Stat::parse(&stat)?;
        let mut sum = stat.own_s + stat.waited_for_s;
        for entry in fs::read_dir("/proc").context("cannot list /proc")? {
            let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else {
                continue;
            };
            match Stat::parse(&stat) {
                Ok(child) if child.parent == self.0 => sum += child.own_s,
                _ => {}
            }
        }
        Ok(sum)
    }
}

/// What is of use in /proc/PID/stat.
struct Stat {
    parent: u32,
    own_s: f64,
    /// Of children that have ended.
    waited_for_s: f64,
}

impl Stat {
    fn parse(text: &str) -> Result<Self> {
        Self::fields(text).context("/proc/…/stat has another form")
    }

    fn fields(text: &str) -> Option<Self> {
        // The name in the second field may hold blanks and parentheses, so count from its end.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let seconds = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own_s: seconds(11)? + seconds(12)?,
            waited_for_s: seconds(13)? + seconds(14)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 150 50 20 5 20 0 1 0 99 0 0";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!(stat.parent, 3);
        assert!((stat.own_s - 2.0).abs() < 1e-9);
        assert!((stat.waited_for_s - 0.25).abs() < 1e-9);
        assert!(Stat::parse("7 (a").is_err());
    }

    #[test]
    fn this_process_has_no_postmaster() {
        assert!(Postmaster::of(std::process::id()).is_none());
    }
}
