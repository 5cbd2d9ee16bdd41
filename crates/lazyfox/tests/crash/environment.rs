//! What a worker sees of its server's environment: nothing that is secret.

use std::fs::{self, File};

use crate::gate::{self, Gate};
use crate::server::Home;

/// What servers commonly have in their environment. Each value is the name, so that it is found under
/// whatever name.
const SECRETS: [&str; 14] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BUCKET_SECRET_ACCESS_KEY",
    "CREDENTIALS_DIRECTORY",
    "DATABASE_URL",
    "GITHUB_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "LAZYFOX_API_KEY",
    "LAZYFOX_SECRET",
    "NVIDIA_API_KEY",
    "PGPASSWORD",
    "REGISTRY_PASSWORD",
    "RUNPOD_API_KEY",
];

#[test]
fn no_secret_of_the_server_reaches_a_worker() {
    let home = Home::new(&format!(
        "[server]\nauth = \"none\"\n[registries.own]\nserver = \"r.example\"\nusername = \"u\"\n\
         password_env = \"REGISTRY_PASSWORD\"\n{}",
        gate::endpoint("hands")
    ));
    fs::create_dir(home.path().join("files")).expect("a folder for the worker");
    let gate = Gate::open();
    let listen = format!("127.0.0.1:{}", home.port());
    let mut command = home.lazyfox(&["serve", "--listen", &listen]);
    for name in SECRETS {
        command.env(name, format!("planted-{name}"));
    }
    let log = File::create(home.path().join("server.log")).expect("a log file");
    let mut server = home.wait_for(&mut command, log);
    server.json("POST", "hands/run", &gate.job());
    let arrival = gate.accept();
    let environment = fs::read(format!("/proc/{}/environ", arrival.pid)).expect("it runs");
    let environment = String::from_utf8_lossy(&environment);
    let variables: Vec<&str> = environment.split('\0').collect();
    // It is the worker's, and the allowed part is there.
    let has = |start: &str| variables.iter().any(|it| it.starts_with(start));
    assert!(has("RUNPOD_POD_ID=") && has("PATH=") && has("http_proxy="));
    let leaked = variables.iter().filter(|it| it.contains("planted-"));
    assert_eq!(leaked.collect::<Vec<_>>(), Vec::<&&str>::new());
    // The server itself has them, or nothing was shown.
    let own = fs::read(format!("/proc/{}/environ", server.pid())).expect("it runs");
    let own = String::from_utf8_lossy(&own).into_owned();
    assert_eq!(own.matches("planted-").count(), SECRETS.len());
    drop(arrival);
    assert!(server.stop().success());
}
