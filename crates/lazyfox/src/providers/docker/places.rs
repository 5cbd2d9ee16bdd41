//! Where the container engine listens: as it was said, or where engines usually do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::engine::Trouble;

/// Where engines listen that say nothing else.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At this socket of this machine.
    Unix(PathBuf),
    /// At this host and port, in the clear.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(path.into()));
        }
        let is_address = |host: &&str| {
            let parts = host.rsplit_once(':');
            parts.is_some_and(|(name, port)| {
                let name_is_sound = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
                !name.is_empty() && name.chars().all(name_is_sound) && port.parse::<u16>().is_ok()
            })
        };
        let host = ["tcp://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        match host
            .map(|host| host.trim_end_matches('/'))
            .filter(is_address)
        {
            Some(host) => Ok(Self::Tcp(host.to_owned())),
            None => Err(format!(
                "{text:?}, it should be unix:///PATH or tcp://HOST:PORT"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// Where the engine is looked for, each time that it is needed and not known.
#[derive(Clone, Debug)]
pub struct Places {
    /// What was said about it, by the configuration or else by `DOCKER_HOST`.
    said: Option<Result<Address, String>>,
    /// Else the first of these that is there.
    sockets: Vec<PathBuf>,
}

impl Places {
    /// `configured` wins over the environment.
    #[must_use]
    pub fn of(configured: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let parse = |name: &str, text: &str| text.parse().map_err(|e| format!("{name} is {e}"));
        let configured = configured.map(|text| parse("server.docker_host", text));
        let said = configured.or_else(|| {
            let host = variable("DOCKER_HOST")?;
            Some(parse("DOCKER_HOST", &host).and_then(|address| {
                let wants_tls = variable("DOCKER_TLS_VERIFY").is_some();
                // In the clear where somebody asked for TLS, the engine would be anybody's.
                match address {
                    Address::Tcp(_) if wants_tls => Err(format!(
                        "DOCKER_HOST is {host} with DOCKER_TLS_VERIFY, and engines are not spoken \
                         to by TLS: forward its socket to this machine, such as by ssh -L"
                    )),
                    Address::Tcp(_) | Address::Unix(_) => Ok(address),
                }
            }))
        });
        let own = variable("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("podman/podman.sock"));
        let [docker, podman] = SOCKETS.map(PathBuf::from);
        let sockets = [Some(docker), own, Some(podman)];
        Self {
            said,
            sockets: sockets.into_iter().flatten().collect(),
        }
    }

    /// Where the engine is now.
    pub(super) fn find(&self) -> Result<Address, Trouble> {
        if let Some(said) = &self.said {
            return said.clone().map_err(Trouble::Away);
        }
        match self.sockets.iter().find(|path| path.exists()) {
            Some(path) => Ok(Address::Unix(path.clone())),
            None => {
                let tried: Vec<_> = self
                    .sockets
                    .iter()
                    .map(|it| it.display().to_string())
                    .collect();
                Err(Trouble::Away(format!(
                    "no container engine was found at {}; start one, or say where it is by \
                     server.docker_host or DOCKER_HOST",
                    tried.join(" or ")
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_or_hosts() {
        for (text, expected) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("/run/x.sock", "unix:///run/x.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://[::1]:2375/", "tcp://[::1]:2375"),
            ("http://engine:80", "tcp://engine:80"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected);
        }
        for text in [
            "",
            "ssh://a@b",
            "unix://x.sock",
            "tcp://host",
            "tcp://:1",
            "tcp://a/b:1",
        ] {
            let refused = text.parse::<Address>().unwrap_err();
            assert!(
                refused.contains("unix:///PATH or tcp://HOST:PORT"),
                "{refused}"
            );
        }
    }

    fn found(configured: Option<&str>, variables: &[(&str, &str)]) -> Result<String, String> {
        let variable = |name: &str| {
            let mut all = variables.iter();
            all.find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let places = Places::of(configured, variable);
        let address = places.find().map_err(|it| it.to_string())?;
        Ok(address.to_string())
    }

    #[test]
    fn the_configuration_wins_over_docker_host() {
        let host = [("DOCKER_HOST", "tcp://engine:1")];
        assert_eq!(
            found(Some("/a.sock"), &host),
            Ok("unix:///a.sock".to_owned())
        );
        assert_eq!(found(None, &host), Ok("tcp://engine:1".to_owned()));
        let why = found(None, &[("DOCKER_HOST", "ssh://engine")]).unwrap_err();
        assert!(
            why.contains("DOCKER_HOST is \"ssh://engine\", it should be"),
            "{why}"
        );
        let tls = [
            ("DOCKER_HOST", "tcp://engine:1"),
            ("DOCKER_TLS_VERIFY", "1"),
        ];
        let why = found(None, &tls).unwrap_err();
        assert!(why.contains("TLS"), "{why}");
    }

    #[test]
    fn sockets_are_looked_for_and_the_places_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut places = Places::of(None, |name| {
            (name == "XDG_RUNTIME_DIR").then(|| dir.path().display().to_string())
        });
        assert_eq!(places.sockets.len(), 3);
        // Those of this machine may be there.
        places.sockets.retain(|path| path.starts_with(dir.path()));
        let why = places.find().unwrap_err().to_string();
        assert!(why.contains("podman/podman.sock; start one"), "{why}");
        std::fs::create_dir(dir.path().join("podman")).unwrap();
        std::fs::write(dir.path().join("podman/podman.sock"), "").unwrap();
        let expected = Address::Unix(dir.path().join("podman/podman.sock"));
        assert_eq!(places.find(), Ok(expected));
    }
}
