use lazyfox_core::delivery::Schedule;

use lazyfox_core::scale::Scaler;

use super::*;

fn error(text: &str) -> String {
    format!("{:#}", Config::parse(text, Path::new("/base")).unwrap_err())
}

#[test]
fn the_shipped_defaults_are_the_limits_of_core() {
    let config = Config::empty();
    let endpoint = Endpoint::shipped();
    assert_eq!(endpoint.defaults, Defaults::default());
    assert_eq!(endpoint.scale, Settings::default());
    assert_eq!(endpoint.lease_ms, limits::LEASE_MS);
    assert_eq!(endpoint.init_timeout_ms, limits::INIT_TIMEOUT_MS);
    assert_eq!(config.bounds.run_body, limits::RUN_BODY_BYTES);
    assert_eq!(config.bounds.runsync_body, limits::RUNSYNC_BODY_BYTES);
    assert_eq!(config.bounds.result, limits::RESULT_BYTES);
    assert_eq!(config.bounds.chunk, limits::CHUNK_BYTES);
    assert_eq!(config.auth, Auth::Keys);
    assert_eq!(config.abandoned_ms, limits::ABANDONED_MS);
    assert_eq!(endpoint.webhooks.schedule, Schedule::default());
    let bodies = (limits::RUNSYNC_BODY_BYTES + limits::RESULT_BYTES) as u64;
    assert_eq!(endpoint.webhooks.body_bytes, bodies);
}

#[test]
fn webhook_settings_are_laid_over_one_by_one() {
    let text = "[defaults.webhook]\ntries = 5\npause_s = 60\n[endpoints.a]\n[endpoints.b.webhook]\n\
                pause_s = 1\ngrowth = 1.5\njitter = 0.25\non_cancel = true";
    let config = Config::parse(text, Path::new("/base")).unwrap();
    let endpoint = |name: &str| &config.endpoints[&name.parse::<EndpointId>().unwrap()];
    let a = Schedule {
        tries: 5,
        pause_ms: 60_000,
        ..Schedule::default()
    };
    assert_eq!(endpoint("a").webhooks.schedule, a);
    let b = Schedule {
        pause_ms: 1_000,
        growth_percent: 150,
        jitter_percent: 25,
        ..a
    };
    assert_eq!(endpoint("b").webhooks.schedule, b);
    assert!(endpoint("b").defaults.webhook_on_cancel);
    assert!(!endpoint("a").defaults.webhook_on_cancel);
}

#[test]
fn one_host_gets_no_more_than_all_together() {
    let text = "[server]\nwebhooks_at_once = 8\npublic_url = \"https://jobs.example.org/\"";
    let config = Config::parse(text, Path::new("/base")).unwrap();
    assert_eq!((config.webhooks_at_once, config.webhooks_per_host), (8, 8));
    let url = config.public_url.as_deref();
    assert_eq!(url, Some("https://jobs.example.org"));
}

#[test]
fn an_endpoint_is_laid_over_the_defaults() {
    let text = "[defaults]\nworkers_max = 7\n[endpoints.a]\ncommand = [\"x\"]\nworking_dir = \"h\"\n\
                [endpoints.b]\nworkers_max = 1\nscaler = \"REQUEST_COUNT\"";
    let config = Config::parse(text, Path::new("/base")).unwrap();
    let endpoint = |name: &str| &config.endpoints[&name.parse::<EndpointId>().unwrap()];
    assert_eq!(endpoint("a").scale.workers_max, 7);
    let Some(Run::Process(run)) = &endpoint("a").run else {
        panic!("it has a command");
    };
    assert_eq!(run.working_dir, Path::new("/base/h"));
    assert_eq!(endpoint("b").run, None);
    assert_eq!(endpoint("b").scale.workers_max, 1);
    assert_eq!(
        endpoint("b").scale.scaler,
        Scaler::RequestCount { per_worker: 4 }
    );
    assert_eq!(config.data, Path::new("/base/lazyfox-data"));
}

#[test]
fn unknown_keys_name_their_line() {
    let text = error("[endpoints.a]\ncommand = [\"x\"]\nworker_max = 3\n");
    assert!(
        text.contains("line 3") && text.contains("worker_max"),
        "{text}"
    );
    let text = error("[sever]\nlisten = \"x\"\n");
    assert!(text.contains("line 1") && text.contains("sever"), "{text}");
}

#[test]
fn wrong_values_name_key_value_and_range() {
    let cases = [
        (
            "[endpoints.a]\nretries_max = 11",
            "endpoints.a: retries_max is 11, allowed are 0 to 10",
        ),
        (
            "[endpoints.a]\npoison_after = 11",
            "endpoints.a: poison_after is 11, allowed are 0 to 10",
        ),
        (
            "[endpoints.a]\nexecution_timeout_s = 4",
            "execution_timeout_s is 4, allowed are 0 (no limit) and 5 to 604800",
        ),
        (
            "[endpoints.a]\nttl_s = 9",
            "ttl_s is 9, allowed are 10 to 604800",
        ),
        (
            "[endpoints.a]\nworkers_min = 4",
            "workers_min is 4, more than workers_max, which is 3",
        ),
        ("[endpoints.a]\ncommand = []", "command is empty"),
        (
            "[endpoints.a]\nfail_after_starts = 9",
            "fail_after_starts is 9, which is never reached: give_up_after is 8",
        ),
        (
            "[endpoints.serverless]",
            "endpoints.serverless: the name is reserved",
        ),
        (
            "[endpoints.\"a b\"]",
            "endpoints.a b: the name must be 1 to 64 characters",
        ),
        (
            "[endpoints.a]\nlease_s = 3",
            "endpoints.a: lease_s is 3, allowed are 4 to 3600",
        ),
        (
            "[server]\nresult_bytes = 1",
            "server.result_bytes is 1 bytes, allowed are 1024 to 536870912",
        ),
        (
            "[server]\nrun_body_bytes = 536870913",
            "server.run_body_bytes is 536870913 bytes, allowed are 1024 to 536870912",
        ),
        ("[server]\nauth = \"maybe\"", "unknown variant `maybe`"),
        (
            "[server]\nshutdown_s = 21",
            "server.shutdown_s is 21, allowed are 0 to 20",
        ),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn wrong_values_for_webhooks_do_too() {
    for (text, expected) in [
        (
            "[endpoints.a.webhook]\ntries = 0",
            "endpoints.a: webhook.tries is 0, allowed are 1 to 50",
        ),
        (
            "[endpoints.a.webhook]\njitter = 1.5",
            "webhook.jitter is 1.5, allowed are 0 to 1",
        ),
        (
            "[endpoints.a.webhook]\npause_s = 9\npause_max_s = 8",
            "webhook.pause_s is 9, more than webhook.pause_max_s, which is 8",
        ),
        (
            "[endpoints.a.webhook]\npauses = 1",
            "unknown field `pauses`",
        ),
        (
            "[server]\nwebhook_allow = [\"10.0.0.0/33\"]",
            "server.webhook_allow: \"10.0.0.0/33\" must have a prefix length from 0 to 32",
        ),
        (
            "[server]\npublic_url = \"jobs.example.org\"",
            "server.public_url is \"jobs.example.org\", it should be an http or https URL",
        ),
        (
            "[server]\nworker_url = \"http://fox:8000/?a\"",
            "server.worker_url is \"http://fox:8000/?a\", it should be an http or https URL",
        ),
        (
            "[server]\nwebhooks_at_once = 3",
            "server.webhooks_at_once is 3, allowed are 4 to 4096",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn no_keys_only_on_loopback() {
    let config = Config::parse("[server]\nauth = \"none\"", Path::new(".")).unwrap();
    assert!(config.check_address("127.0.0.1:1".parse().unwrap()).is_ok());
    assert!(config.check_address("[::1]:1".parse().unwrap()).is_ok());
    let refused = config
        .check_address("0.0.0.0:1".parse().unwrap())
        .unwrap_err();
    assert!(refused.to_string().contains("auth"), "{refused}");
}

#[test]
fn a_file_without_a_directory_is_in_this_one() {
    let directory = |file: &'static str| directory_of(Path::new(file));
    assert_eq!(directory("lazyfox.toml"), Path::new("."));
    assert_eq!(directory("./lazyfox.toml"), Path::new("."));
    assert_eq!(directory("etc/lazyfox.toml"), Path::new("etc"));
    assert_eq!(directory("/lazyfox.toml"), Path::new("/"));
}

#[test]
fn a_database_url_from_elsewhere_leaves_the_other_settings_as_they_are() {
    let text = "[server]\ndatabase_ca_file = \"ca.pem\"\ndatabase_connections = 7";
    let mut config = Config::parse(text, Path::new("/base")).unwrap();
    assert_eq!(config.database, None);
    config.use_database("postgres://a/b");
    let whole = format!("{text}\ndatabase_url = \"postgres://a/b\"");
    let same = Config::parse(&whole, Path::new("/base")).unwrap();
    assert_eq!(config.database, same.database);
    assert!(config.database.is_some());
}
