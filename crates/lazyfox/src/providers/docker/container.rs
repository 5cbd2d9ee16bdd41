//! What a container is made of, and how it is known again.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount as Mounted,
    MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use lazyfox_core::id::WorkerId;
use lazyfox_core::time::Timestamp;

use super::engine::State;
use crate::providers::process::environment::reach_directly;
use crate::providers::{ContainerRun, Exit, Found, Mount, Release, StartError};

/// What the labels' names begin with.
const PREFIX: &str = "dev.lazyfox.";

/// The engine keeps so much of what a worker writes, in two files, should the server be away: Lazyfox keeps
/// its own.
const LOG_SIZE: &str = "16m";
const LOG_FILES: &str = "2";

/// Exit codes from here on say which signal ended the process.
const SIGNALS_FROM: i64 = 128;
const SIGNAL_MAX: i64 = 64;

/// The name of a worker's container.
pub(super) fn name(worker: &WorkerId) -> String {
    format!("lazyfox-{worker}")
}

/// A label as the engine's lists are filtered by it.
pub(super) fn label(name: &str, value: &str) -> String {
    format!("{PREFIX}{name}={value}")
}

/// Everything by which a worker is known again.
pub(super) fn labels(server: &str, found: &Found) -> HashMap<String, String> {
    let labels = [
        ("server", server.to_owned()),
        ("worker", found.worker.to_string()),
        ("endpoint", found.endpoint.to_string()),
        ("release", found.release.to_string()),
        ("gpus", found.gpus.join(",")),
        ("started_at", found.started_at.as_ms().to_string()),
    ];
    let labels = labels.into_iter();
    labels
        .map(|(name, value)| (format!("{PREFIX}{name}"), value))
        .collect()
}

/// The worker that these labels describe; `None` when somebody changed them.
pub(super) fn found(labels: &HashMap<String, String>) -> Option<Found> {
    let label = |name: &str| labels.get(&format!("{PREFIX}{name}")).map(String::as_str);
    let gpus = label("gpus")?.split(',').filter(|gpu| !gpu.is_empty());
    Some(Found {
        worker: label("worker")?.parse().ok()?,
        endpoint: label("endpoint")?.parse().ok()?,
        started_at: Timestamp::from_ms(label("started_at")?.parse().ok()?),
        release: Release(label("release")?.parse().ok()?),
        gpus: gpus.map(str::to_owned).collect(),
    })
}

/// Refuses a container that could not reach its server.
pub(super) fn check_reach(network: Option<&str>, server_host: &str) -> Result<(), StartError> {
    let address = server_host.parse::<IpAddr>();
    let is_own = address.map_or(server_host == "localhost", |it| it.is_loopback());
    match network {
        None | Some("host") => Ok(()),
        Some("none") => Err(StartError::new(
            "network is \"none\", in which a worker cannot reach its server; leave it out for the \
             machine's own",
        )),
        Some(name) if is_own => Err(StartError::new(format!(
            "network is {name:?}, in which {server_host} is the container itself: say where workers \
             reach this server by server.worker_url (or --worker-url) and let it listen there, or \
             leave network out for the machine's own"
        ))),
        Some(_) => Ok(()),
    }
}

/// The environment of a worker: what it is promised, and what an image cannot know. Nothing of the
/// server's own.
pub(super) fn environment(
    promised: Vec<(String, String)>,
    of_image: &[String],
    server_host: &str,
    gpus: &[String],
) -> Vec<String> {
    let pairs = of_image.iter().filter_map(|pair| pair.split_once('='));
    let of_image: BTreeMap<OsString, OsString> = pairs
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let mut env = BTreeMap::new();
    // Without it Python keeps lines back in a buffer, because the log is no terminal.
    if !of_image.contains_key(&OsString::from("PYTHONUNBUFFERED")) {
        env.insert("PYTHONUNBUFFERED".into(), "1".into());
    }
    if gpus.is_empty() {
        // Where the engine's runtime is NVIDIA's own, an image made for GPUs would get all of them.
        env.insert("NVIDIA_VISIBLE_DEVICES".into(), "void".into());
    } else {
        env.insert("RUNPOD_GPU_COUNT".into(), gpus.len().to_string().into());
    }
    // The image may have a proxy, and hosts that are reached without it.
    for name in ["NO_PROXY", "no_proxy"].map(OsString::from) {
        if let Some(hosts) = of_image.get(&name) {
            env.insert(name, hosts.clone());
        }
    }
    env.extend(
        promised
            .into_iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    reach_directly(&mut env, server_host);
    let pairs = env.iter();
    pairs
        .map(|(name, value)| format!("{}={}", name.display(), value.display()))
        .collect()
}

/// What the engine is asked to make.
pub(super) fn body(
    server: &str,
    found: &Found,
    run: &ContainerRun,
    env: Vec<String>,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(run.image.clone()),
        entrypoint: run.entrypoint.clone(),
        cmd: run.command.clone(),
        env: Some(env),
        labels: Some(labels(server, found)),
        host_config: Some(host_config(run, &found.gpus)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(run: &ContainerRun, gpus: &[String]) -> HostConfig {
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let log = [("max-size", LOG_SIZE), ("max-file", LOG_FILES)];
    let log = log.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let files = bytes(run.open_files).map(|files| {
        vec![ResourcesUlimits {
            name: Some("nofile".to_owned()),
            soft: Some(files),
            hard: Some(files),
        }]
    });
    HostConfig {
        network_mode: Some(run.network.clone().unwrap_or_else(|| "host".to_owned())),
        memory: bytes(run.memory_bytes),
        // Without swap beside it: a worker beyond its limit would only become slow, and with it all.
        memory_swap: bytes(run.memory_bytes),
        shm_size: bytes(run.shm_bytes),
        ulimits: files,
        mounts: Some(run.mounts.iter().map(mounted).collect()),
        device_requests: (!gpus.is_empty()).then(|| vec![device_request(gpus)]),
        // Handlers start programs and seldom wait for them.
        init: Some(true),
        // Ends are looked at here, and decided on elsewhere.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log.into()),
        }),
        ..HostConfig::default()
    }
}

/// A mount and no "bind": of what is not there, that would make an empty directory.
fn mounted(mount: &Mount) -> Mounted {
    Mounted {
        typ: Some(MountType::BIND),
        source: Some(mount.from.display().to_string()),
        target: Some(mount.to.display().to_string()),
        read_only: Some(mount.read_only),
        ..Mounted::default()
    }
}

fn device_request(gpus: &[String]) -> DeviceRequest {
    DeviceRequest {
        driver: Some("nvidia".to_owned()),
        device_ids: Some(gpus.to_vec()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

/// How a container's main process ended; `killed` is whether this server had it killed.
pub(super) fn exit(state: &State, killed: bool) -> Exit {
    match *state {
        State::Ended {
            code,
            out_of_memory: true,
            memory_bytes: limit,
        } if code != 0 && !killed => Exit::OutOfMemory { limit },
        State::Ended { code, .. } if is_signal(code) => {
            Exit::Signal(i32::try_from(code - SIGNALS_FROM).unwrap_or_default())
        }
        State::Ended { code, .. } => i32::try_from(code).map_or(Exit::Unknown, Exit::Code),
        State::Made | State::Runs | State::Gone => Exit::Unknown,
    }
}

fn is_signal(code: i64) -> bool {
    (SIGNALS_FROM + 1..=SIGNALS_FROM + SIGNAL_MAX).contains(&code)
}

/// Where the worker reaches its server, as it was told.
pub(super) fn server_url(env: &[(String, String)]) -> Option<&str> {
    let (_, url) = env
        .iter()
        .find(|(name, _)| name == "RUNPOD_WEBHOOK_GET_JOB")?;
    url.split_once("/v2/").map(|(base, _)| base)
}

/// Names the tag that is meant where there is none: the engine would pull all that there are.
pub(super) fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Found {
        Found {
            worker: "wk1".parse().unwrap(),
            endpoint: "ep".parse().unwrap(),
            started_at: Timestamp::from_ms(1_000),
            release: Release(7),
            gpus: vec!["0".to_owned(), "GPU-1".to_owned()],
        }
    }

    #[test]
    fn workers_are_known_by_their_labels() {
        let mut labels = labels("srv", &worker());
        assert_eq!(labels["dev.lazyfox.server"], "srv");
        assert_eq!(found(&labels), Some(worker()));
        let without = Found {
            gpus: Vec::new(),
            ..worker()
        };
        assert_eq!(found(&super::labels("srv", &without)), Some(without));
        labels.insert("dev.lazyfox.release".to_owned(), "x".to_owned());
        assert_eq!(found(&labels), None);
    }

    #[test]
    fn a_container_is_made_as_the_configuration_says() {
        let run = ContainerRun {
            image: "img".to_owned(),
            command: Some(vec!["run".to_owned()]),
            mounts: vec![Mount {
                from: "/srv/models".into(),
                to: "/models".into(),
                read_only: true,
            }],
            memory_bytes: Some(1024),
            shm_bytes: Some(2048),
            open_files: Some(99),
            network: Some("jobs".to_owned()),
            ..ContainerRun::default()
        };
        let body = serde_json::to_value(body("srv", &worker(), &run, vec!["A=1".to_owned()]));
        let body = body.unwrap();
        let expected = serde_json::json!({
            "NetworkMode": "jobs",
            "Memory": 1024,
            "MemorySwap": 1024,
            "ShmSize": 2048,
            "Ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 99}],
            "Mounts": [
                {"Type": "bind", "Source": "/srv/models", "Target": "/models", "ReadOnly": true}
            ],
            "DeviceRequests": [
                {"Driver": "nvidia", "DeviceIDs": ["0", "GPU-1"], "Capabilities": [["gpu"]]}
            ],
            "Init": true,
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": false,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "16m", "max-file": "2"}},
        });
        assert_eq!(body["HostConfig"], expected);
        assert_eq!(body["Env"], serde_json::json!(["A=1"]));
        assert_eq!(body["Cmd"], serde_json::json!(["run"]));
        assert_eq!(body.get("Entrypoint"), None);

        let plain = host_config(&ContainerRun::default(), &[]);
        assert_eq!(plain.network_mode.as_deref(), Some("host"));
        assert_eq!((plain.memory, plain.device_requests), (None, None));
    }

    #[test]
    fn environments_are_promised_ones_and_reach_the_server_without_a_proxy() {
        let of_image = ["PATH=/bin", "NO_PROXY=a", "PYTHONUNBUFFERED=0"].map(str::to_owned);
        let promised = vec![("MODEL".to_owned(), "x=y".to_owned())];
        let env = environment(promised.clone(), &of_image, "127.0.0.1", &[]);
        let expected = [
            "MODEL=x=y",
            "NO_PROXY=a,127.0.0.1",
            "NVIDIA_VISIBLE_DEVICES=void",
            "no_proxy=a,127.0.0.1",
        ];
        assert_eq!(env, expected);
        let env = environment(promised, &[], "10.0.0.1", &["3".to_owned()]);
        let expected = [
            "MODEL=x=y",
            "NO_PROXY=10.0.0.1",
            "PYTHONUNBUFFERED=1",
            "RUNPOD_GPU_COUNT=1",
            "no_proxy=10.0.0.1",
        ];
        assert_eq!(env, expected);
    }

    #[test]
    fn a_loopback_server_is_reached_from_the_machines_own_network_only() {
        for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost"] {
            assert_eq!(check_reach(None, host), Ok(()));
            assert_eq!(check_reach(Some("host"), host), Ok(()));
            let why = check_reach(Some("bridge"), host).unwrap_err().to_string();
            assert!(why.contains("server.worker_url"), "{why}");
        }
        assert_eq!(check_reach(Some("bridge"), "172.17.0.1"), Ok(()));
        let why = check_reach(Some("none"), "172.17.0.1")
            .unwrap_err()
            .to_string();
        assert!(why.contains("cannot reach its server"), "{why}");
    }

    #[test]
    fn exit_codes_say_signals_and_want_of_memory() {
        let ended = |code, out_of_memory| State::Ended {
            code,
            out_of_memory,
            memory_bytes: Some(64),
        };
        let limit = Some(64);
        assert_eq!(exit(&ended(3, false), false), Exit::Code(3));
        assert_eq!(exit(&ended(143, false), false), Exit::Signal(15));
        assert_eq!(exit(&ended(255, false), false), Exit::Code(255));
        assert_eq!(exit(&ended(137, true), false), Exit::OutOfMemory { limit });
        // A process of its was killed, and its main process gave up.
        assert_eq!(exit(&ended(1, true), false), Exit::OutOfMemory { limit });
        assert_eq!(exit(&ended(0, true), false), Exit::Code(0));
        assert_eq!(exit(&ended(137, true), true), Exit::Signal(9));
        assert_eq!(exit(&State::Gone, false), Exit::Unknown);
    }

    #[test]
    fn images_without_a_tag_are_the_latest() {
        for (image, expected) in [
            ("ocr", "ocr:latest"),
            ("host:5000/ocr", "host:5000/ocr:latest"),
            ("host:5000/ocr:1", "host:5000/ocr:1"),
            ("ocr@sha256:00", "ocr@sha256:00"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }

    #[test]
    fn the_servers_url_is_what_the_worker_was_told() {
        let url = "http://127.0.0.1:80/x/v2/ep/job-take/w?gpu=".to_owned();
        let env = [("RUNPOD_WEBHOOK_GET_JOB".to_owned(), url)];
        assert_eq!(server_url(&env), Some("http://127.0.0.1:80/x"));
        assert_eq!(server_url(&[]), None);
    }
}
